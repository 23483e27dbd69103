"""The door of this room: plan a deletion for one deployment, and carry it out.

Each thing is looked at again under the leases of those who could need it, and goes in two steps
(`pipelines.deletion`). The first one is made while nobody can move the champion, and only if the
record is what the plan was made from: `resolve_run`'s manifest goes before the others. What a kill
leaves between the steps, the next deletion finds and ends. Not for what may go (`plan`), nor for
printing (`pipelines.cli.look`).
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines import deletion, storage
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.errors import RunInProgressError
from pipelines.contracts.run_layout import manifest_uri, snapshot_manifest_uri, stage_lease_uri
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
                if item.kind == "leftover":  # as any next process there would
                    with storage.scratch_folder(item.held.uri.rpartition("/")[0]):
                        pass
                    yield item, ""
                else:
                    is_model = item.kind == "model"
                    yield item, (_delete_model if is_model else _delete_files)(place, item)


def _delete_files(place: Place, item: Item) -> str:
    """Delete one thing under the leases of those who may need it, all of which are had at once."""
    uri = item.held.uri
    leases = {
        "run": [stage_lease_uri(uri, stage) for stage in STAGES],
        "checkpoints": [f"{uri.rpartition('/')[0]}/stage"],
        "snapshot": [uri],
        "alert": [uri],
    }
    with contextlib.ExitStack() as held:
        for each in leases[item.kind]:
            try:
                held.enter_context(storage.exclusive_lock(each, "a deletion"))
            except RunInProgressError as error:
                return f"somebody works there: {error}"
        if item.kind == "alert":
            # The receipt first: a text without one is no alert, and the next deletion takes it.
            for file in (uri, f"{uri.removesuffix('json')}txt"):
                deletion.remove(file)
        elif item.kind == "snapshot":
            # If no run that is there by now names it or may be about to: whoever publishes it waits
            # for the lease, and whoever found it published before that still holds the lease of a
            # stage, or has named it.
            runs = find_runs(place.workspace_uri)
            if why := why_snapshot_stays(item.held.name, runs, place.record, {}):
                return why
            nothing_moves = _while_nothing_moves(place)
            deletion.remove_whole(uri, [snapshot_manifest_uri(uri)], nothing_moves)
        else:
            found = measure(uri)
            if found is not None and found[1] != item.held.changed_at:
                return "something was written there since the plan was made"
            manifests = [storage.join(uri, "result.json")]
            if item.kind == "run":
                manifests = [manifest_uri(uri, stage) for stage in STAGES]
            deletion.remove_whole(uri, manifests, _while_nothing_moves(place), STAGES)
            return ""
        deletion.remove_lock(uri)
    return ""


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
