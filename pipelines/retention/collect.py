"""The door of this room: plan a deletion for one deployment, and carry it out.

Each thing goes in two steps. The first one, which takes its manifest, is made while nobody can move
the champion, and only if the record is what the plan was made from. What a kill leaves between the
steps, the next deletion finds and ends. Not for what may go (`plan`), nor for printing
(`pipelines.cli.look`).
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines import deletion, storage
from pipelines.contracts.errors import RunInProgressError
from pipelines.registry.history import promotion_lock
from pipelines.retention import models
from pipelines.retention.inventory import (
    find_runs,
    measure,
    read_record,
    read_state,
    take_inventory,
)
from pipelines.retention.plan import (
    FoundVersion,
    Held,
    Item,
    Record,
    make_plan,
    why_snapshot_stays,
)
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
    found = [*take_inventory(workspace_uri), *models.find_versions(client, name, before)]
    return place, make_plan(found, place.record, settings, now)


def delete(place: Place, plan: Sequence[Item]) -> Iterator[tuple[Item, str]]:
    """Delete what may go, and give each thing with '' or with why it was kept after all.

    The first file of a thing goes first, and is put back if an attempt has begun that may need it:
    an attempt says that it works, and looks for what it needs afterwards. So it is seen here, or
    finds nothing.

    Raises:
        RunInProgressError: another deletion is at work in this workspace, or the champion or the
            accepted recipe has moved since the plan was made.
        HomefeedError: MLflow or the storage failed; what was given so far is gone.
    """
    gate = storage.join(place.workspace_uri, "gc")
    with storage.exclusive_lock(gate, f"a deletion in {place.workspace_uri}"):
        for item in (each for each in plan if not each.kept):
            held, why = item.held, ""
            if isinstance(held, FoundVersion):
                with _while_nothing_moves(place):
                    why = models.why_kept_by_now(place.client, place.registered_model, held)
                    if not why:
                        models.mark_deleted(place.client, held)
            elif held.kind in ("run", "checkpoints", "snapshot"):
                with _while_nothing_moves(place):
                    is_there = storage.exists(held.first)
                    content = storage.read_bytes(held.first) if is_there else None
                    deletion.remove(held.first)
                    why = "it is not known who needs it"
                    try:
                        why = _why_kept_by_now(place, held)
                    finally:
                        if why and content is not None:
                            storage.write_bytes(held.first, content)
            if not why and not isinstance(held, FoundVersion):
                for uri in filter(None, (held.first, held.uri)):
                    deletion.remove(uri)
                    deletion.remove(f"{uri}.lock")
            yield item, why


def _why_kept_by_now(place: Place, held: Held) -> str:
    """Return what has happened to a folder since the plan was made, so that it stays; or ''."""
    runs = find_runs(place.workspace_uri)
    if held.kind == "snapshot":
        return why_snapshot_stays(held.name, runs, place.record)
    run_name, _, stage = held.name.partition("/")
    busy = next((run.at_work for run in runs if run.name == run_name), ())
    if stage in busy or (busy and not stage):
        return f"somebody works there: {', '.join(busy)}"
    found = measure(held.uri)
    is_same = found is None or found[1] <= held.changed_at
    return "" if is_same else "something was written there since the plan was made"


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
