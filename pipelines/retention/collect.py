"""The door of this room: plan a deletion for one deployment, and carry it out.

Each thing goes in two steps. The first one, which takes its manifest, is made while nobody can move
the champion, and only if the record is what the plan was made from. What a kill leaves between the
steps, the next deletion finds and ends. Not for what may go (`plan`), nor for printing
(`pipelines.cli.look`).
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines import deletion, storage
from pipelines.contracts.errors import RunInProgressError
from pipelines.contracts.run_layout import manifest_uri, snapshot_manifest_uri
from pipelines.registry.history import promotion_lock
from pipelines.retention import models
from pipelines.retention.inventory import (
    find_runs,
    measure,
    read_record,
    read_state,
    take_inventory,
)
from pipelines.retention.plan import FoundVersion, Item, Record, make_plan, why_snapshot_stays
from pipelines.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Place:
    """Where a plan is carried out, and the record that it was made from."""

    client: "MlflowClient"
    workspace_uri: str
    registered_model: str
    record: Record


def plan_deletion(
    client: "MlflowClient", settings: Settings, now: datetime
) -> tuple[Place, tuple[Item, ...]]:
    """Return what may go now; nothing is written.

    The record is read first: what is decided by it is looked at afterwards, and again when the
    plan is carried out.

    Raises:
        TrackingUnavailableError: MLflow does not answer.
        RecordDisagreesError: the registry's alias is not where the history says.
        DataContractError: some of the record is damaged.
    """
    workspace_uri, name = storage.to_uri(settings.workspace_location), settings.registered_model
    place = Place(client, workspace_uri, name, read_record(client, workspace_uri, name))
    before = now - timedelta(days=settings.keep_days)
    found = take_inventory(workspace_uri)
    found = dataclasses.replace(found, versions=models.find_versions(client, name, before))
    return place, make_plan(found, place.record, settings, now)


def delete(place: Place, plan: Sequence[Item]) -> Iterator[tuple[Item, str]]:
    """Delete what may go, and give each thing with '' or with why it was kept after all.

    Raises:
        RunInProgressError: another deletion is at work in this workspace, or the champion or the
            accepted recipe has moved since the plan was made.
        HomefeedError: MLflow or the storage failed; what was given so far is gone.
    """
    gate = storage.join(place.workspace_uri, "gc")
    with storage.exclusive_lock(gate, f"a deletion in {place.workspace_uri}"):
        for item in plan:
            if not item.kept:
                is_model = item.kind == "model"
                yield item, (_delete_model if is_model else _delete_files)(place, item)


def _delete_files(place: Place, item: Item) -> str:
    """Delete one thing, unless it is needed by now.

    Its first file goes first, without which nobody takes it for a whole, and is put back if an
    attempt has begun that may need it: an attempt says that it works, and looks for what it needs
    afterwards. So it is seen here, or finds nothing.
    """
    uri, first = item.held.uri, ""
    if item.kind == "run":
        first = manifest_uri(uri, "resolve_run")
    elif item.kind == "checkpoints":
        first = storage.join(uri, "result.json")
    elif item.kind == "snapshot":
        first = snapshot_manifest_uri(uri)
    elif item.kind == "alert":  # a text without its receipt is no alert
        first = f"{uri.removesuffix('json')}txt"
        deletion.remove(uri)
    if item.kind in ("run", "checkpoints", "snapshot"):
        with _while_nothing_moves(place):
            content = storage.read_bytes(first) if storage.exists(first) else None
            deletion.remove(first)
            if why := _why_kept_by_now(place, item):
                if content is not None:
                    storage.write_bytes(first, content)
                return why
    for each in (first, uri, f"{uri}.lock") if first else (uri, f"{uri}.lock"):
        deletion.remove(each)
    return ""


def _why_kept_by_now(place: Place, item: Item) -> str:
    """Return what has happened to a folder since the plan was made, so that it stays; or ''."""
    runs = find_runs(place.workspace_uri)
    if item.kind == "snapshot":
        return why_snapshot_stays(item.held.name, runs, place.record, {})
    run_name, _, stage = item.held.name.partition("/")
    busy = next((run.at_work for run in runs if run.name == run_name), ())
    if stage in busy or (busy and not stage):
        return f"somebody works there: {', '.join(busy)}"
    found = measure(item.held.uri)
    is_same = found is None or found[1] <= item.held.changed_at
    return "" if is_same else "something was written there since the plan was made"


def _delete_model(place: Place, item: Item) -> str:
    assert isinstance(item.held, FoundVersion)
    with _while_nothing_moves(place):
        if why := models.why_kept_by_now(place.client, place.registered_model, item.held):
            return why
        models.mark_deleted(place.client, item.held)
    return ""


@contextlib.contextmanager
def _while_nothing_moves(place: Place) -> Iterator[None]:
    """Let nobody move the champion or the accepted recipe during the block.

    Raises:
        RunInProgressError: one of them has moved since the plan was made.
    """
    with promotion_lock(place.workspace_uri):
        state = read_state(place.client, place.workspace_uri, place.registered_model)
        if state != place.record.state:
            raise RunInProgressError(
                f"the champion of {place.registered_model} or its accepted recipe was changed "
                f"since the plan of this deletion was made; expected both to rest; nothing more "
                f"is deleted; plan anew: `homefeed gc`"
            )
        yield
