"""The one truth about the champion: an append-only log of moves and of accepted recipes.

    <workspace>/history/<model>/00000007.json               an Entry, created only if it is absent
    <workspace>/history/<model>/00000007.attempt-<mark>     somebody is about to set the alias
    <workspace>/history/<model>/00000007.followed.json      a Followed: the alias was read back

The creation of an entry is the decision. Of two who want the same number one succeeds, and nothing
is rewritten or taken back. Each entry names the one before by its digest, so that a file which was
altered or is gone is noticed; the newest is vouched for by its mark. The order is that of the
numbers and never of a clock. MLflow's alias follows (`pipelines.registry.reconcile`). An attempt's
file is there while its request may still arrive. Others call this a write-ahead log.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from pipelines import deletion, storage
from pipelines.contracts import files
from pipelines.contracts.artifacts import ModelRef, PinnedEntry
from pipelines.contracts.base import Frozen
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.errors import ConfigurationError, DataContractError, RunInProgressError
from pipelines.registry.recipes_on_record import Recipes

log = logging.getLogger(__name__)
Kind = Literal["promotion", "rollback", "forced", "outside"]

_NAME = re.compile(r"(\d{8})(?:\.json|\.followed\.json|\.attempt-([0-9a-f]{32}))")
LOCK_WAIT_S = 60.0
"""How long a command waits for another one on this machine, in seconds."""
_LOCK_LOOK_S = 0.05
_AT_ONCE = 8
"""How many entries are read at once: an object store answers each in tens of milliseconds."""


class HistoryEntry(Frozen):
    """One move of the champion."""

    moved_at: AwareDatetime = Field(description="By its writer's clock; it informs only.")
    kind: Kind = Field(description="'outside': the alias was found moved by something else.")
    model: ModelRef = Field(description="Serving from this move on.")
    previous: ModelRef | None = Field(description="Behind the alias before; None: no champion.")
    run_uri: str | None = Field(description="Cycle that asked for it; None for a person.")
    recipe: RecipeRef | None = Field(
        default=None,
        description="Recipe of the model that starts to serve; None where a person went back.",
    )
    reason: str = Field(description="One sentence.")


class RecipeChange(Frozen):
    """A change of the accepted recipe, or of the recipes on hold, by a person."""

    set_at: AwareDatetime
    kind: Literal["by_hand", "release"]
    reason: str = Field(description="One sentence.")


class Entry(Frozen):
    """One decision, and what holds of recipes after it."""

    schema_version: Literal[1] = 1
    number: int = Field(ge=1)
    after: str = Field(description="sha256 of the entry before it; '' for the first.")
    mark: str = Field(description="Random mark of its writer, who knows its own entry by it.")
    event: HistoryEntry | RecipeChange
    recipes: Recipes
    acknowledged: tuple[str, ...] = Field(
        default=(), description="Names of earlier files whose damage or loss a person has seen."
    )


class Followed(Frozen):
    """The alias was read back after an entry, and named its model."""

    schema_version: Literal[1] = 1
    sha256: str = Field(description="Of the entry.")
    was_set_again: bool = Field(
        description="An earlier attempt had not been seen to end, and the alias named the version "
        "before: its write was lost, or a hand had moved the alias back."
    )


@dataclass(frozen=True)
class Placed:
    """An entry, and the file that holds it."""

    uri: str
    sha256: str
    entry: Entry


@dataclass(frozen=True)
class History:
    """All that is on record of one registered model's champion."""

    placed: tuple[Placed, ...] = ()
    """The entries that are sound, in order."""
    damaged: tuple[str, ...] = ()
    """Files that cannot be read, were altered or are gone, and that nobody has acknowledged."""
    newest: PinnedEntry = PinnedEntry()
    is_newest_damaged: bool = False
    followed: frozenset[int] = frozenset()
    """Numbers of the entries that the alias was seen to follow."""
    attempts: tuple[tuple[int, str], ...] = ()
    """Number and mark of each attempt to set the alias that was not seen to end."""

    @property
    def moves(self) -> list[Placed]:
        """The entries that are moves of the champion."""
        return [each for each in self.placed if isinstance(each.entry.event, HistoryEntry)]

    @property
    def entries(self) -> list[tuple[str, HistoryEntry]]:
        """(URI, move) pairs, in the order of the log."""
        pairs = ((each.uri, each.entry.event) for each in self.placed)
        return [(uri, event) for uri, event in pairs if isinstance(event, HistoryEntry)]

    @property
    def in_time(self) -> list[HistoryEntry]:
        """The moves with the times from which they count, which never fall.

        Numbers order, times inform: stamps that fall, or lie in the future, are of wrong clocks.
        The fewest that explain this are not believed, and such a move counts from the one before.
        """
        moves = [move for _, move in self.entries]
        believed = _rising([move.moved_at for move in moves])
        if not believed:
            return moves
        since, found = moves[min(believed)].moved_at, []
        for place, move in enumerate(moves):
            since = move.moved_at if place in believed else since
            found.append(move.model_copy(update={"moved_at": since}))
        return found

    @property
    def last(self) -> HistoryEntry | None:
        """The newest move: what serves, as far as the log knows."""
        return self.entries[-1][1] if self.entries else None

    @property
    def pending(self) -> HistoryEntry | None:
        """The newest move, while the alias was not seen to follow it."""
        moves = self.moves
        return self.last if moves and moves[-1].entry.number not in self.followed else None

    @property
    def recipes(self) -> Recipes:
        """What holds of recipes now."""
        return self.placed[-1].entry.recipes if self.placed else Recipes()

    def of_run(self, run_uri: str) -> tuple[str, HistoryEntry] | None:
        """The promotion that a cycle has made, with its URI, or None."""
        return next((pair for pair in self.entries if pair[1].run_uri == run_uri), None)


class LostTheNumberError(RunInProgressError):
    """Somebody else has created the entry of that number."""


@contextlib.contextmanager
def promotion_lock(workspace_uri: str) -> Iterator[None]:
    """Let one command at a time act on the log of a workspace on this machine's disk.

    The kernel frees the lock when a process dies. It spares people races; what keeps two moves
    apart is that an entry is created only if it is absent. On an object store nothing is locked.

    Raises:
        RunInProgressError: another command still holds it after `LOCK_WAIT_S`.
    """
    if not storage.is_local(workspace_uri):
        yield
        return
    folder = storage.local_path(storage.join(workspace_uri, "history"))
    with storage.translated_errors(workspace_uri, "locking the history of"):
        files.make_folder(folder)
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunInProgressError(
                        f"another command moves the champion of workspace {workspace_uri} and has "
                        f"not ended in {LOCK_WAIT_S:g} s; expected it to; try again"
                    ) from None
                time.sleep(_LOCK_LOOK_S)
            except OSError:
                break  # A file system without locks.
        storage.sweep_unfinished(folder.as_uri())
        yield
    finally:
        os.close(number)


def create(
    workspace_uri: str,
    name: str,
    known: History,
    event: HistoryEntry | RecipeChange,
    recipes: Recipes,
    acknowledged: tuple[str, ...] = (),
) -> History:
    """Create the entry after the newest one that is known, and return the log with it.

    Raises:
        LostTheNumberError: somebody else has created it; the log has another newest entry.
        ConfigurationError: the object store has no conditional writes.
        TransientStorageError: the storage failed; give the same command again.
    """
    entry = Entry(
        number=known.newest.number + 1,
        after=known.newest.sha256,
        mark=uuid.uuid4().hex,
        event=event,
        recipes=recipes,
        acknowledged=acknowledged,
    )
    uri = _uri(workspace_uri, name, f"{entry.number:08d}.json")
    content = files.to_json(entry)
    if not _create(uri, content):
        raise LostTheNumberError(
            f"entry {entry.number} of the history of {name} was created by somebody else just now "
            f"({uri}); expected nobody else to; look at it with `homefeed history`, then decide "
            f"again"
        )
    sha256 = hashlib.sha256(content).hexdigest()
    return replace(
        known,
        placed=(*known.placed, Placed(uri, sha256, entry)),
        damaged=tuple(each for each in known.damaged if name_of(each) not in acknowledged),
        newest=PinnedEntry(number=entry.number, sha256=sha256),
        is_newest_damaged=False,
    )


def begin_attempt(workspace_uri: str, name: str, number: int) -> str:
    """Record that the alias is about to be set to an entry's model, and return the mark."""
    mark = uuid.uuid4().hex
    storage.write_new(_uri(workspace_uri, name, f"{number:08d}.attempt-{mark}"), b"1")
    return mark


def end_attempt(workspace_uri: str, name: str, number: int, mark: str) -> None:
    """Record that the request of an attempt cannot arrive any more: it was answered or not sent."""
    deletion.remove(_uri(workspace_uri, name, f"{number:08d}.attempt-{mark}"))


def mark_followed(workspace_uri: str, name: str, move: Placed, was_set_again: bool) -> None:
    """Record that alias and newest move agree; of several who find that, one writes it."""
    followed = Followed(sha256=move.sha256, was_set_again=was_set_again)
    uri = _uri(workspace_uri, name, f"{move.entry.number:08d}.followed.json")
    _create(uri, files.to_json(followed))


def _create(uri: str, content: bytes) -> bool:
    """Create a file, and return whether it is there with this very content."""
    try:
        storage.write_new(uri, content)
    except RunInProgressError:
        # A lost lease raises the same, and then there may be no such file.
        if not storage.exists(uri):
            raise
        return storage.read_bytes(uri) == content
    return True


def load(workspace_uri: str, name: str) -> History:
    """Return all that is on record; files that cannot be used are named in `damaged`.

    Raises:
        DataContractError: an entry is of another schema version.
    """
    folder = storage.join(workspace_uri, "history", name)
    found = [match for match in map(_NAME.fullmatch, storage.list_names(folder)) if match]
    last = max((int(match[1]) for match in found), default=0)
    placed: list[Placed] = []
    broken: list[tuple[int, str]] = []
    head, is_sound = "", True
    uris = [storage.join(folder, f"{number:08d}.json") for number in range(1, last + 1)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        contents = list(pool.map(_read_or_empty, uris))
    for number, (uri, content) in enumerate(zip(uris, contents, strict=True), start=1):
        entry = _parse(uri, content, number)
        if entry is not None and is_sound and entry.after != head:
            # The entry before is not the one that this one was written after.
            broken.append((number - 1, uris[number - 2]))
            placed = placed[:-1]
        # A digest that is not known is not compared with.
        head, is_sound = hashlib.sha256(content).hexdigest() if content else "", entry is not None
        if entry is None:
            broken.append((number, uri))
        else:
            placed.append(Placed(uri, head, entry))
    marks = {int(match[1]) for match in found if match[0].endswith(".followed.json")}
    if placed and placed[-1].entry.number == last in marks:
        content = _read_or_empty(storage.join(folder, f"{last:08d}.followed.json"))
        if not _is_vouched_for(content, head):
            broken.append((last, placed.pop().uri))
    seen = {file for each in placed for file in each.entry.acknowledged}
    damaged = [(number, uri) for number, uri in broken if name_of(uri) not in seen]
    is_damaged = any(number == last for number, _ in damaged)
    for _, uri in damaged:
        log.warning("%s is damaged or gone; what it said is not known", uri)
    return History(
        placed=tuple(placed),
        damaged=tuple(uri for _, uri in damaged),
        # What is damaged vouches for nothing: the next entry is seen not to follow it.
        newest=PinnedEntry(number=last, sha256="" if is_damaged else head),
        is_newest_damaged=is_damaged,
        followed=frozenset(marks),
        attempts=tuple((int(match[1]), match[2]) for match in found if match[2]),
    )


def _read_or_empty(uri: str) -> bytes:
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError:
        return b""


def _parse(uri: str, content: bytes, number: int) -> Entry | None:
    """Return the entry in a file; None where it is none of this number.

    Raises:
        DataContractError: it is of another schema version.
    """
    try:
        version = json.loads(content).get("schema_version")
        if isinstance(version, int) and version != 1:
            raise DataContractError(
                f"{uri} is of schema version {version}; expected 1, which this version of "
                f"homefeed reads and writes; the history was continued by another version: use "
                f"that one here, nothing of the record is changed by this one"
            )
        entry = Entry.model_validate_json(content)
    except (ValueError, AttributeError):
        return None
    return entry if entry.number == number else None


def _is_vouched_for(content: bytes, sha256: str) -> bool:
    """Return whether a mark is about an entry of that digest; a mark that is no such says no."""
    try:
        return Followed.model_validate_json(content).sha256 == sha256
    except ValueError:
        return False


def was_set_again(workspace_uri: str, name: str, number: int) -> bool:
    """Return whether the alias had to be set a second time to follow an entry."""
    try:
        content = _read_or_empty(_uri(workspace_uri, name, f"{number:08d}.followed.json"))
        return Followed.model_validate_json(content).was_set_again
    except ValueError:
        return False


def read(workspace_uri: str, registered_model: str) -> list[tuple[str, HistoryEntry]]:
    """Return (URI, move) pairs, in the order of the log."""
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
    """Return the move in force at a past instant, with the time from which it counts.

    Raises:
        ConfigurationError: nothing was serving yet.
    """
    in_time = known.in_time
    in_force = [entry for entry in in_time if entry.moved_at <= instant]
    if not in_force:
        first = "no champion yet"
        if in_time:
            first = f"the first champion came {in_time[0].moved_at:%Y-%m-%d %H:%M:%S} UTC"
        raise ConfigurationError(
            f"nothing of {registered_model} was serving at {instant:%Y-%m-%d %H:%M:%S} UTC; {first}"
        )
    return in_force[-1]


def _rising(times: list[datetime]) -> set[int]:
    """Return the places of the longest part of times that never falls and is not in the future."""
    now = datetime.now(UTC)
    ending: list[list[int]] = []
    for place, at in enumerate(times):
        if at <= now:
            before = [(len(each), each) for each in ending if times[each[-1]] <= at]
            ending.append([*max(before, default=(0, []))[1], place])
    return set(max(((len(each), each) for each in ending), default=(0, []))[1])


def name_of(uri: str) -> str:
    """Return the name of a file, without its folder."""
    return uri.rpartition("/")[2]


def _uri(workspace_uri: str, name: str, file: str) -> str:
    return storage.join(workspace_uri, "history", name, file)
