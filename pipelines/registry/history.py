"""The one truth about the champion: an append-only log of moves and of accepted recipes.

    <workspace>/history/<model>/00000007.json               an Entry, created only if it is absent
    <workspace>/history/<model>/00000007.attempt-<mark>     somebody is about to set the alias
    <workspace>/history/<model>/00000007.followed.json      a Followed: the alias was read back

The creation of an entry is the decision. Of two who want the same number one succeeds, and nothing
is rewritten or taken back. Each entry names the one before by its digest, so that a file which was
altered or is gone is noticed; the newest is vouched for by its mark. The order is that of the
numbers and never of a clock. MLflow's alias follows (`pipelines.registry.reconcile`). An attempt's
file is there while its request may still arrive. Others call this a write-ahead log.

The accepted recipe is the *anchor*: a challenger of another recipe is held against it, and
`train_anchor` makes it fresh in such a cycle. Not for deciding what moves (`promotion`, `by_hand`).
"""

import contextlib
import hashlib
import logging
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ModelRef, PinnedEntry, ResolvedRun
from pipelines.contracts.base import Frozen
from pipelines.contracts.config import RecipeRef, RunConfig
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    RunInProgressError,
    TransientStorageError,
)
from pipelines.contracts.run_layout import StageRecord, manifest_uri

log = logging.getLogger(__name__)
Kind = Literal["promotion", "rollback", "forced", "outside"]

LOCK_WAIT_S = 60.0
"""How long a command waits for another one on this machine, in seconds."""
_AT_ONCE = 8
"""How many entries are read at once: an object store answers each in tens of milliseconds."""
NAME_ONE = "name the accepted recipe: `homefeed anchor set --recipe NAME --reason ...`"


class Recipe(Frozen):
    """A recipe of a model: a configuration, and the code that made models of it."""

    config: dict[str, Any] = Field(description="JSON form of a RunConfig, of today or of then.")
    code_digest: str = Field(description="`code_identity.code_digest` of that code; '' unknown.")
    run_uri: str | None = Field(description="Cycle that it was read from; None: a named recipe.")

    def parse(self) -> RunConfig:
        """Return the configuration.

        Raises:
            ConfigurationError: today's code does not know one of its options.
        """
        try:
            return RunConfig.model_validate(self.config)
        except ValidationError as error:
            raise ConfigurationError(
                f"the accepted recipe {self.config.get('recipe')!r} cannot be read by this code: "
                f"{error}; {NAME_ONE}"
            ) from None

    @property
    def digest(self) -> str:
        """Its digest by today's code; '' where it cannot be read, for it cannot be trained."""
        try:
            return self.parse().recipe_digest
        except ConfigurationError:
            return ""


class HeldRecipe(Frozen):
    """A recipe that was rolled back and may not be promoted until somebody releases it."""

    recipe: Recipe
    reason: str

    @property
    def digest(self) -> str:
        """Its digest by today's code; '' where it cannot be read."""
        return self.recipe.digest


class Recipes(Frozen):
    """All that holds of recipes after an entry of the log."""

    accepted: Recipe | None = Field(default=None, description="None where it is not known.")
    held: tuple[HeldRecipe, ...] = Field(default=(), description="Recipes on hold.")

    def without(self, digest: str) -> "Recipes":
        """Return the same with a recipe no longer on hold."""
        held = tuple(each for each in self.held if each.digest != digest)
        return self.model_copy(update={"held": held})


class HistoryEntry(Frozen):
    """One move of the champion."""

    moved_at: AwareDatetime = Field(description="By its writer's clock; it informs only.")
    kind: Kind = Field(description="'outside': the alias was found moved by something else.")
    model: ModelRef = Field(description="Serving from this move on.")
    previous: ModelRef | None = Field(description="Behind the alias before; None: no champion.")
    run_uri: str | None = Field(
        default=None, description="Cycle that asked for it; None: a person."
    )
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
        moves, now = [move for _, move in self.entries], datetime.now(UTC)
        ending: list[list[int]] = []  # of each move the longest part that never falls, and ends so
        for place, move in enumerate(moves):
            if move.moved_at <= now:
                rising = [each for each in ending if moves[each[-1]].moved_at <= move.moved_at]
                ending.append([*max(rising, key=len, default=[]), place])
        believed = max(reversed(ending), key=len, default=[])
        if not believed:
            return moves
        since, found = moves[believed[0]].moved_at, []
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

    It spares people races; what keeps two moves apart is that an entry is created only if it is
    absent. On an object store nothing is locked.

    Raises:
        RunInProgressError: another command still holds it after `LOCK_WAIT_S`.
    """
    if not storage.is_local(workspace_uri):
        yield
        return
    folder = storage.join(workspace_uri, "history")
    purpose = f"a move of the champion of workspace {workspace_uri}"
    with storage.exclusive_lock(storage.join(folder, "moves"), purpose, LOCK_WAIT_S):
        storage.sweep_unfinished(folder)
        yield


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
    uri, content = _uri(workspace_uri, name, entry.number, "json"), entry.to_record()
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
    storage.write_new(_uri(workspace_uri, name, number, f"attempt-{mark}"), b"1")
    return mark


def end_attempt(workspace_uri: str, name: str, number: int, mark: str) -> None:
    """Record that the request of an attempt cannot arrive any more: it was answered or not sent."""
    deletion.remove(_uri(workspace_uri, name, number, f"attempt-{mark}"))


def mark_followed(workspace_uri: str, name: str, move: Placed, was_set_again: bool) -> None:
    """Record that alias and newest move agree; of several who find that, one writes it."""
    followed = Followed(sha256=move.sha256, was_set_again=was_set_again)
    _create(_uri(workspace_uri, name, move.entry.number, "followed.json"), followed.to_record())


def _create(uri: str, content: bytes) -> bool:
    """Create a file, and return whether it is there with this very content."""
    try:
        storage.write_new(uri, content)
    except RunInProgressError:
        return storage.read_bytes(uri) == content
    return True


def load(workspace_uri: str, name: str) -> History:
    """Return all that is on record; files that cannot be used are named in `damaged`.

    Raises:
        DataContractError: an entry is of another schema version.
    """
    marks, attempts, last = set(), [], 0
    for file in storage.list_names(storage.join(workspace_uri, "history", name)):
        number, _, kind = file.partition(".")
        if len(number) != len(f"{1:08d}") or not number.isdecimal():
            continue
        last = max(last, int(number))
        if kind == "followed.json":
            marks.add(int(number))
        elif kind.startswith("attempt-"):
            attempts.append((int(number), kind.removeprefix("attempt-")))
    uris = [_uri(workspace_uri, name, number, "json") for number in range(1, last + 1)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        contents = list(pool.map(_read_or_empty, uris))
    digests = [hashlib.sha256(each).hexdigest() if each else "" for each in contents]
    entries = [_parse(*each) for each in zip(uris, contents, strict=True)]
    broken = {
        place for place, each in enumerate(entries) if each is None or each.number != place + 1
    }
    for place, entry in enumerate(entries[1:], start=1):
        # The entry before is not the one that this one was written after.
        if not {place - 1, place} & broken and entry and entry.after != digests[place - 1]:
            broken.add(place - 1)
    if last in marks and last - 1 not in broken:
        mark = _read_mark(workspace_uri, name, last)
        if mark is None or mark.sha256 != digests[-1]:
            broken.add(last - 1)
    placed = tuple(
        Placed(uris[place], digests[place], entry)
        for place, entry in enumerate(entries)
        if entry is not None and place not in broken
    )
    seen = {file for each in placed for file in each.entry.acknowledged}
    damaged = [uris[place] for place in sorted(broken) if name_of(uris[place]) not in seen]
    for uri in damaged:
        log.warning("%s is damaged or gone; what it said is not known", uri)
    is_newest_damaged = bool(uris) and uris[-1] in damaged
    # What is damaged vouches for nothing: the next entry is seen not to follow it.
    sha256 = "" if is_newest_damaged or not digests else digests[-1]
    return History(
        placed=placed,
        damaged=tuple(damaged),
        newest=PinnedEntry(number=last, sha256=sha256),
        is_newest_damaged=is_newest_damaged,
        followed=frozenset(marks),
        attempts=tuple(attempts),
    )


def _read_or_empty(uri: str) -> bytes:
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError:
        return b""


def _parse(uri: str, content: bytes) -> Entry | None:
    """Return the entry in a file; None where it is none.

    Raises:
        DataContractError: it is of another schema version.
    """
    try:
        return Entry.from_record(content)
    except ValidationError as error:
        [first, *_] = error.errors()
        if first["type"] == "schema_version" and isinstance(first["input"], int):
            raise DataContractError(
                f"{uri} is of schema version {first['input']}; expected 1, which this version of "
                f"homefeed reads and writes; the history was continued by another version: use "
                f"that one here, nothing of the record is changed by this one"
            ) from None
        return None


def _read_mark(workspace_uri: str, name: str, number: int) -> Followed | None:
    """Return the mark that the alias has followed an entry; None where there is no sound one."""
    try:
        content = _read_or_empty(_uri(workspace_uri, name, number, "followed.json"))
        return Followed.from_record(content)
    except ValidationError:
        return None


def was_set_again(workspace_uri: str, name: str, number: int) -> bool:
    """Return whether the alias had to be set a second time to follow an entry."""
    mark = _read_mark(workspace_uri, name, number)
    return mark is not None and mark.was_set_again


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


def name_of(uri: str) -> str:
    """Return the name of a file, without its folder."""
    return uri.rpartition("/")[2]


def _uri(workspace_uri: str, name: str, number: int, kind: str) -> str:
    return storage.join(workspace_uri, "history", name, f"{number:08d}.{kind}")


def recipe_of(run: ResolvedRun) -> Recipe:
    """Return the recipe of a cycle."""
    config = run.config.model_dump(mode="json")
    return Recipe(config=config, code_digest=run.code_digest, run_uri=run.run_uri)


def recipe_of_model(workspace_uri: str, model: ModelRef, tags: Mapping[str, str]) -> Recipe:
    """Return the recipe that made a registered model, from the cycle that its tags name.

    Args:
        workspace_uri: The workspace.
        model: The model, for the message.
        tags: Of its version in the registry. They are input: the run must be one of the workspace.

    Raises:
        ConfigurationError: that cycle's folder is gone, cannot be read, or was edited.
    """
    run_id = tags.get("homefeed_run_id", "")
    run_uri = storage.join(workspace_uri, "runs", run_id or "(unnamed)")
    uri = manifest_uri(run_uri, "resolve_run")
    try:
        record = storage.read_model(uri, StageRecord)
        artifact = record.artifact
        # A name that leads elsewhere is no run's: a run's own record bears it.
        if not record.is_sound() or artifact["run_id"] != run_id:
            raise ConfigurationError("the manifest was edited, or is another run's")
        # A fresh anchor was made by the recipe that was accepted when its cycle began.
        is_anchor = tags.get("homefeed_side") == "anchor"
        config = dict(artifact["standing"]["anchor"] if is_anchor else artifact["config"])
    except TransientStorageError:
        raise  # It may be read in a minute.
    except (FileNotFoundError, HomefeedError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"the recipe of {model.label} cannot be read from {uri}: {type(error).__name__} "
            f"{error}; expected the manifest of the cycle that trained it; put it back, or "
            f"{NAME_ONE}"
        ) from None
    return Recipe(config=config, code_digest=tags.get("code_digest", ""), run_uri=run_uri)
