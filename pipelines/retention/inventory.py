"""Lists what lies in a workspace and in MLflow's registry, and what is on record of the champion.

Only reads. What has not the form that this project writes is not listed, so it is never deleted.
Models are found by their registered versions. Not for what may go (`plan`).
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyarrow import fs

from pipelines import storage
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.contracts.run_layout import StageRecord, manifest_uri, snapshot_manifest_uri
from pipelines.contracts.stage_table import SIDES
from pipelines.registry import accepted_code, evidence, history, reconcile, registry
from pipelines.registry.evidence import newest_mark
from pipelines.registry.history import name_of
from pipelines.retention.plan import FoundCode, FoundRun, FoundVersion, Held, Kind, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SNAPSHOT_NAME = re.compile(r"[0-9a-f]{16}")
_CODES: dict[str, tuple[Kind, re.Pattern[str]]] = {
    "environments": ("environment", re.compile(r"[0-9a-f]{16}")),
    "accepted_code": ("code", re.compile(r"[0-9a-f]{64}")),
}
"""Folders of the workspace with the kind and the names of what lies in them."""
_ALERT_NAME = re.compile(r"(.+\.[a-z_]+\.[0-9a-f]{8})\.(?:json|txt)")
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
    last = state.history.in_time.last
    since = (last.number, last.moved_at) if last else (0, None)
    cycles = evidence.read(evidence.pin(workspace_uri, name, but=""))
    folder = storage.join(workspace_uri, "accepted_snapshots")
    recipes = storage.list_names(folder)
    marks = [mark for each in recipes if (mark := newest_mark(storage.join(folder, each)))]
    names = _folder_names(storage.join(workspace_uri, "history"))
    others = [history.load(workspace_uri, each, is_upgrade=True) for each in names if each != name]
    recipes_of = [e.recipes.accepted for o in others for e in o.entries if e.recipes.accepted]
    recipes_of += [move.recipe for other in others for move in other.moves if move.recipe]
    return Record(
        state=state,
        judged_runs=frozenset(each.run_id for each in cycles if each.is_after(*since)),
        references={name_of(mark.snapshot_uri): mark.recipe for mark in marks},
        others_codes=frozenset(each.code_digest for each in recipes_of),
    )


def take_inventory(workspace_uri: str) -> list[Held]:
    """Return all that lies in a workspace and may be deleted one day."""
    snapshots_uri, outbox_uri = (
        storage.join(workspace_uri, name) for name in ("snapshots", "outbox")
    )
    found: list[Held] = [*find_runs(workspace_uri)]
    for name in filter(_SNAPSHOT_NAME.fullmatch, _folder_names(snapshots_uri)):
        uri = storage.join(snapshots_uri, name)
        if size := measure(uri):
            found.append(Held("snapshot", name, uri, *size, snapshot_manifest_uri(uri)))
    alerts: dict[str, list[fs.FileInfo]] = {}
    for entry in storage.list_entries(outbox_uri):
        if entry.is_file and (match := _ALERT_NAME.fullmatch(entry.base_name)):
            alerts.setdefault(match[1], []).append(entry)
    for name, entries in sorted(alerts.items()):
        text_uri, receipt_uri = (storage.join(outbox_uri, f"{name}.{e}") for e in ("txt", "json"))
        found.append(Held("alert", name, text_uri, *_sum_of(entries), receipt_uri))
    return found + list(find_codes(workspace_uri))


def find_codes(workspace_uri: str) -> Iterator[FoundCode]:
    """Give environments and codes that have pins; who takes these away takes the rest, too."""
    for folder, (kind, names) in _CODES.items():
        place = storage.join(workspace_uri, folder)
        for name in filter(names.fullmatch, _folder_names(place)):
            uri = storage.join(place, name)
            pins = storage.join(uri, accepted_code.PINS)
            if storage.exists(pins) and (size := measure(uri)):
                text = storage.read_bytes(pins).decode()
                yield FoundCode(*(kind, name, uri, *size, pins), pins=text)


def find_runs(workspace_uri: str) -> list[FoundRun]:
    """Return every folder below `runs`; a name that begins with a full stop is that of no run.

    What manifests name is read whatever version of the code wrote them. Whether a stage is at work
    is asked before: of one that ends meanwhile either its mark or its manifest is seen.
    """
    folder, found = storage.join(workspace_uri, "runs"), []
    since = datetime.now(UTC) - MAY_WORK_FOR
    for name in _folder_names(folder):
        uri = storage.join(folder, name)
        busy = {
            e.path.split("/")[-2]
            for e in storage.list_entries(uri, is_recursive=True)
            if e.base_name.startswith("working-") and e.mtime > since
        }
        artifacts: dict[str, Any] = {}
        problem = ""
        for stage in STAGES:
            try:
                if record := storage.find_model(manifest_uri(uri, stage), StageRecord):
                    artifacts[stage] = record.artifact
            except DataContractError as error:
                problem = problem or f"what it needs is not known: {error}"
        size = measure(uri)
        if size is None or name.startswith("."):
            continue  # nothing is left but locks
        resolved, anchor = (artifacts.get(each, {}) for each in ("resolve_run", "train_anchor"))
        standing = resolved.get("standing", {})
        snapshots = (artifacts.get("build_snapshot"), anchor.get("snapshot"))
        named = [(each or {}).get("uri") for each in snapshots]
        named.append(resolved.get("last_accepted_snapshot_uri"))
        trainings = []
        for stage in artifacts.keys() & SIDES:  # of one that has not ended, a retry goes on there
            place = storage.join(uri, stage, "training")
            if of_stage := measure(place):
                result = storage.join(place, "result.json")
                trainings.append(Held("checkpoints", f"{name}/{stage}", place, *of_stage, result))
        names = storage.list_names(uri)
        found.append(
            FoundRun(
                *("run", name, uri, *size, manifest_uri(uri, "resolve_run")),
                at_work=tuple(each for each in STAGES if each in busy),
                registered_model=str(resolved.get("registered_model", "")),
                snapshots=frozenset(name_of(each) for each in named if each),
                codes=frozenset((resolved.get("code_digest"), standing.get("anchor_code_digest")))
                - {None, ""},
                trainings=tuple(trainings),
                problem=problem,
                foreign=tuple(n for n in names if n not in STAGES and not n.endswith(".lock")),
            )
        )
    return found


def find_versions(client: "MlflowClient", name: str) -> list[FoundVersion]:
    """Return all versions of a registered model, the oldest first, of no size.

    Raises:
        TrackingUnavailableError: the server does not answer.
    """
    found: list[FoundVersion] = []
    with translated_outages(client.tracking_uri):
        groups = by_logged_model(client)
        ours = [(id_, e, same) for id_, same in groups.items() for e in same if e.name == name]
        aliases = dict(client.get_registered_model(name).aliases) if ours else {}
        for model_id, version, same in sorted(ours, key=lambda each: int(each[1].version)):
            number = str(version.version)
            made_at = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
            is_there = model_id and registry.find_location(client, model_id)
            found.append(
                FoundVersion(
                    *("model", number, f"models:/{name}/{number}", 0, made_at),
                    model_id=model_id if is_there else "",
                    run_name=version.tags.get("homefeed_run_id", ""),
                    aliases=tuple(sorted(a for a, at in aliases.items() if str(at) == number)),
                    shared_by=tuple(
                        f"{e.name} v{e.version}" for e in same if model_id and e is not version
                    ),
                )
            )
    return found


def by_logged_model(client: "MlflowClient") -> dict[str, list[Any]]:
    """Return the versions of every registered model by the id of the logged model that they are.

    Those whose files are others, such as artifacts of an MLflow run, are under ''.
    """
    page = client.search_model_versions()
    versions: list[Any] = list(page)
    while page.token:
        page = client.search_model_versions(page_token=page.token)
        versions += page
    groups: dict[str, list[Any]] = {}
    for each in sorted(versions, key=lambda each: (each.name, int(each.version))):
        groups.setdefault(registry.find_logged_model(client, each), []).append(each)
    return groups


def measure(uri: str) -> tuple[int, datetime] | None:
    """Return the bytes in a folder and when its newest file was written; None for no files."""
    entries = [
        e
        for e in storage.list_entries(uri, is_recursive=True)
        if e.is_file and not e.base_name.endswith(".lock")
    ]
    return _sum_of(entries) if entries else None


def _sum_of(entries: list[fs.FileInfo]) -> tuple[int, datetime]:
    newest = max(entry.mtime_ns for entry in entries) / 1e9
    return sum(entry.size for entry in entries), datetime.fromtimestamp(newest, UTC)


def _folder_names(uri: str) -> list[str]:
    found = (e for e in storage.list_entries(uri) if e.type == fs.FileType.Directory)
    is_disk = storage.is_local(uri)
    return sorted(e.base_name for e in found if not (is_disk and Path(e.path).is_symlink()))
