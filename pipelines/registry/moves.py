"""Moves of the champion alias that are made once, whatever is killed or lost on the way.

    intent on record -> the alias is moved -> the alias is read back -> outcome on record

A process that is killed in between, or whose answer from the registry is lost, leaves a pending
intent. Whoever moves the champion next first finds out by reading what became of it. The one who
began it carries it on; nobody begins it anew. Callers hold `history.promotion_lock`. Not for
whether something may be moved (`pipelines.registry.promotion`).
"""

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.contracts.errors import (
    HomefeedError,
    PromotionRefusedError,
    RecordDisagreesError,
    RunInProgressError,
    TrackingUnavailableError,
    TransientStorageError,
)
from pipelines.places.lease import require_held_leases
from pipelines.registry import anchor, history, registry
from pipelines.registry.history import History, HistoryEntry, Move

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


def make(
    client: "MlflowClient",
    workspace_uri: str,
    known: History,
    entry: HistoryEntry,
    accepts_over: str | None = None,
) -> HistoryEntry:
    """Record what is intended, move the alias, and record that it was moved.

    Args:
        client: Client of the tracking server.
        workspace_uri: The workspace.
        known: The history, with nothing pending.
        entry: The move.
        accepts_over: As in `history.Intent`.

    Raises:
        PromotionRefusedError: the alias points neither at `entry.previous` nor at `entry.model`.
        TrackingUnavailableError: the registry does not answer; what is so is in the message.
    """
    move = history.begin(workspace_uri, known, entry, accepts_over=accepts_over)
    return carry_out(client, move, entry.moved_at)


def carry_out(client: "MlflowClient", move: Move, now: datetime) -> HistoryEntry:
    """Do what an intent says, or find it done, and record the outcome.

    MLflow has no conditional write. A write by somebody outside this project between our reading
    and our writing would be overwritten; it is read back, so that the record is still true.

    Args:
        client: Client of the tracking server.
        move: A pending intent.
        now: The time of the move, if it is made now.

    Raises:
        PromotionRefusedError: the alias points neither at the model before nor at the new one.
        TrackingUnavailableError: the registry does not answer; what is so is in the message.
    """
    model, previous = move.intent.entry.model, move.intent.entry.previous
    found = registry.read_champion_version(client, model.name)
    if found == model.version:
        # A move that was found made was made at the time of its intent, as far as is known.
        return _record_made(move, move.intent.entry.moved_at)
    if found != (previous and previous.version):
        raise _gone_elsewhere(move, found, now)
    problem = _point_at(client, move)
    found = _read_back(client, move, problem)
    if found == model.version:
        return _record_made(move, now)
    if found != (previous and previous.version):
        raise _gone_elsewhere(move, found, now)
    raise _not_moved(move, found, problem, now) from problem


def has_moved(client: "MlflowClient", move: Move) -> bool:
    """Return whether the alias names what an intent wants to make champion."""
    model = move.intent.entry.model
    return registry.read_champion_version(client, model.name) == model.version


def settle_others(
    client: "MlflowClient",
    workspace_uri: str,
    name: str,
    now: datetime,
    why: str,
    own: str | None = None,
) -> History:
    """Find out what became of a pending intent of somebody else, and return the history.

    An intent that had not been carried out is given up: whoever acts now has seen another state of
    affairs than the one who began it.

    Args:
        client: Client of the tracking server.
        workspace_uri: The workspace.
        name: The registered model.
        now: The time.
        why: What comes in its way, for the record.
        own: The caller's run; its own intent stays pending.
    """
    known = history.load(workspace_uri, name)
    move = known.pending
    if move is None or (own is not None and move.intent.entry.run_uri == own):
        return known
    is_made = has_moved(client, move)
    if is_made:
        _record_made(move, move.intent.entry.moved_at)
    else:
        _give_up(move, now, f"it had not been made when {why}")
    log.info("%s was begun before and %s", move.uri, "was made" if is_made else "was given up")
    return history.load(workspace_uri, name)


def _record_made(move: Move, moved_at: datetime) -> HistoryEntry:
    """Record that the alias has moved.

    The recipe that the move makes the accepted one is recorded first: were the process killed in
    between, the intent would be pending still, and whoever settles it would record both.
    """
    if move.intent.accepts_over is not None:
        anchor.accept(history.workspace_of(move), move.intent.entry, move.intent.accepts_over)
    return history.settle(move, True, moved_at).entry


def _give_up(move: Move, now: datetime, note: str) -> None:
    """Record that an intent is not carried out any more.

    What it had said of recipes beforehand is taken back first: a rollback would hold a recipe that
    serves.
    """
    anchor.take_back(history.workspace_of(move), move.intent.entry, now, note)
    history.settle(move, False, now, note)


def _point_at(client: "MlflowClient", move: Move) -> HomefeedError | None:
    """Ask the registry to move the alias; return the error if it refuses or the answer was lost.

    Neither tells whether the alias moved: a proxy on the way may refuse what has arrived.

    Raises:
        RunInProgressError: the lease was lost; who has it now finds out what became of the intent.
    """
    require_held_leases()
    try:
        registry.point_champion_at(client, move.intent.entry.model)
    except TrackingUnavailableError as error:
        return error
    except (RunInProgressError, TransientStorageError):
        raise  # The lease speaks here, and not the registry: who has it finds out what became.
    except HomefeedError as error:
        return error
    return None


def _read_back(client: "MlflowClient", move: Move, problem: HomefeedError | None) -> str | None:
    model = move.intent.entry.model
    try:
        return registry.read_champion_version(client, model.name)
    except HomefeedError as error:
        raise type(error)(
            f"MLflow at {client.tracking_uri} was asked to make {model.label} champion "
            f"({problem or 'it took the request'}) and does not say any more what the champion is, "
            f"so it is not known whether it did; what was asked is on record ({move.uri}); give "
            f"the same command again, or retry the task: it looks first, and moves nothing twice "
            f"({error})"
        ) from error


def _not_moved(
    move: Move, found: str | None, problem: HomefeedError | None, now: datetime
) -> HomefeedError:
    """Return the error where the alias is still where it was; give up what was refused.

    A request whose answer was lost may be on its way still: nothing takes it back, and MLflow moves
    the alias when it arrives. So the intent stays, for whoever acts next to look again.
    """
    model, still = move.intent.entry.model, f"the champion is still {_name(found)}"
    if problem is not None and not isinstance(problem, TrackingUnavailableError):
        _give_up(move, now, f"the registry refused it ({type(problem).__name__})")
        return type(problem)(f"{problem}; it was read afterwards: {still}, and nothing is moved")
    why = f"{problem}; the request may still arrive"
    if problem is None:
        why = "MLflow took the request and did nothing"
    return TrackingUnavailableError(
        f"the champion of {model.name} is not moved so far: {still} ({why}); that {model.label} is "
        f"to become champion is on record; give the same command again, or retry the task"
    )


def _gone_elsewhere(move: Move, found: str | None, now: datetime) -> HomefeedError:
    """Record that an intent is given up, because the alias is elsewhere, and return the error."""
    entry = move.intent.entry
    _give_up(move, now, f"the champion was {_name(found)} by then")
    expected = entry.previous.label if entry.previous else "no champion"
    when = "during the run" if entry.kind == "promotion" else "meanwhile"
    where = (
        f"alias 'champion' of {entry.model.name} moved {when}: found {_name(found)}, expected "
        f"{expected}; nothing was moved"
    )
    if entry.kind == "promotion":
        return PromotionRefusedError(
            f"{where}; {entry.model.label} was compared with the latter only; start a new run to "
            f"compare it with what serves now"
        )
    return RecordDisagreesError(f"{where}; look with `homefeed history`, then decide again")


def _name(version: str | None) -> str:
    return f"v{version}" if version else "no champion"
