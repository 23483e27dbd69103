"""Rebuild a past cycle's stages in a folder of its own, and say what is equal to its record.

    <folder>/workspace/runs/<run_id>/...    the rebuilt cycle, in the layout of every workspace
    <folder>/registry/reproduction.db       an MLflow store in a file: runs and model versions
    <folder>/registry/artifacts/            what MLflow keeps of them
    <folder>/champion/                      the champion, from the original registry

The folder is kept, and the same reproduction goes on in it, as a cycle goes on in its run folder.
It is this run's where the manifest of `resolve_run` says so, and names this code and machine. The
champion is the first version of the registry here, and what is trained gets the next numbers. The
original registry is asked for the champion's files, and nothing else.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.code_identity import environment
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.contracts.run_layout import StageRecord, manifest_uri, snapshot_manifest_uri
from pipelines.metrics.measured import unmeasured
from pipelines.registry import registry, tracking
from pipelines.reproduction.comparing import (
    REBUILT,
    Finding,
    PastCycle,
    changes_since,
    compare_stage,
    read_listing,
)
from pipelines.stages.runner import read_record, run_stage

if TYPE_CHECKING:
    from mlflow import MlflowClient

_OTHER_FOLDER = "name another folder with --into"
_NO_CHAMPION = "rebuild what needs no champion: give --until train_anchor"


@dataclass(frozen=True)
class Outcome:
    """What came out of a reproduction."""

    findings: tuple[Finding, ...]
    changes: tuple[str, ...]  # what is not as it was, whether or not it made a difference
    stopped_by: HomefeedError | None  # why a stage could not be rebuilt

    @property
    def differing(self) -> tuple[Finding, ...]:
        """What was rebuilt and is not what the record says."""
        return tuple(found for found in self.findings if found.state == "differs")


def rebuild(
    past: PastCycle,
    folder: Path,
    until: str,
    tell: Callable[[str], None],
    event_log_uri: str = "",
) -> Outcome:
    """Rebuild a cycle up to a stage; what an earlier attempt in the folder has rebuilt is kept.

    A stage that cannot be rebuilt ends it, and is told of in the outcome with its error.

    Args:
        past: The cycle.
        folder: An empty folder, one that is not there, or one of an earlier reproduction.
        until: One of `REBUILT`.
        tell: Called with a line at the start and at the end of each stage.
        event_log_uri: Where the event log lies by now; '' where it lay.

    Raises:
        ConfigurationError: the folder holds something else.
        RunInProgressError: another process rebuilds in the folder.
    """
    rebuilt: dict[str, StageRecord] = {}
    stopped_by = None
    run, changes = moved(past.run, folder, event_log_uri)
    with _prepared(folder, past, run):
        for name in past.stages_until(until):
            tell(f"{name}: starting")
            started = time.monotonic()
            try:
                if name == "compare_with_champion":
                    fetch_champion(past.run, folder)
                is_data = name in ("build_snapshot", "check_snapshot")  # which talk to no MLflow
                own = contextlib.nullcontext() if is_data else own_registry(folder, run)
                with own, unmeasured():
                    run_stage(name, run.run_uri)
                rebuilt[name] = read_record(run.run_uri, name)
            except HomefeedError as error:
                stopped_by = error
                tell(f"{name}: not rebuilt, {type(error).__name__}: {error}")
                break
            tell(f"{name}: done in {time.monotonic() - started:.1f} s")
        findings = tuple(
            found
            for name in REBUILT[: REBUILT.index(until) + 1]
            for found in compare_stage(name, past.records.get(name), rebuilt.get(name))
        )
        changes += changes_since(past, rebuilt, read_listing(run.run_uri))
    return Outcome(findings, tuple(changes), stopped_by)


@contextlib.contextmanager
def _prepared(folder: Path, past: PastCycle, run: ResolvedRun) -> Iterator[None]:
    """Make a folder this run's, or go on in it, and keep others out of it meanwhile.

    Raises:
        ConfigurationError: it lies in the original, holds other files than this reproduction's, or
            what other code, packages or another machine have rebuilt.
    """
    for uri in (past.run_uri, past.run.workspace_uri, past.run.event_log_uri):
        if storage.is_local(uri) and folder.resolve().is_relative_to(
            storage.local_path(uri).resolve()
        ):
            raise ConfigurationError(
                f"{folder} lies in {uri}, of which nothing is to be touched; expected a folder "
                f"elsewhere; {_OTHER_FOLDER}"
            )
    uri, today = manifest_uri(run.run_uri, "resolve_run"), environment()
    record = StageRecord(
        stage="resolve_run",
        input_digest=past.records["resolve_run"].input_digest,
        artifact=run.model_dump(mode="json"),
        made_with=today,
        wall_s=0.0,
        finished_at=datetime.now(UTC),
    )
    former = read_record(run.run_uri, "resolve_run", _OTHER_FOLDER) if storage.exists(uri) else None
    # A commit to the documentation changes the version alone.
    version = {"code_version": today.code_version}
    made_with = former and former.made_with and former.made_with.model_copy(update=version)
    seen = former and (former.input_digest, former.artifact["tracking_uri"], made_with)
    ours = (record.input_digest, run.tracking_uri, today)  # No copy of a cycle says this address.
    # A process that was killed at once leaves no more than its lock and an unfinished file.
    files = (each for each in folder.rglob("*") if each.is_file() and each.suffix != ".lock")
    found = next((each for each in files if not each.name.startswith(".")), None)
    if found is not None and seen != ours:
        raise ConfigurationError(
            f"{folder} holds {found}; expected an empty folder, or one in which this very run "
            f"({run.run_id}) was being rebuilt, by this code and on this machine; {_OTHER_FOLDER}"
        )
    with storage.exclusive_lock(storage.to_uri(folder / "reproduction"), f"rebuilding in {folder}"):
        storage.write_model(uri, record)
        yield


def moved(run: ResolvedRun, folder: Path, event_log_uri: str) -> tuple[ResolvedRun, list[str]]:
    """Return the run with other places, and what of its inputs is gone."""
    workspace_uri = storage.to_uri(folder / "workspace")
    reference, notes = run.last_accepted_snapshot_uri, []
    if reference is not None and not storage.exists(snapshot_manifest_uri(reference)):
        notes.append(
            f"the snapshot that the data gate compared with is gone ({reference}), so nothing was "
            f"judged against it"
        )
        reference = None
    places = {
        "workspace_uri": workspace_uri,
        "run_uri": storage.join(workspace_uri, "runs", run.run_id),
        "tracking_uri": f"sqlite:///{folder / 'registry' / tracking.OWN_REGISTRY}",
        "event_log_uri": event_log_uri or run.event_log_uri,
        "last_accepted_snapshot_uri": reference,
        "champion": run.champion and run.champion.model_copy(update={"version": "1"}),
        "work_folder": "",
        # The same processes, all on this machine, train the same weights.
        "num_devices": run.num_devices * run.num_nodes,
        "num_nodes": 1,
    }
    return run.model_copy(update=places), notes


def fetch_champion(original: ResolvedRun, folder: Path) -> None:
    """Fetch the champion's files from the original registry, which is only read.

    Raises:
        TrackingUnavailableError: the original registry does not answer.
        TrackingEntryMissingError: the champion's version was deleted.
        DataContractError: its files are gone, or are not those that the record names.
    """
    champion, place = original.champion, folder / "champion"
    if champion is None or place.exists():
        return  # Whole, by an earlier attempt; the comparison looks at their digests.
    client = tracking.connect(original.tracking_uri)
    registry.read_version(client, champion.name, champion.version)
    with storage.scratch_folder(storage.to_uri(folder)) as scratch:
        found = registry.download_version(client, champion, scratch, _NO_CHAMPION)
        storage.publish_folder(found, storage.to_uri(place))


@contextlib.contextmanager
def own_registry(folder: Path, run: ResolvedRun) -> "Iterator[MlflowClient]":
    """Make the reproduction's registry, or find it, and have MLflow use it for the time being.

    Its first version is the champion's, whose files come when the comparison needs them. MLflow's
    store in a file asks the process's own address where a logged model lies, and not the one that
    its client was given.
    """
    place, name, champion = folder / "registry", run.registered_model, run.champion
    store = place / tracking.OWN_REGISTRY
    if not store.exists():
        from mlflow import MlflowClient

        # It is made under another name first: a store that was begun is of no use.
        begun = store.with_suffix(".begun")
        with storage.translated_errors(str(store), "making"), translated_outages(run.tracking_uri):
            place.mkdir(parents=True, exist_ok=True)
            begun.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"sqlite:///{begun}").search_experiments(max_results=1)
            begun.rename(store)
    with tracking.address_of_process(run.tracking_uri):
        client = tracking.connect(run.tracking_uri)
        with translated_outages(run.tracking_uri):
            if client.get_experiment_by_name(run.experiment) is None:
                artifacts = (place / "artifacts").as_uri()
                client.create_experiment(run.experiment, artifact_location=artifacts)
            registry.ensure_registered_model(client, name, run.workspace_uri)
            if champion is not None and not client.search_model_versions(f"name = '{name}'"):
                tags = champion.model_dump(mode="json", exclude={"name", "version"})
                client.create_model_version(name, (folder / "champion").as_uri(), tags=tags)
        yield client
