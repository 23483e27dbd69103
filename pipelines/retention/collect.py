"""The door of this room: plan a deletion for one deployment, and carry it out.

Each thing goes in two steps. The first one, which takes its manifest, is made while nobody can move
the champion, and only if the record is what the plan was made from. What a kill leaves between the
steps, the next deletion finds and ends. Of MLflow the files of *logged models* go, by its own call,
which only marks them as deleted, for good: `mlflow gc`, run by whoever keeps the server, frees the
space. Versions, their tags and aliases, and MLflow runs with parameters, metrics and pages stay, as
does a logged model that several versions are. Not for what may go (`plan`).
"""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines import deletion, storage
from pipelines.contracts.errors import RunInProgressError
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.registry.history import promotion_lock
from pipelines.retention.inventory import (
    by_logged_model,
    find_codes,
    find_runs,
    find_versions,
    measure,
    read_record,
    read_state,
    take_inventory,
)
from pipelines.retention.plan import (
    FoundCode,
    FoundVersion,
    Held,
    Plan,
    Record,
    make_plan,
    why_code_stays,
    why_snapshot_stays,
)
from pipelines.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


def plan_deletion(client: "MlflowClient", settings: Settings, now: datetime) -> tuple[Record, Plan]:
    """Return what may go now, with the record by which that is so; nothing is written.

    The record is read first: what is decided by it is looked at afterwards, and again when the
    plan is carried out.

    Raises:
        TrackingUnavailableError: MLflow does not answer.
        RecordDisagreesError: the registry's alias is not where the history says.
        DataContractError: some of the record is damaged.
    """
    workspace_uri, name = settings.workspace_uri, settings.registered_model
    record = read_record(client, workspace_uri, name)
    found = [*take_inventory(workspace_uri), *find_versions(client, name)]
    return record, make_plan(found, record, settings, now)


def delete(client: "MlflowClient", record: Record, plan: Plan) -> Iterator[tuple[Held, str]]:
    """Delete what may go, and give each thing with '' or with why it was kept after all.

    The first file of a thing goes first, and is put back if an attempt has begun that may need it:
    an attempt says that it works, and looks for what it needs afterwards. So it is seen here, or
    finds nothing.

    Raises:
        RunInProgressError: another deletion is at work in this workspace, or the champion or the
            accepted recipe has moved since the plan was made.
        HomefeedError: MLflow or the storage failed; what was given so far is gone.
    """
    workspace_uri, name = record.state.history.workspace_uri, record.state.history.name
    gate = storage.join(workspace_uri, "gc")
    with storage.exclusive_lock(gate, f"a deletion in {workspace_uri}"):
        for held in (held for held, kept in plan if not kept):
            with promotion_lock(workspace_uri):
                if read_state(client, workspace_uri, name) != record.state:
                    raise RunInProgressError(
                        f"the champion of {name} or its accepted recipe was changed since the plan "
                        f"of this deletion was made; expected both to rest; nothing more is "
                        f"deleted; plan anew: `homefeed gc`"
                    )
                if isinstance(held, FoundVersion):
                    why = why_model_stays(client, name, held)
                    so_far = f"whether logged model {held.model_id} is marked as deleted is unknown"
                    if not why:
                        with translated_outages(client.tracking_uri, so_far):
                            client.delete_logged_model(held.model_id)
                else:
                    is_there = storage.exists(held.first)
                    content = storage.read_bytes(held.first) if is_there else None
                    deletion.remove(held.first)
                    why = "it is not known who needs it"
                    try:
                        why = _why_kept_by_now(workspace_uri, record, held)
                    finally:
                        if why and content is not None:
                            storage.write_bytes(held.first, content)
                    if held.kind == "code" and not why:
                        deletion.remove(held.uri)  # Who accepts it next finds nothing of it.
            if not why and not isinstance(held, FoundVersion):
                for uri in (held.first, held.uri):
                    deletion.remove(uri)
                    deletion.remove(f"{uri}.lock")
            yield held, why


def why_model_stays(client: "MlflowClient", name: str, version: FoundVersion) -> str:
    """Return what has happened to a version's logged model since it was found alone; or ''."""
    with translated_outages(client.tracking_uri):
        same = by_logged_model(client).get(version.model_id, [])
        told = [f"{each.name} v{each.version}" for each in same]
        if told != [f"{name} v{version.name}"]:
            return f"it is registered as {', '.join(told) or 'nothing'} since the plan was made"
        numbers = dict(client.get_registered_model(name).aliases).values()
    is_named = version.name in map(str, numbers)
    return "an alias was given to it since the plan was made" if is_named else ""


def _why_kept_by_now(workspace_uri: str, record: Record, held: Held) -> str:
    """Return what has happened to a folder since the plan was made, so that it stays; or ''."""
    if held.kind == "alert":
        return ""
    runs = find_runs(workspace_uri)
    if held.kind == "snapshot":
        return why_snapshot_stays(held.name, runs, record)
    if isinstance(held, FoundCode):
        same = [each for each in find_codes(workspace_uri) if each.pins == held.pins]
        names = [held.name] if held.kind == "code" else [each.name for each in same]
        return next(filter(None, (why_code_stays(name, runs) for name in names)), "")
    run_name, _, stage = held.name.partition("/")
    busy = next((run.at_work for run in runs if run.name == run_name), ())
    if stage in busy or (busy and not stage):
        return f"somebody works there: {', '.join(busy)}"
    found = measure(held.uri)
    is_same = found is None or found[1] <= held.changed_at
    return "" if is_same else "something was written there since the plan was made"
