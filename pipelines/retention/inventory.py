"""Lists what lies in a workspace, with sizes and ages, and what is on record of the champion.

Only reads. What has not the form that this project writes is not listed, so it
is never deleted. Not for the registry's models (`models`), nor for what may go (`plan`).
"""

import fnmatch
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pyarrow import fs

from pipelines import storage
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.run_layout import (
    StageRecord,
    manifest_uri,
    snapshot_manifest_uri,
)
from pipelines.contracts.stage_table import SIDES
from pipelines.registry import evidence, reconcile
from pipelines.registry.standing import JudgedSnapshot
from pipelines.retention.plan import FoundRun, Held, Holdings, Record, name_in

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SNAPSHOT_NAME = re.compile(r"[0-9a-f]{16}")
_ALERT_NAME = re.compile(r"(.+\.[a-z_]+\.[0-9a-f]{8})\.(?:json|txt)")
_SCRATCH_NAME = re.compile(r"\.scratch-[0-9a-f]{32}")
MAY_WORK_FOR = timedelta(days=7)
"""For how long an attempt that says nothing of its end may be at work; a killed one counts, too."""


def read_state(client: "MlflowClient", workspace_uri: str, name: str) -> reconcile.State:
    """Return alias and history, which agree and are whole.

    Whatever is deleted is deleted because the record does not need it. So a registry that does not
    answer, or a record that is not sound, means that nothing is deleted at all.

    Raises:
        TrackingUnavailableError: the registry does not answer.
        RecordDisagreesError: alias and history disagree, or another workspace keeps the history.
        DataContractError: some of the record is damaged.
        ConfigurationError: there is no workspace.
    """
    reconcile.require_workspace(workspace_uri)
    state = reconcile.look_between_moves(client, workspace_uri, name)
    reconcile.require_agreement(state)
    reconcile.require_newest(state)
    if state.history.damaged:
        raise DataContractError(
            f"the history of {name} is damaged ({', '.join(state.history.damaged)}), so what "
            f"served is not known; expected every entry as it was written; nothing is deleted; "
            f"put them back, or see what would mend it with `homefeed history repair`"
        )
    return state


def read_record(client: "MlflowClient", workspace_uri: str, name: str) -> Record:
    """Return what is on record of a registered model; raises as `read_state` does."""
    state = read_state(client, workspace_uri, name)
    last, marks = state.history.last, []
    cycles = evidence.read(evidence.pin(workspace_uri, name, but=""))
    folder = storage.join(workspace_uri, "accepted_snapshots")
    for recipe in storage.list_names(folder):  # of each the mark that the next cycle looks at
        place = storage.join(folder, recipe)
        for found in reversed(fnmatch.filter(storage.list_names(place), "[!.]*.json")):
            repair = "delete it: an older accepted snapshot is then the reference"
            mark = storage.read_model(storage.join(place, found), JudgedSnapshot, repair)
            if storage.exists(snapshot_manifest_uri(mark.snapshot_uri)):
                marks.append(mark)
                break
    return Record(
        state=state,
        judged_runs=frozenset(
            cycle.run_id
            for cycle in cycles
            if last is None or cycle.first_judged_at > last.moved_at
        ),
        references={name_in(mark.snapshot_uri): mark.recipe for mark in marks},
        profile_uris=tuple(mark.found_uri for mark in marks if mark.found_uri),
    )


def take_inventory(workspace_uri: str) -> Holdings:
    """Return all that lies in a workspace and may be deleted one day."""
    runs_uri, snapshots_uri, outbox_uri = (
        storage.join(workspace_uri, name) for name in ("runs", "snapshots", "outbox")
    )
    runs = find_runs(workspace_uri)
    stages = [storage.join(run.uri, stage) for run in runs for stage in SIDES]
    snapshots = []
    for name in filter(_SNAPSHOT_NAME.fullmatch, _folder_names(snapshots_uri)):
        uri = storage.join(snapshots_uri, name)
        snapshots += [Held(name, uri, *size)] if (size := measure(uri)) else []
    alerts: dict[str, list[fs.FileInfo]] = {}
    for entry in _entries(outbox_uri, is_recursive=False):
        if entry.is_file and (match := _ALERT_NAME.fullmatch(entry.base_name)):
            alerts.setdefault(match[1], []).append(entry)  # its receipt and its text
    leftovers = []
    for folder in (workspace_uri, snapshots_uri, runs_uri, *stages):
        found = {entry.base_name.removesuffix(".lock"): entry for entry in _entries(folder, False)}
        for name in filter(_SCRATCH_NAME.fullmatch, sorted(found)):
            uri = storage.join(folder, name)
            if storage.is_abandoned(uri):  # of some nothing is left but the lock, or a folder
                size = measure(uri) or (0, _sum_of([found[name]])[1])
                leftovers.append(Held(name, uri, *size))
    return Holdings(
        runs=runs,
        snapshots=tuple(snapshots),
        alerts=tuple(
            Held(name, storage.join(outbox_uri, f"{name}.json"), *_sum_of(entries))
            for name, entries in sorted(alerts.items())
        ),
        leftovers=tuple(leftovers),
    )


def find_runs(workspace_uri: str) -> tuple[FoundRun, ...]:
    """Return every folder below `runs`; a name that begins with a full stop is that of no run."""
    folder = storage.join(workspace_uri, "runs")
    names = [name for name in _folder_names(folder) if not name.startswith(".")]
    found = (_find_run(storage.join(folder, name)) for name in names)
    return tuple(run for run in found if run is not None)


def _find_run(uri: str) -> FoundRun | None:
    """Return a run folder with what it names; None where nothing is left but locks.

    What manifests name is read whatever version of the code wrote them. Whether a stage is at work
    is asked before: of one that ends meanwhile either its mark or its manifest is seen.
    """
    since = datetime.now(UTC) - MAY_WORK_FOR
    marks = (e for e in _entries(uri) if e.base_name.startswith("working-") and e.mtime > since)
    busy = {e.path.rpartition("/")[0].rpartition("/")[2] for e in marks}
    artifacts: dict[str, Any] = {}
    problem = ""
    for stage in STAGES:
        try:
            artifacts[stage] = storage.read_model(manifest_uri(uri, stage), StageRecord).artifact
        except FileNotFoundError:
            continue
        except DataContractError as error:
            problem = problem or f"what it needs is not known: {error}"
    size = measure(uri)
    if size is None:
        return None
    name, resolved = name_in(uri), artifacts.get("resolve_run", {})
    anchor = artifacts.get("train_anchor") or {}
    trained = [artifacts.get("train_challenger"), anchor.get("trained")]
    versions = [((each or {}).get("model") or {}).get("version", "") for each in trained]
    snapshots = [artifacts.get("build_snapshot"), anchor.get("snapshot")]
    uris = [(each or {}).get("uri") for each in snapshots]
    work = {stage: storage.join(uri, stage, "training") for stage in SIDES if stage in artifacts}
    return FoundRun(
        *(name, uri, *size),
        at_work=tuple(each for each in STAGES if each in busy),
        registered_model=str(resolved.get("registered_model", "")),
        versions=frozenset(str(version) for version in versions if version),
        snapshots=frozenset(
            name_in(each) for each in (*uris, resolved.get("last_accepted_snapshot_uri")) if each
        ),
        trainings=tuple(  # of a stage that has not ended, a retry goes on there
            Held(f"{name}/{stage}", folder, *found)
            for stage, folder in work.items()
            if (found := measure(folder))
        ),
        problem=problem,
        foreign=tuple(
            each
            for each in storage.list_names(uri)
            if each not in STAGES and not each.endswith(".lock")
        ),
    )


def measure(uri: str) -> tuple[int, datetime] | None:
    """Return the bytes in a folder and when its newest file was written; None for no files."""
    entries = [e for e in _entries(uri) if e.is_file and not e.base_name.endswith(".lock")]
    return _sum_of(entries) if entries else None


def _sum_of(entries: list[fs.FileInfo]) -> tuple[int, datetime]:
    newest = max(entry.mtime_ns for entry in entries) / 1e9
    return sum(entry.size for entry in entries), datetime.fromtimestamp(newest, UTC)


def _folder_names(uri: str) -> list[str]:
    entries = _entries(uri, is_recursive=False)
    names = sorted(e.base_name for e in entries if e.type == fs.FileType.Directory)
    if not storage.is_local(uri):
        return names
    return [name for name in names if not (storage.local_path(uri) / name).is_symlink()]


def _entries(uri: str, is_recursive: bool = True) -> list[fs.FileInfo]:
    filesystem, path = storage.open_filesystem(uri)
    with storage.translated_errors(uri, "listing"):
        selector = fs.FileSelector(path, allow_not_found=True, recursive=is_recursive)
        return list(filesystem.get_file_info(selector))
