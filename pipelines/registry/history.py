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
`train_anchor` makes it fresh in such a cycle. Not for deciding what moves (`moves`).
"""

import contextlib
import hashlib
import json
import logging
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, PinnedEntry, ResolvedRun
from pipelines.contracts.base import Frozen, as_it_was
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, DataContractError, RunInProgressError
from pipelines.contracts.upgrades import from_version_1

log = logging.getLogger(__name__)
LOCK_WAIT_S = 60.0
"""How long a command waits for another one on this machine, in seconds."""
_AT_ONCE = 8
"""How many entries are read at once: an object store answers each in tens of milliseconds."""
_FILE = re.compile(r"(\d{8})\.(json|followed\.json|attempt)(-\w+)?")
NAME_ONE = "name the accepted recipe: `homefeed anchor set --recipe NAME --reason ...`"


class Recipe(Frozen):
    """A recipe of a model: a configuration, and the code that made models of it."""

    config: dict[str, Any]  # JSON form of a RunConfig, of today or of then.
    code_digest: str  # `code_identity.code_digest` of that code; '' unknown.
    run_uri: str | None  # Cycle that it was read from; None: a named recipe.

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

    @property
    def label(self) -> str:
        """Its name and digest for people, or its name alone where it cannot be read."""
        return self.parse().recipe_ref.label if self.digest else str(self.config.get("recipe"))


class HeldRecipe(Frozen):
    """A recipe that was rolled back and may not be promoted until somebody releases it."""

    recipe: Recipe
    reason: str


class Recipes(Frozen):
    """All that holds of recipes after an entry of the log."""

    accepted: Recipe | None = None  # None where it is not known.
    held: tuple[HeldRecipe, ...] = ()

    def without(self, digest: str) -> "Recipes":
        """Return the same with a recipe no longer on hold."""
        held = tuple(each for each in self.held if each.recipe.digest != digest)
        return self.model_copy(update={"held": held})


class Entry(Frozen):
    """One decision, and what holds of recipes after it: a `Move`, or a change of recipes alone."""

    upgrades = (from_version_1, as_it_was)
    sealed_from = 3
    number: int = Field(default=0, ge=0)  # This and the next two are its creation's.
    after: str = ""  # sha256 of the entry before it; '' for the first.
    mark: str = ""  # Random, by which its writer knows its own entry.
    # 'outside': the alias was found moved by something else. The last three move nothing; from an
    # 'upgrade' on, only versions that read this one's schema can go on.
    kind: Literal["promotion", "rollback", "forced", "outside", "by_hand", "release", "upgrade"]
    moved_at: AwareDatetime  # By its writer's clock; it informs only.
    reason: str  # One sentence.
    by: str = ""  # Who asked for it, as machine or Airflow know them; '' where a cycle did.
    recipes: Recipes = Recipes()  # What holds of them from now on.
    acknowledged: tuple[str, ...] = ()  # Earlier files whose damage or loss a person has seen.


class Move(Entry):
    """One move of the champion."""

    model: ModelRef  # Serving from this move on.
    previous: ModelRef | None  # Behind the alias before; None: no champion.
    run_uri: str | None = None  # Cycle that asked for it; None: a person.
    recipe: Recipe | None = None  # That made the model; None: not known.


class Followed(Frozen):
    """The alias was read back after an entry, and named its model."""

    sha256: str  # Of the entry.
    # An earlier attempt had not been seen to end, and the alias named the version before: its write
    # was lost, or a hand had moved the alias back.
    was_set_again: bool


@dataclass(frozen=True)
class History:
    """All that is on record of one registered model's champion."""

    workspace_uri: str
    name: str
    """The registered model's."""
    entries: tuple[Entry, ...] = ()
    """Those that are sound, in order."""
    damaged: tuple[str, ...] = ()
    """URIs of files that cannot be read, were altered or are gone, and nobody has acknowledged."""
    newest: PinnedEntry = PinnedEntry()
    """Where it is damaged, without its digest: the next entry is seen not to follow it."""
    followed: frozenset[int] = frozenset()
    """Numbers of the entries that the alias was seen to follow."""
    attempts: frozenset[int] = frozenset()
    """Numbers of the entries of which an attempt to set the alias was not seen to end."""

    def uri_of(self, number: int, kind: str = "json") -> str:
        """Return where an entry lies, or what belongs to it."""
        return storage.join(self.workspace_uri, "history", self.name, f"{number:08d}.{kind}")

    @property
    def is_newest_damaged(self) -> bool:
        """Whether only the registry knows what serves."""
        return self.newest.number > 0 and not self.newest.sha256

    @property
    def moves(self) -> list[Move]:
        """The moves of the champion, in the order of the log."""
        return [each for each in self.entries if isinstance(each, Move)]

    @property
    def in_time(self) -> "History":
        """The same with the times from which its entries count, which never fall.

        Numbers order, times inform: a stamp that is older than the one before, or lies in the
        future, is of a wrong clock, and such an entry counts from the one before, the first from
        the earliest stamp. Whoever compares a time with an entry's asks this.
        """
        found: list[Entry] = []
        for entry in self.entries:
            since = found[-1].moved_at if found else min(each.moved_at for each in self.entries)
            if since < entry.moved_at <= datetime.now(UTC):
                since = entry.moved_at
            found.append(entry.model_copy(update={"moved_at": since}))
        return replace(self, entries=tuple(found))

    @property
    def last(self) -> Move | None:
        """The newest move: what serves, as far as the log knows."""
        return self.moves[-1] if self.moves else None

    @property
    def pending(self) -> Move | None:
        """The newest move, while the alias was not seen to follow it."""
        return self.last if self.last and self.last.number not in self.followed else None

    @property
    def recipes(self) -> Recipes:
        """What holds of recipes now."""
        return self.entries[-1].recipes if self.entries else Recipes()

    def of_run(self, run_uri: str) -> Move | None:
        """The promotion that a cycle has made, or None."""
        return next((each for each in self.moves if each.run_uri == run_uri), None)

    def recipe_of(self, model: ModelRef) -> Recipe | None:
        """The recipe that made a model, by the moves that brought it; None where none knows it."""
        same = (each for each in reversed(self.moves) if each.model.version == model.version)
        return next((each.recipe for each in same if each.recipe), None)


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
    folder = storage.join(workspace_uri, "history")
    purpose = f"a move of the champion of workspace {workspace_uri}"
    with storage.exclusive_lock(storage.join(folder, "moves"), purpose, LOCK_WAIT_S):
        storage.sweep_unfinished(folder)
        yield


def create(known: History, entry: Entry) -> History:
    """Create the entry after the newest one that is known, and return the log with it.

    Number, mark and digest of the one before are filled in here.

    Raises:
        LostTheNumberError: somebody else has created it; the log has another newest entry.
        ConfigurationError: the object store has no conditional writes.
        TransientStorageError: the storage failed; give the same command again.
    """
    number, after = known.newest.number + 1, known.newest.sha256
    entry = entry.model_copy(update={"number": number, "after": after, "mark": uuid.uuid4().hex})
    uri, content = known.uri_of(number), entry.to_record()
    if not storage.create(uri, content):
        raise LostTheNumberError(
            f"entry {number} of the history of {known.name} was created by somebody else just now "
            f"({uri}); expected nobody else to; look at it with `homefeed history`, then decide "
            f"again"
        )
    return replace(
        known,
        entries=(*known.entries, entry),
        damaged=tuple(each for each in known.damaged if name_of(each) not in entry.acknowledged),
        newest=PinnedEntry(number=number, sha256=hashlib.sha256(content).hexdigest()),
    )


def begin_attempt(known: History, number: int) -> str:
    """Record that the alias is about to be set to an entry's model, and return the file's URI.

    Who removes it says that the request cannot arrive any more: it was answered, or not sent.
    """
    uri = known.uri_of(number, f"attempt-{uuid.uuid4().hex}")
    storage.write_new(uri, b"1")
    return uri


def mark_followed(known: History, move: Move, was_set_again: bool) -> None:
    """Record that alias and newest move agree; of several who find that, one writes it."""
    sha256 = hashlib.sha256(storage.read_bytes(known.uri_of(move.number))).hexdigest()
    followed = Followed(sha256=sha256, was_set_again=was_set_again)
    storage.create(known.uri_of(move.number, "followed.json"), followed.to_record())


def load(workspace_uri: str, name: str, is_upgrade: bool = False) -> History:
    """Return all that is on record; files that cannot be used are named in `damaged`.

    Raises:
        DataContractError: an entry is of a later schema version, or the newest of an earlier one
            and `upgrade` does not ask.
    """
    known = History(workspace_uri, name)
    names = storage.list_names(storage.join(workspace_uri, "history", name))
    found = [(each[2], int(each[1])) for each in map(_FILE.fullmatch, names) if each]
    if not found:
        return known
    last = max(number for _, number in found)
    followed = frozenset(number for kind, number in found if kind == "followed.json")
    uris = [known.uri_of(number) for number in range(1, last + 1)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        contents = list(pool.map(_read_or_empty, uris))
    entries, damaged, newest = list[Entry](), list[str](), PinnedEntry(number=last)
    # The digest of each that another file names: the next entry, or the mark of the newest one.
    vouched = _read_mark(known, last).sha256 if last in followed else None
    for number, uri, content in zip(range(last, 0, -1), uris[::-1], contents[::-1], strict=True):
        entry, digest = _parse(number, uri, content), hashlib.sha256(content).hexdigest()
        if entry is None or vouched not in (None, digest):
            damaged.insert(0, uri)
        else:
            entries.insert(0, entry)
            newest = PinnedEntry(number=last, sha256=digest) if number == last else newest
            if number == last and not is_upgrade and not is_current(content):
                raise DataContractError(
                    f"the history of {name} in {workspace_uri} was last written by an earlier "
                    f"version of homefeed; expected one that this version goes on with; end what "
                    f"runs there, then give `homefeed history upgrade`: nothing is altered, and "
                    f"the earlier version cannot go on afterwards"
                )
        vouched = entry.after if entry else None
    seen = {file for entry in entries for file in entry.acknowledged}
    damaged = [uri for uri in damaged if name_of(uri) not in seen]
    for uri in damaged:
        log.warning("%s is damaged or gone; what it said is not known", uri)
    return replace(
        known,
        entries=tuple(entries),
        damaged=tuple(damaged),
        newest=newest,
        followed=followed,
        attempts=frozenset(number for kind, number in found if kind == "attempt"),
    )


def _read_or_empty(uri: str) -> bytes:
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError:
        return b""


def _parse(number: int, uri: str, content: bytes) -> Entry | None:
    """Return the entry in a file; None where it is none, or that of another number.

    Raises:
        DataContractError: it is of another schema version.
    """
    for kind in (Move, Entry):
        try:
            entry = kind.from_record(content)
            return entry if entry.number == number else None
        except ValidationError as error:
            first = error.errors()[0]
    if first["type"] == "schema_version" and isinstance(first["input"], int):
        raise DataContractError(
            f"{uri} is of schema version {first['input']}; expected at most "
            f"{Entry.schema_version()}, which this version of homefeed writes; the history was "
            f"continued by a later version: use that one here, nothing of the record is changed "
            f"by this one"
        )
    return None


def is_current(content: bytes) -> bool:
    """Return whether a sound entry's file is of the schema version that is written today."""
    return bool(json.loads(content)["schema_version"] == Entry.schema_version())


def upgrade(workspace_uri: str, name: str, now: datetime) -> History:
    """Let this version go on with a history that an earlier one wrote; return the history.

    One entry more is created; it is the newest, so that the earlier version refuses to go on.
    Nothing that was written is altered: what names it by its digest finds it as it was. Where the
    newest entry is of today's version, nothing is done.

    Raises:
        LostTheNumberError: somebody else has created an entry at the same time.
    """
    with promotion_lock(workspace_uri):
        known = load(workspace_uri, name, is_upgrade=True)
        newest = known.newest.number and storage.read_bytes(known.uri_of(known.newest.number))
        if not newest or known.is_newest_damaged or is_current(newest):
            return known
        reason = f"from here on entries are of schema version {Entry.schema_version()}"
        entry = Entry(moved_at=now, kind="upgrade", reason=reason, recipes=known.recipes)
        return create(known, entry)


def _read_mark(known: History, number: int) -> Followed:
    """Return the mark that the alias has followed an entry; one of nothing where it is damaged."""
    try:
        return Followed.from_record(_read_or_empty(known.uri_of(number, "followed.json")))
    except ValidationError:
        return Followed(sha256="damaged", was_set_again=False)


def was_set_again(known: History, move: Move) -> bool:
    """Return whether the alias had to be set a second time to follow a move."""
    return move.number in known.followed and _read_mark(known, move.number).was_set_again


def serving_at(known: History, instant: datetime) -> Move:
    """Return the move in force at a past instant, with the time from which it counts.

    Raises:
        ConfigurationError: nothing was serving yet.
    """
    if in_force := [move for move in known.in_time.moves if move.moved_at <= instant]:
        return in_force[-1]
    raise ConfigurationError(
        f"nothing of {known.name} was serving at {instant:%Y-%m-%d %H:%M:%S} UTC; expected a time "
        f"after the first move of `homefeed history`, if there is a champion yet"
    )


def name_of(uri: str) -> str:
    """Return the last part of a URI: a workspace may be reached under another path by now."""
    return uri.rpartition("/")[2]


def recipe_of(
    run: ResolvedRun, config: RunConfig | None = None, code_digest: str | None = None
) -> Recipe:
    """Return the recipe of a cycle: its own, or the accepted one that it has made fresh."""
    return Recipe(
        config=(config or run.config).model_dump(mode="json"),
        code_digest=run.code_digest if code_digest is None else code_digest,
        run_uri=run.run_uri,
    )
