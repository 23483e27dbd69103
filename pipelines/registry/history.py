"""Append-only history of the champion: who served at an instant, and what to go back to.

    <workspace>/history/<model>/00000007.intent.json     an Intent, written before the alias moves
    <workspace>/history/<model>/00000007.outcome.json    an Outcome, written when it was read back
    <workspace>/history/*.json                           entries of before this form

Every file is written once and never again. An intent names the outcome before it by digest, so that
the order is that of the chain and not of a clock, and a file that was altered or is gone is
noticed. An intent without an outcome is *pending*: whether the alias moved is found out by reading
it. The registry knows only what serves now. Others call intents and outcomes a write-ahead log. Not
for moving (`pipelines.registry.moves`).
"""

import contextlib
import fnmatch
import hashlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from pydantic import AwareDatetime, Field

from pipelines import storage
from pipelines.contracts import files
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.base import Frozen
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.places.lease import Lease, number_at

log = logging.getLogger(__name__)
Kind = Literal["promotion", "rollback", "forced", "outside"]
Value = TypeVar("Value", bound=Frozen)

_CHAIN_NAME = re.compile(r"\d{8}\.(intent|outcome)\.json")

LOCK_WAIT_S = 60.0
"""How long a move waits for another one to end, in seconds."""


class HistoryEntry(Frozen):
    """One move of the `champion` alias."""

    moved_at: AwareDatetime
    kind: Kind = Field(description="'outside': the alias was found moved by something else.")
    model: ModelRef = Field(description="Serving from moved_at on.")
    previous: ModelRef | None = Field(description="Serving before; None for the first champion.")
    run_uri: str | None = Field(description="Cycle that asked for it; None for a person.")
    recipe: RecipeRef | None = Field(
        default=None,
        exclude_if=lambda recipe: recipe is None,
        description="Recipe of the model that starts to serve; None in older entries, and where a "
        "person went back to a model.",
    )
    reason: str = Field(description="One sentence.")


class Intent(Frozen):
    """What is about to be done to the alias, written before it is done."""

    sequence: int = Field(ge=1)
    after: str = Field(description="sha256 of the outcome before it; '' for the first.")
    entry: HistoryEntry
    acknowledged: tuple[str, ...] = Field(
        default=(), description="Names of earlier files whose damage or loss a person has seen."
    )
    accepts_over: str | None = Field(
        default=None,
        description="Where the move makes its cycle's recipe the accepted one: `anchor."
        "state_of_record` of now, which it takes the place of. None: the accepted recipe stays.",
    )
    lease: int = Field(default=0, ge=0, description="Lease of its writer; 0 in older files.")


class Outcome(Frozen):
    """What became of an intent."""

    intent_sha256: str
    is_made: bool
    moved_at: AwareDatetime = Field(description="When the move was made, or given up.")
    note: str = Field(default="", description="Why it was given up.")
    lease: int = Field(default=0, ge=0, description="Lease of its writer; 0 in older files.")


@dataclass(frozen=True)
class Move:
    """An intent with its outcome, if it has one."""

    uri: str
    intent: Intent
    intent_sha256: str
    outcome: Outcome | None = None

    @property
    def entry(self) -> HistoryEntry:
        """The move, with the time at which it was made."""
        if self.outcome is None:
            return self.intent.entry
        return self.intent.entry.model_copy(update={"moved_at": self.outcome.moved_at})


@dataclass(frozen=True)
class History:
    """All that is on record of one registered model's champion."""

    former: tuple[tuple[str, HistoryEntry], ...]
    moves: tuple[Move, ...]
    damaged: tuple[str, ...]
    """Files that cannot be read, were altered or are gone, and that nobody has acknowledged."""
    next_sequence: int
    head: str
    is_newest_damaged: bool

    @property
    def entries(self) -> list[tuple[str, HistoryEntry]]:
        """(URI, entry) pairs of the moves that were made, in the order of the chain.

        A clock that was set back moves no entry before an earlier one.
        """
        made = [(m.uri, m.entry) for m in self.moves if m.outcome is not None and m.outcome.is_made]
        found, since = [], None
        for uri, entry in (*self.former, *made):
            since = entry.moved_at if since is None else max(since, entry.moved_at)
            found.append((uri, entry.model_copy(update={"moved_at": since})))
        return found

    @property
    def last(self) -> HistoryEntry | None:
        """The newest move that was made, as it was recorded."""
        return self.entries[-1][1] if self.entries else None

    @property
    def pending(self) -> Move | None:
        """The newest intent, if nothing is on record of what became of it."""
        return self.moves[-1] if self.moves and self.moves[-1].outcome is None else None

    @property
    def given_up(self) -> set[tuple[Kind, datetime]]:
        """Kind and time of each intent that was given up.

        Where two of a kind were begun at one time, and one was not given up, both are left out.
        """
        found: dict[bool, set[tuple[Kind, datetime]]] = {True: set(), False: set()}
        for move in self.moves:
            is_given_up = move.outcome is not None and not move.outcome.is_made
            found[is_given_up].add((move.intent.entry.kind, move.intent.entry.moved_at))
        return found[True] - found[False]

    def of_run(self, run_uri: str) -> Move | None:
        """The newest intent of a cycle's promotion, or None."""
        mine = (m for m in reversed(self.moves) if m.intent.entry.run_uri == run_uri)
        return next(mine, None)


@contextlib.contextmanager
def promotion_lock(workspace_uri: str) -> Iterator[Lease]:
    """Hold the lease of every move of the champion or of the accepted recipe.

    It is waited for: a rollback holds it while it fetches and scores what shall serve again. What
    a killed holder left unfinished in the history is removed here, since the next one may find
    that all is written.
    """
    with storage.exclusive_lock(_lock_uri(workspace_uri), "a promotion", LOCK_WAIT_S) as lease:
        storage.sweep_unfinished(storage.join(workspace_uri, "history"))
        yield lease


def begin(
    workspace_uri: str,
    known: History,
    entry: HistoryEntry,
    acknowledged: tuple[str, ...] = (),
    accepts_over: str | None = None,
) -> Move:
    """Write an intent at the end of the chain. The caller holds the lock, and nothing is pending.

    Raises:
        RunInProgressError: another process has written at that place since `known` was read.
    """
    place = known.next_sequence
    intent = Intent(
        sequence=place,
        after=known.head,
        entry=entry,
        acknowledged=acknowledged,
        accepts_over=accepts_over,
        lease=number_at(_lock_uri(workspace_uri)),
    )
    uri = storage.join(_folder(workspace_uri, entry.model.name), f"{place:08d}.intent.json")
    content = files.to_json(intent)
    storage.write_new(uri, content)
    return Move(uri, intent, _sha256(content))


def settle(move: Move, is_made: bool, moved_at: datetime, note: str = "") -> Move:
    """Write what became of an intent.

    Raises:
        RunInProgressError: another process has settled it.
    """
    outcome = Outcome(
        intent_sha256=move.intent_sha256,
        is_made=is_made,
        moved_at=moved_at,
        note=note,
        lease=number_at(_lock_uri(workspace_of(move))),
    )
    storage.write_new(_outcome_uri(move.uri), files.to_json(outcome))
    return Move(move.uri, move.intent, move.intent_sha256, outcome)


def load(workspace_uri: str, registered_model: str) -> History:
    """Return all that is on record; files that cannot be used are named in `damaged`."""
    folder = _folder(workspace_uri, registered_model)
    names = filter(_CHAIN_NAME.fullmatch, storage.list_names(folder))
    places = sorted({int(name[:8]) for name in names})
    moves: list[Move] = []
    broken: dict[int, list[str]] = {}
    head, is_sound = "", True
    for place in range(1, (places[-1] if places else 0) + 1):
        move, digest, bad = _read_place(folder, place, is_last=place == places[-1])
        if move is not None and is_sound and move.intent.after != head:
            # The outcome before is not the one that this intent was written after.
            broken[place - 1] = [storage.join(folder, f"{place - 1:08d}.outcome.json")]
            moves = [m for m in moves if m.intent.sequence != place - 1]
        if bad:
            broken[place] = bad
        elif move is not None:
            moves.append(move)
        # A digest that is not known is not compared with.
        head, is_sound = digest, not bad
    seen = {each for move in moves for each in move.intent.acknowledged}
    former, unread = _read_former(workspace_uri, registered_model)
    unread += [uri for place in sorted(broken) for uri in broken[place]]
    damaged = [uri for uri in unread if name_of(uri) not in seen]
    for uri in damaged:
        log.warning("%s is damaged or gone; what it said is not known", uri)
    newest = broken.get(places[-1], []) if places else []
    return History(
        former=tuple(former),
        moves=tuple(moves),
        damaged=tuple(damaged),
        next_sequence=(places[-1] if places else 0) + 1,
        head=head,
        is_newest_damaged=any(uri in damaged for uri in newest),
    )


def _read_place(folder: str, place: int, is_last: bool) -> tuple[Move | None, str, list[str]]:
    """Return one place's move, the digest of its outcome, and its files that cannot be used."""
    uri = storage.join(folder, f"{place:08d}.intent.json")
    intent, intent_sha256 = _read_or_none(uri, Intent)
    outcome, digest = _read_or_none(_outcome_uri(uri), Outcome)
    bad = []
    if intent is None or (outcome is not None and outcome.intent_sha256 != intent_sha256):
        bad.append(uri)
    # Only the last intent may be without an outcome: the next one is written after it.
    if outcome is None and (digest or not is_last):
        bad.append(_outcome_uri(uri))
    if intent is None or bad:
        return None, digest, bad
    return Move(uri, intent, intent_sha256, outcome), digest, bad


def _read_or_none(uri: str, kind: type[Value]) -> tuple[Value | None, str]:
    """Return a file's value and digest; None and the digest of what is there if it is no such."""
    try:
        content = storage.read_bytes(uri)
    except FileNotFoundError:
        return None, ""
    try:
        return kind.model_validate_json(content), _sha256(content)
    except ValueError:
        return None, _sha256(content)


def _read_former(
    workspace_uri: str, registered_model: str
) -> tuple[list[tuple[str, HistoryEntry]], list[str]]:
    """Return the entries of before there were intents, in the order of their names."""
    folder = storage.join(workspace_uri, "history")
    found, unread = [], []
    # A name that begins with a full stop is that of a file which was never finished.
    for name in fnmatch.filter(storage.list_names(folder), "[!.]*.json"):
        uri = storage.join(folder, name)
        try:
            entry = storage.read_model(uri, HistoryEntry)
        except DataContractError:
            unread.append(uri)
            continue
        if entry.model.name == registered_model:
            found.append((uri, entry))
    return found, unread


def read(workspace_uri: str, registered_model: str) -> list[tuple[str, HistoryEntry]]:
    """Return (URI, entry) pairs of the moves that were made, in the order of the chain."""
    return load(workspace_uri, registered_model).entries


def champion_before(workspace_uri: str, registered_model: str, as_of: datetime) -> ModelRef | None:
    """Return the champion of the time before a cycle's as_of, or None if there was none.

    It is the newest by its own as_of among the models that were champion. The times of the moves do
    not tell: cycles of past days may all have been run today.
    """
    models = [entry.model for _, entry in read(workspace_uri, registered_model)]
    earlier = [model for model in models if model.as_of < as_of]
    return max(earlier, key=lambda model: model.as_of, default=None)


def serving_at(known: History, registered_model: str, instant: datetime) -> HistoryEntry:
    """Return the entry in force at an instant.

    Raises:
        ConfigurationError: nothing was serving yet.
    """
    entries = [entry for _, entry in known.entries]
    earlier = [entry for entry in entries if entry.moved_at <= instant]
    if not earlier:
        first = "no champion yet"
        if entries:
            first = f"the first champion came {entries[0].moved_at:%Y-%m-%d %H:%M:%S} UTC"
        raise ConfigurationError(
            f"nothing of {registered_model} was serving at {instant:%Y-%m-%d %H:%M:%S} UTC; {first}"
        )
    return earlier[-1]


def workspace_of(move: Move) -> str:
    """Return the workspace whose history holds a move."""
    return move.uri.rsplit("/history/", 1)[0]


def name_of(uri: str) -> str:
    """Return the name of a file, without its folder."""
    return uri.rpartition("/")[2]


def _lock_uri(workspace_uri: str) -> str:
    return storage.join(workspace_uri, "history", "promotion")


def _folder(workspace_uri: str, registered_model: str) -> str:
    return storage.join(workspace_uri, "history", registered_model)


def _outcome_uri(intent_uri: str) -> str:
    return f"{intent_uri.removesuffix('.intent.json')}.outcome.json"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
