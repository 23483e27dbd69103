"""The door of this room: plan a deletion for one deployment, and carry it out.

Each thing is looked at again under the leases of those who could need it, and goes in two steps
(`pipelines.deletion`). The first one is made while nobody can move the champion, and only if the
record is what the plan was made from: `resolve_run`'s manifest goes before the others. What a kill
leaves between the steps, the next deletion finds and ends. Not for what may go (`plan`), nor for
printing (`pipelines.cli.gc`).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines import deletion, storage
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.errors import RunInProgressError
from pipelines.contracts.run_layout import manifest_uri, snapshot_manifest_uri, stage_lease_uri
from pipelines.places.conditional import Revision
from pipelines.registry.history import promotion_lock
from pipelines.retention import inventory, models
from pipelines.retention.plan import FoundVersion, Item, Plan, Record, make_plan, why_snapshot_stays
from pipelines.retention.record import read_record, read_state
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
    dead: dict[str, Revision] = field(default_factory=dict)
    """Leases of dead holders that were found so far (`storage.find_held`)."""


def plan_deletion(client: "MlflowClient", settings: Settings, now: datetime) -> tuple[Place, Plan]:
    """Return what may go now; nothing is written.

    The record is read first: what is decided by it is looked at afterwards, and again when the
    plan is carried out.

    Raises:
        TrackingUnavailableError: MLflow does not answer.
        RecordDisagreesError: the registry's alias is not where the history says.
        DataContractError: some of the record is damaged.
    """
    workspace_uri = storage.to_uri(settings.workspace_location)
    name = settings.registered_model
    record = read_record(client, workspace_uri, name)
    place = Place(client, workspace_uri, name, record)
    before = now - timedelta(days=settings.keep_days)
    found = dataclasses.replace(
        inventory.take_inventory(workspace_uri, place.dead),
        versions=models.find_versions(client, name, before),
    )
    return place, make_plan(found, record, settings, now)


def delete(place: Place, plan: Plan) -> Iterator[tuple[Item, str]]:
    """Delete what may go, and give each thing with '' or with why it was kept after all.

    Raises:
        RunInProgressError: another deletion is at work in this workspace, or the champion or the
            accepted recipe has moved since the plan was made.
        HomefeedError: MLflow or the storage failed; what was given so far is gone.
    """
    gate = storage.join(place.workspace_uri, "gc")
    with storage.exclusive_lock(gate, f"a deletion in {place.workspace_uri}"):
        for item in plan.going:
            try:
                yield item, _ACTS[item.kind](place, item)
            except _HeldByOthers as error:
                yield item, str(error)


class _HeldByOthers(Exception):
    """Somebody works at the place."""


@contextlib.contextmanager
def _leases(*uris: str) -> Iterator[None]:
    """Hold the leases of places, all of them or none; nobody is waited for."""
    with contextlib.ExitStack() as held:
        for uri in uris:
            try:
                held.enter_context(storage.exclusive_lock(uri, "a deletion"))
            except RunInProgressError as error:
                raise _HeldByOthers(f"somebody works there: {error}") from None
        yield


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


def _delete_run(place: Place, item: Item) -> str:
    manifests = [manifest_uri(item.held.uri, stage) for stage in STAGES]
    leases = [stage_lease_uri(item.held.uri, stage) for stage in STAGES]
    return _delete_unchanged(place, item, leases, manifests)


def _delete_checkpoints(place: Place, item: Item) -> str:
    result = storage.join(item.held.uri, "result.json")
    lease = f"{item.held.uri.rpartition('/')[0]}/stage"
    return _delete_unchanged(place, item, [lease], [result])


def _delete_unchanged(place: Place, item: Item, leases: list[str], manifests: list[str]) -> str:
    with _leases(*leases):
        found = inventory.measure(item.held.uri)
        if found is not None and found[1] != item.held.changed_at:
            return "something was written there since the plan was made"
        deletion.remove_whole(item.held.uri, manifests, _while_nothing_moves(place), STAGES)
    return ""


def _delete_snapshot(place: Place, item: Item) -> str:
    """Delete a snapshot, if no run that is there by now names it or may be about to.

    Whoever publishes it waits for the lease. Whoever found it published before that still holds
    the lease of a stage, or has named it.
    """
    uri = item.held.uri
    with _leases(uri):
        runs = inventory.find_runs(place.workspace_uri, place.dead)
        if why := why_snapshot_stays(item.held.name, runs, place.record):
            return why
        manifests = [snapshot_manifest_uri(uri)]
        deletion.remove_whole(uri, manifests, _while_nothing_moves(place))
        deletion.remove_lock(uri)
    return ""


def _delete_alert(place: Place, item: Item) -> str:
    """Delete the receipt first: a text without one is no alert, and the next deletion takes it."""
    uri = item.held.uri
    with _leases(uri), storage.translated_errors(uri, "deleting"):
        deletion.remove(uri)
        deletion.remove(f"{uri.removesuffix('json')}txt")
        deletion.remove_lock(uri)
    return ""


def _delete_model(place: Place, item: Item) -> str:
    assert isinstance(item.held, FoundVersion)
    with _while_nothing_moves(place):
        if why := models.why_kept_by_now(place.client, place.registered_model, item.held):
            return why
        models.mark_deleted(place.client, item.held)
    return ""


def _sweep(place: Place, item: Item) -> str:
    """Remove what killed processes have left beside something, as any next one there would."""
    with storage.scratch_folder(item.held.uri.rpartition("/")[0]):
        return ""


_ACTS: dict[str, Callable[[Place, Item], str]] = {
    "leftover": _sweep,
    "model": _delete_model,
    "run": _delete_run,
    "checkpoints": _delete_checkpoints,
    "snapshot": _delete_snapshot,
    "alert": _delete_alert,
}
