"""The folder in which a cycle is rebuilt: a workspace, a registry, and whose reproduction it is.

    <folder>/reproduction.json                  a Claim: which run is rebuilt here
    <folder>/workspace/runs/<run_id>/...        the rebuilt cycle, in the layout of every workspace
    <folder>/workspace/judged/<model>/...       copies of the evidence that the cycle pooled
    <folder>/registry/...                       see `pipelines.reproduction.own_registry`
    <folder>/champion/                          the champion, from the original registry

The folder is kept. The same reproduction goes on in it, as a cycle goes on in its run folder, where
what was made there would be made so today. Else it is made anew: by the manifest of `resolve_run`
the folder knows which code, packages and machine have worked in it, and by the list of files which
event log the snapshot was built from.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipelines import deletion, storage
from pipelines.contracts.artifacts import PinnedFile, ResolvedRun
from pipelines.contracts.base import Frozen
from pipelines.contracts.code_identity import Environment, environment
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import StageRecord, manifest_uri, snapshot_manifest_uri
from pipelines.registry import evidence
from pipelines.registry.tracking import OWN_REGISTRY
from pipelines.reproduction.past_cycle import REBUILT, PastCycle
from pipelines.stages.runner import read_record

_CLAIM = "reproduction.json"
_REPAIR = "name another folder with --into"


class Claim(Frozen):
    """Which run a folder is a reproduction of."""

    run_id: str
    run_digest: str


@dataclass(frozen=True)
class Scratch:
    """A reproduction's places, and the run that is rebuilt there."""

    folder: Path
    run: ResolvedRun
    notes: tuple[str, ...]  # what could not be as it was, whatever is rebuilt
    is_cleared: bool = False  # what was rebuilt here by other code or on another machine is gone

    @property
    def registry(self) -> Path:
        """Folder of the registry of its own."""
        return self.folder / "registry"

    @property
    def champion(self) -> Path:
        """Folder with the champion, once it was fetched."""
        return self.folder / "champion"

    def write_run(self, past: PastCycle) -> None:
        """Write the manifest of `resolve_run`, from which the stages are run."""
        record = StageRecord(
            stage="resolve_run",
            input_digest=past.records["resolve_run"].input_digest,
            artifact=self.run.model_dump(mode="json"),
            made_with=environment(),
            wall_s=0.0,
            finished_at=datetime.now(UTC),
        )
        storage.write_model(manifest_uri(self.run.run_uri, "resolve_run"), record.sealed())

    def record_of(self, stage: str) -> StageRecord | None:
        """Return what an earlier attempt, or this one, has left of a stage, if it has ended.

        Raises:
            DataContractError: the manifest was edited or is damaged.
        """
        uri = manifest_uri(self.run.run_uri, stage)
        return read_record(self.run.run_uri, stage, _REPAIR) if storage.exists(uri) else None

    def forget_stages(self) -> None:
        """Have every stage made again; what was trained on the same snapshot is not trained again.

        It is for a process that has not asked the registry yet: MLflow keeps the store's file open.
        The snapshot's manifest goes last. A process that is killed in between begins with it.
        """
        deletion.remove(storage.to_uri(self.registry))
        for stage in reversed(REBUILT):
            deletion.remove(manifest_uri(self.run.run_uri, stage))

    def clear_what_others_made(self) -> bool:
        """Remove what other code, packages or another machine have made here, unfinished work too.

        Returns:
            Whether there was any.
        """
        record = self.record_of("resolve_run")
        if record is None or _unnamed(record.made_with) == _unnamed(environment()):
            return False
        for place in (self.registry, storage.local_path(self.run.workspace_uri)):
            deletion.remove(storage.to_uri(place))
        return True

    def copy_evidence(self, past: PastCycle) -> None:
        """Copy what earlier cycles found, which the comparison pools.

        Raises:
            DataContractError: it was deleted or altered since the run was resolved.
        """
        evidence.copy_pinned(past.run, self.run.workspace_uri)


def _unnamed(made_with: Environment | None) -> Environment | None:
    """Return an environment without the version: a commit to the documentation changes that."""
    return made_with and made_with.model_copy(update={"code_version": ""})


def choose_folder(into: str, run_id: str) -> Path:
    """Return the folder to work in: the one that was named, or a new temporary one.

    Raises:
        ConfigurationError: it is not on this machine.
    """
    if into:
        return storage.local_path(storage.to_uri(into))
    return Path(tempfile.mkdtemp(prefix=f"homefeed-reproduce-{run_id}-"))


@contextlib.contextmanager
def open_scratch(folder: Path, past: PastCycle, event_log_uri: str = "") -> Iterator[Scratch]:
    """Make a folder this run's, or go on in it, and keep others out of it meanwhile.

    Args:
        folder: An empty folder, one that is not there, or one of an earlier reproduction.
        past: The cycle.
        event_log_uri: Where the event log lies by now; '' where it lay.

    Raises:
        ConfigurationError: the folder holds something else.
        RunInProgressError: another process rebuilds in it.
    """
    claim = Claim(run_id=past.run.run_id, run_digest=past.run.fingerprint())
    _require_outside(folder, past)
    _require_free(folder, claim)
    with storage.exclusive_lock(storage.to_uri(folder / "reproduction"), f"rebuilding in {folder}"):
        _require_free(folder, claim)
        storage.write_model(storage.to_uri(folder / _CLAIM), claim)
        run, notes = _moved(past.run, folder, event_log_uri)
        scratch = Scratch(folder, run, notes)
        is_cleared = scratch.clear_what_others_made()
        scratch.write_run(past)
        yield replace(scratch, is_cleared=is_cleared)


def _require_outside(folder: Path, past: PastCycle) -> None:
    """Refuse a folder in the original's own places, where it would be taken for a part of them."""
    for uri in (past.run_uri, past.run.workspace_uri, past.run.event_log_uri):
        if storage.is_local(uri) and folder.resolve().is_relative_to(
            storage.local_path(uri).resolve()
        ):
            raise ConfigurationError(
                f"{folder} lies in {uri}, of which nothing is to be touched; expected a folder "
                f"elsewhere; name one with --into"
            )


def _require_free(folder: Path, claim: Claim) -> None:
    claim_uri = storage.to_uri(folder / _CLAIM)
    found_names = storage.list_names(storage.to_uri(folder))
    # A process that was killed at once leaves no more than these two.
    names = {n for n in found_names if n != "reproduction.lock" and not n.startswith(f".{_CLAIM}")}
    if not names:
        return
    found = storage.read_model(claim_uri, Claim, _REPAIR) if _CLAIM in names else None
    if found != claim:
        what = f"the reproduction of run {found.run_id}" if found else "other files"
        raise ConfigurationError(
            f"{folder} holds {what}; expected an empty folder, or one in which this very run "
            f"({claim.run_id}) was being rebuilt; name another one with --into"
        )


def _moved(
    run: ResolvedRun, folder: Path, event_log_uri: str
) -> tuple[ResolvedRun, tuple[str, ...]]:
    """Return the run with other places, and what of its inputs is gone."""
    workspace_uri = storage.to_uri(folder / "workspace")
    reference, notes = run.last_accepted_snapshot_uri, []
    if reference is not None and not storage.exists(snapshot_manifest_uri(reference)):
        notes.append(
            f"the snapshot that the data gate compared with is gone ({reference}), so nothing was "
            f"judged against it"
        )
        reference = None
    pinned = (
        PinnedFile(uri=evidence.copied_uri(run, workspace_uri, file), sha256=file.sha256)
        for file in run.judged_before
    )
    places = {
        "workspace_uri": workspace_uri,
        "run_uri": storage.join(workspace_uri, "runs", run.run_id),
        "tracking_uri": f"sqlite:///{folder / 'registry' / OWN_REGISTRY}",
        "event_log_uri": event_log_uri or run.event_log_uri,
        "last_accepted_snapshot_uri": reference,
        "judged_before": tuple(pinned),
        "work_folder": "",
        # The same processes, all on this machine, train the same weights.
        "num_devices": run.num_devices * run.num_nodes,
        "num_nodes": 1,
    }
    return run.model_copy(update=places), tuple(notes)
