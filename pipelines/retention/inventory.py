"""Lists what lies in a workspace, with sizes and ages. Only reads, and takes no lease.

What has not the form that this project writes is not listed, so it is never deleted. Not for the
registry (`models`), nor for what may go (`plan`).
"""

import re
from collections.abc import Iterator, Mapping, Set
from datetime import UTC, datetime
from typing import Any

from pyarrow import fs

from pipelines import storage
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.run_layout import StageRecord, manifest_uri, stage_lease_uri
from pipelines.contracts.stage_table import SIDES
from pipelines.deletion import LOCKS
from pipelines.places.conditional import Revision
from pipelines.retention.plan import FoundRun, Held, Holdings, name_in

_SNAPSHOT_NAME = re.compile(r"[0-9a-f]{16}")
_ALERT_NAME = re.compile(r"(.+\.[a-z_]+\.[0-9a-f]{8})\.(?:json|txt)")
_SCRATCH_NAME = re.compile(r"\.scratch-[0-9a-f]{32}")


def take_inventory(workspace_uri: str, dead: dict[str, Revision]) -> Holdings:
    """Return all that lies in a workspace and may be deleted one day.

    Args:
        workspace_uri: The workspace.
        dead: As in `find_runs`.
    """
    runs_uri = storage.join(workspace_uri, "runs")
    snapshots_uri = storage.join(workspace_uri, "snapshots")
    runs = find_runs(workspace_uri, dead)
    stages = [storage.join(run.uri, stage) for run in runs for stage in SIDES]
    return Holdings(
        runs=runs,
        snapshots=tuple(_folders(snapshots_uri, _SNAPSHOT_NAME)),
        alerts=tuple(_find_alerts(storage.join(workspace_uri, "outbox"))),
        leftovers=tuple(_leftovers([workspace_uri, snapshots_uri, runs_uri, *stages])),
    )


def find_runs(workspace_uri: str, dead: dict[str, Revision]) -> tuple[FoundRun, ...]:
    """Return every folder below `runs`; a name that begins with a full stop is that of no run.

    Whether a stage is at work is asked before any manifest is read. So of a stage that ends
    meanwhile either the lease or the manifest is seen.

    Args:
        workspace_uri: The workspace.
        dead: Leases of dead holders, kept from look to look (`storage.find_held`): on an object
            store each one is waited for once.
    """
    folder = storage.join(workspace_uri, "runs")
    names = [name for name in _folder_names(folder) if not name.startswith(".")]
    uris = [storage.join(folder, name) for name in names]
    held = storage.find_held([stage_lease_uri(uri, each) for uri in uris for each in STAGES], dead)
    found = (_find_run(uri, held) for uri in uris)
    return tuple(run for run in found if run is not None)


def _find_run(uri: str, held: Set[str]) -> FoundRun | None:
    """Return a run folder with what it names; None where nothing is left but locks."""
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
    return FoundRun(
        *(name_in(uri), uri, *size),
        at_work=tuple(each for each in STAGES if stage_lease_uri(uri, each) in held),
        registered_model=str(artifacts.get("resolve_run", {}).get("registered_model", "")),
        versions=frozenset(filter(None, map(_version_in, _trained(artifacts)))),
        snapshots=frozenset(_snapshots_in(artifacts)),
        trainings=tuple(_find_trainings(uri, artifacts)),
        problem=problem,
        foreign=tuple(
            name
            for name in storage.list_names(uri)
            if name not in STAGES and not name.endswith(LOCKS)
        ),
    )


def _trained(artifacts: Mapping[str, Any]) -> list[Any]:
    """Return what each training stage says of its model, whatever version of the code wrote it."""
    anchor = artifacts.get("train_anchor") or {}
    return [artifacts.get("train_challenger"), anchor.get("trained")]


def _version_in(trained: Any) -> str:
    return str(((trained or {}).get("model") or {}).get("version", ""))


def _snapshots_in(artifacts: Mapping[str, Any]) -> Iterator[str]:
    """Give the names of the snapshots that a run built, trained on or was compared with."""
    anchor = artifacts.get("train_anchor") or {}
    for snapshot in (artifacts.get("build_snapshot"), anchor.get("snapshot")):
        if snapshot and snapshot.get("uri"):
            yield name_in(snapshot["uri"])
    reference = artifacts.get("resolve_run", {}).get("last_accepted_snapshot_uri")
    if reference:
        yield name_in(reference)


def _find_trainings(run_uri: str, artifacts: Mapping[str, Any]) -> Iterator[Held]:
    """Give the work folders whose stage has ended; a retry of the others goes on there."""
    for stage in SIDES:
        uri = storage.join(run_uri, stage, "training")
        if stage in artifacts and (size := measure(uri)):
            yield Held(f"{name_in(run_uri)}/{stage}", uri, *size)


def _find_alerts(outbox_uri: str) -> Iterator[Held]:
    """Give the alerts, each with its receipt and its text."""
    found: dict[str, list[fs.FileInfo]] = {}
    for entry in _entries(outbox_uri, is_recursive=False):
        if entry.type == fs.FileType.File and (match := _ALERT_NAME.fullmatch(entry.base_name)):
            found.setdefault(match[1], []).append(entry)
    for name, entries in sorted(found.items()):
        num_bytes, newest = sum(e.size for e in entries), max(map(_changed_at, entries))
        yield Held(name, storage.join(outbox_uri, f"{name}.json"), num_bytes, newest)


def _leftovers(folder_uris: list[str]) -> Iterator[Held]:
    """Give scratch folders that no living process holds, such as those of a killed deletion."""
    for folder in folder_uris:
        found = {entry.base_name.removesuffix(".lock"): entry for entry in _entries(folder, False)}
        for name in filter(_SCRATCH_NAME.fullmatch, sorted(found)):
            uri = storage.join(folder, name)
            if not storage.is_held(uri):
                # Of some nothing is left but the lock, or an empty folder.
                yield Held(name, uri, *(measure(uri) or (0, _changed_at(found[name]))))


def _folders(parent_uri: str, pattern: re.Pattern[str]) -> Iterator[Held]:
    for name in _folder_names(parent_uri):
        uri = storage.join(parent_uri, name)
        if pattern.fullmatch(name) and (size := measure(uri)):
            yield Held(name, uri, *size)


def _folder_names(uri: str) -> list[str]:
    entries = _entries(uri, is_recursive=False)
    return sorted(e.base_name for e in entries if e.type == fs.FileType.Directory)


def measure(uri: str) -> tuple[int, datetime] | None:
    """Return the bytes in a folder and when its newest file was written; None for no files."""
    entries = [
        e for e in _entries(uri) if e.type == fs.FileType.File and not e.base_name.endswith(LOCKS)
    ]
    if not entries:
        return None
    return sum(entry.size for entry in entries), max(map(_changed_at, entries))


def _entries(uri: str, is_recursive: bool = True) -> list[fs.FileInfo]:
    filesystem, path = storage.open_filesystem(uri)
    with storage.translated_errors(uri, "listing"):
        selector = fs.FileSelector(path, allow_not_found=True, recursive=is_recursive)
        return list(filesystem.get_file_info(selector))


def _changed_at(entry: fs.FileInfo) -> datetime:
    return datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC)
