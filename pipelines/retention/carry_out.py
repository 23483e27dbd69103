"""Carries a plan out: looks again at each thing, under the leases of those who could need it.

A thing is deleted in two steps. The first one is a single act after which nobody takes what is left
for a whole: on a local disk the folder is renamed into a scratch folder, on an object store its
manifest goes first, `resolve_run`'s before the others. It is made while nobody can move the
champion, and only if the record is what the plan was made from. The second step frees the space. A
kill between them leaves a scratch folder or a folder without a manifest, which the next deletion
finds and ends. Not for what may go (`plan`).
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.errors import RunInProgressError
from pipelines.contracts.run_layout import manifest_uri, snapshot_manifest_uri, stage_lease_uri
from pipelines.places.conditional import Revision
from pipelines.registry.history import promotion_lock
from pipelines.retention import inventory, models
from pipelines.retention.holdings import FoundVersion, Record
from pipelines.retention.plan import Item, Plan, why_snapshot_stays
from pipelines.retention.record import read_state

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a plan is carried out, and the record that it was made from."""

    client: "MlflowClient"
    workspace_uri: str
    registered_model: str
    record: Record
    dead: dict[str, Revision] = field(default_factory=dict)
    """Leases of dead holders that were found so far (`storage.find_held`)."""


def carry_out(place: Place, plan: Plan) -> Iterator[tuple[Item, str]]:
    """Delete what may go, and give each thing with '' or with why it was kept after all.

    Raises:
        RunInProgressError: the champion or the accepted recipe has moved since the plan was made.
        HomefeedError: MLflow or the storage failed; what was given so far is gone.
    """
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
    uri = item.held.uri
    with _leases(*(stage_lease_uri(uri, stage) for stage in STAGES)):
        found = inventory.measure(uri)
        if found is not None and found[1] != item.held.changed_at:
            return "something was written there since the plan was made"
        manifests = [manifest_uri(uri, stage) for stage in STAGES]
        _delete(place, uri, manifests)
    return ""


def _delete_checkpoints(place: Place, item: Item) -> str:
    stage_uri = item.held.uri.rpartition("/")[0]
    with _leases(f"{stage_uri}/stage"):
        found = inventory.measure(item.held.uri)
        if found is not None and found[1] != item.held.changed_at:
            return "something was written there since the plan was made"
        _delete(place, item.held.uri, [storage.join(item.held.uri, "result.json")])
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
        _delete(place, uri, [snapshot_manifest_uri(uri)])
        _remove_lock(uri)
    return ""


def _delete_alert(place: Place, item: Item) -> str:
    """Delete the receipt first: a text without one is no alert, and the next deletion takes it."""
    uri = item.held.uri
    with _leases(uri), storage.translated_errors(uri, "deleting"):
        storage.remove(uri)
        storage.remove(f"{uri.removesuffix('json')}txt")
        _remove_lock(uri)
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


def _remove_lock(uri: str) -> None:
    """Remove the lock file of a place that is gone; the caller holds it.

    Who waits for it on a local disk sees that it has no name any more, and opens a new one.
    """
    if storage.is_local(uri):
        storage.remove(f"{uri}.lock")


def _delete(place: Place, uri: str, manifests: list[str]) -> None:
    """Delete a folder whose leases are held, so that no part of it is ever taken for the whole."""
    if storage.is_local(uri):
        _delete_local(place, storage.local_path(uri))
        return
    with _while_nothing_moves(place):
        for manifest in manifests:
            storage.remove(manifest)
    _remove_all_but_leases(uri)


def _delete_local(place: Place, folder: Path) -> None:
    with storage.scratch_folder(folder.parent.as_uri()) as scratch:
        with (
            _while_nothing_moves(place),
            storage.translated_errors(folder.as_uri(), "deleting"),
            contextlib.suppress(FileNotFoundError),
        ):
            folder.rename(scratch / folder.name)
            # The leases stay held until the files are gone: then who waits for one of their lock
            # files sees that it has no name any more, and opens a new one.


def _remove_all_but_leases(uri: str) -> None:
    """Remove a folder on an object store.

    Lease files stay: one that is deleted is lost to its holder, and its numbers begin anew.
    """
    for name in storage.list_names(uri):
        entry = storage.join(uri, name)
        if inventory.is_lock(name):
            continue
        if name in STAGES:
            _remove_all_but_leases(entry)
        else:
            storage.remove(entry)


_ACTS: dict[str, Callable[[Place, Item], str]] = {
    "leftover": _sweep,
    "model": _delete_model,
    "run": _delete_run,
    "checkpoints": _delete_checkpoints,
    "snapshot": _delete_snapshot,
    "alert": _delete_alert,
}
