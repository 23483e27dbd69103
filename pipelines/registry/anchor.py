"""Append-only record of the anchor: the last accepted recipe, and which recipes are on hold.

    <workspace>/anchors/<registered model>/<time>.json    an AnchorEntry, never rewritten

There is one file for each change, and the newest says what holds. Which is the newest their names
say, whose times only grow: a clock that was set back, or a move that was begun earlier and is ended
now, changes no order. The entry of a rollback that was given up does not count: a process that has
lost its lease may write it after that, and only the history, where the first outcome stands, says
what became of a move. The *anchor* is the recipe that a challenger of another recipe is held
against: `train_anchor` makes it fresh in such a cycle. Not for deciding when it moves
(`validation.model_gate.policy`, and people by `homefeed anchor`).
"""

import fnmatch
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.base import Frozen
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from pipelines.contracts.run_layout import StageRecord, manifest_uri
from pipelines.registry.history import HistoryEntry, load, promotion_lock

log = logging.getLogger(__name__)
_TIME = "%Y%m%dT%H%M%S%fZ"
_NAME = re.compile(r"(\d{8}T\d{12}Z)-.+\.json")
Kind = Literal["promotion", "adopted", "rollback", "by_hand", "release", "taken_back"]


class Recipe(Frozen):
    """An accepted recipe: a configuration, and the code that made models of it."""

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
                f"{error}; name one that can: `homefeed anchor set --recipe NAME --reason ...`"
            ) from None


class HeldRecipe(Frozen):
    """A recipe that was rolled back and may not be promoted until somebody releases it."""

    recipe: Recipe
    reason: str

    @property
    def digest(self) -> str:
        """Its digest by today's code, which may know more options; '' where it cannot be read."""
        return digest_or_nothing(self.recipe)


class AnchorEntry(Frozen):
    """One change of the anchor or of the recipes on hold; it holds the whole state after it."""

    set_at: AwareDatetime = Field(description="When it was decided; the name says the order.")
    kind: Kind
    registered_model: str
    recipe: Recipe | None = Field(description="The anchor; None where it could not be read.")
    held: tuple[HeldRecipe, ...] = Field(default=(), description="Recipes on hold.")
    run_uri: str | None = Field(description="Cycle that asked for it; None: a person.")
    reason: str = Field(description="One sentence.")


def read(workspace_uri: str, registered_model: str) -> list[AnchorEntry]:
    """Return every entry of a registered model in order, also of rollbacks that were given up."""
    folder, names = (
        _folder(workspace_uri, registered_model),
        _names(workspace_uri, registered_model),
    )
    repair = "put a sound copy back, or delete it and see `homefeed anchor show`"
    return [storage.read_model(storage.join(folder, n), AnchorEntry, repair) for n in names]


def in_force(workspace_uri: str, registered_model: str) -> list[AnchorEntry]:
    """Return the entries that count, in the order in which they took force.

    That of a rollback which is pending counts: challengers are then held to the older recipe, which
    is the safe side.
    """
    entries = read(workspace_uri, registered_model)
    if all(entry.kind != "rollback" for entry in entries):
        return entries  # The history is read only where there is something to look for.
    given_up = load(workspace_uri, registered_model).given_up
    return [entry for entry in entries if (entry.kind, entry.set_at) not in given_up]


def present(workspace_uri: str, registered_model: str) -> AnchorEntry | None:
    """Return the entry in force, or None where no model was ever promoted."""
    return next(reversed(in_force(workspace_uri, registered_model)), None)


def append(workspace_uri: str, entry: AnchorEntry) -> AnchorEntry:
    """Add an entry. One of the same kind by the same cycle, or of the same time, is added once."""
    for known in in_force(workspace_uri, entry.registered_model):
        if (known.kind, known.set_at) == (entry.kind, entry.set_at):
            return known
        if entry.run_uri is not None and (known.kind, known.run_uri) == (entry.kind, entry.run_uri):
            return known
    folder = _folder(workspace_uri, entry.registered_model)
    earlier = map(_NAME.fullmatch, _names(workspace_uri, entry.registered_model))
    times = [datetime.strptime(name[1], _TIME).replace(tzinfo=UTC) for name in earlier if name]
    place = max([entry.set_at.astimezone(UTC), *(at + timedelta(microseconds=1) for at in times)])
    name = f"{place:{_TIME}}-{entry.kind}-{entry.fingerprint()[:8]}.json"
    storage.write_model(storage.join(folder, name), entry)
    return entry


def _names(workspace_uri: str, registered_model: str) -> list[str]:
    """Return the names of the entries' files, in order."""
    # A name that begins with a full stop is that of a file which was never finished.
    names = storage.list_names(_folder(workspace_uri, registered_model))
    return fnmatch.filter(names, "[!.]*.json")


def state_of_record(workspace_uri: str, registered_model: str) -> str:
    """Return what tells whether anything was recorded since; '' where nothing ever was."""
    known = present(workspace_uri, registered_model)
    return known.fingerprint() if known else ""


def accept(workspace_uri: str, promotion: HistoryEntry, over: str) -> None:
    """Record the recipe of the cycle that promoted as the accepted one, once; under the lock.

    What a person or a rollback has recorded since the promotion was begun is left as it is.

    Args:
        workspace_uri: The workspace.
        promotion: A cycle's move.
        over: `state_of_record` of when it was begun.
    """
    name, run_uri = promotion.model.name, promotion.run_uri
    assert run_uri is not None  # A cycle promotes; what a person promotes is accepted by a person.
    entries = in_force(workspace_uri, name)
    if any((each.kind, each.run_uri) == ("promotion", run_uri) for each in entries):
        return
    if state_of_record(workspace_uri, name) != over:
        log.warning("the accepted recipe was changed meanwhile (%s); it stays", entries[-1].reason)
        return
    try:
        recipe = recipe_of_cycle(run_uri)
    except ConfigurationError as error:
        # Later challengers are then held to the older recipe, which is the safe side.
        log.warning("the recipe of %s was not accepted: %s", promotion.model.label, error)
        return
    entry = AnchorEntry(
        set_at=promotion.moved_at,
        kind="promotion",
        registered_model=name,
        recipe=recipe,
        held=entries[-1].held if entries else (),
        run_uri=run_uri,
        reason=promotion.reason,
    )
    append(workspace_uri, entry)


def recipe_of(run: ResolvedRun) -> Recipe:
    """Return the recipe of a cycle."""
    config = run.config.model_dump(mode="json")
    return Recipe(config=config, code_digest=run.code_digest, run_uri=run.run_uri)


def recipe_of_cycle(run_uri: str) -> Recipe:
    """Return the recipe of a cycle, from its folder.

    Raises:
        ConfigurationError: the folder is gone or cannot be read.
    """
    uri = manifest_uri(run_uri, "resolve_run")
    try:
        run = storage.read_model(uri, StageRecord).artifact
        found = {"config": run["config"], "code_digest": run["code_digest"], "run_uri": run_uri}
        return Recipe.model_validate(found)
    except TransientStorageError:
        raise  # It may be read in a minute.
    except (FileNotFoundError, HomefeedError, KeyError, ValidationError) as error:
        raise ConfigurationError(
            f"{uri} does not say what the cycle's recipe is ({type(error).__name__} {error}); "
            f"expected the manifest of the cycle; put it back, or name the accepted recipe: "
            f"`homefeed anchor set --recipe NAME --reason ...`"
        ) from None


def recipe_of_model(workspace_uri: str, model: ModelRef, tags: Mapping[str, str]) -> Recipe:
    """Return the recipe that made a registered model, from the cycle that its tags name.

    Args:
        workspace_uri: The workspace.
        model: The model, for the message.
        tags: Of its version in the registry.

    Raises:
        ConfigurationError: that cycle's folder is gone or cannot be read.
    """
    run_id = tags.get("homefeed_run_id", "")
    run_uri = storage.join(workspace_uri, "runs", run_id or "(unnamed)")
    try:
        artifact = storage.read_model(manifest_uri(run_uri, "resolve_run"), StageRecord).artifact
        # A fresh anchor was made by the recipe that was accepted when its cycle began.
        is_anchor = tags.get("homefeed_side") == "anchor"
        config = dict(artifact["standing"]["anchor"] if is_anchor else artifact["config"])
    except TransientStorageError:
        raise  # It may be read in a minute.
    except (FileNotFoundError, HomefeedError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"the recipe of {model.label} cannot be read from "
            f"{manifest_uri(run_uri, 'resolve_run')}: {type(error).__name__} {error}; expected the "
            f"manifest of the cycle that trained it; put it back, or name the accepted recipe: "
            f"`homefeed anchor set --recipe NAME --reason ...`"
        ) from None
    return Recipe(config=config, code_digest=tags.get("code_digest", ""), run_uri=run_uri)


def after_rollback(
    workspace_uri: str,
    target: Recipe | None,
    away: tuple[ModelRef, Recipe | None],
    now: datetime,
    reason: str,
) -> AnchorEntry:
    """Record that the anchor is the recipe of the model gone back to, and hold the other one.

    Args:
        workspace_uri: The workspace.
        target: Recipe of the model that serves again; None where it cannot be read.
        away: The model that is taken down, and its recipe or None.
        now: The time of the rollback.
        reason: What the person gave.
    """
    model, its_recipe = away
    serves, rejected = digest_or_nothing(target), digest_or_nothing(its_recipe)
    # What serves again is accepted again, whatever was said of it before.
    held = [each for each in held_in(workspace_uri, model.name) if each.digest != serves]
    if its_recipe is not None and rejected and rejected != serves:
        why = f"{model.label} was rolled back at {now:%Y-%m-%d %H:%M} UTC: {reason}"
        held.append(HeldRecipe(recipe=its_recipe, reason=why))
    entry = AnchorEntry(
        set_at=now,
        kind="rollback",
        registered_model=model.name,
        recipe=target,
        held=tuple(held),
        run_uri=None,
        reason=reason,
    )
    return append(workspace_uri, entry)


def take_back(workspace_uri: str, begun: HistoryEntry, now: datetime, reason: str) -> None:
    """Record that a move which was begun did not happen; the caller holds the lock.

    Nothing is done where it had said nothing of recipes yet, or where a person has said something
    else since. This is for people, and for former versions of this project: what counts is the
    outcome in the history, which the caller writes next.
    """
    entries = in_force(workspace_uri, begun.model.name)
    said = (begun.kind, begun.moved_at)
    if not entries or (entries[-1].kind, entries[-1].set_at) != said:
        return
    before = entries[-2] if len(entries) > 1 else None
    changes = {"set_at": now, "kind": "taken_back", "run_uri": None, "reason": reason}
    state = {"recipe": before.recipe if before else None, "held": before.held if before else ()}
    append(workspace_uri, entries[-1].model_copy(update=changes | state))


def set_by_hand(
    workspace_uri: str, registered_model: str, recipe: Recipe, now: datetime, reason: str
) -> AnchorEntry:
    """Make a recipe the accepted one because a person says so; it is no longer on hold.

    Raises:
        ConfigurationError: there is no reason, or the recipe cannot be read.
    """
    _require_reason(reason)
    digest = recipe.parse().recipe_digest
    with promotion_lock(workspace_uri):
        held = held_in(workspace_uri, registered_model)
        entry = AnchorEntry(
            set_at=now,
            kind="by_hand",
            registered_model=registered_model,
            recipe=recipe,
            held=tuple(each for each in held if each.digest != digest),
            run_uri=None,
            reason=reason,
        )
        return append(workspace_uri, entry)


def release(
    workspace_uri: str, registered_model: str, digest: str, now: datetime, reason: str
) -> AnchorEntry:
    """Let a recipe that was rolled back be promoted again.

    Args:
        workspace_uri: The workspace.
        registered_model: Its name in the registry.
        digest: The recipe's digest, or its first digits.
        now: The time.
        reason: Why, in a sentence.

    Raises:
        ConfigurationError: there is no reason, or no such recipe is on hold.
    """
    _require_reason(reason)
    with promotion_lock(workspace_uri):
        known = present(workspace_uri, registered_model)
        held = known.held if known else ()
        found = {each.digest for each in held if digest and each.digest.startswith(digest)}
        if known is None or len(found) != 1:
            raise ConfigurationError(
                f"recipe {digest!r} is not on hold; expected the first digits of one that is: "
                f"{', '.join(each.digest[:12] for each in held) or 'no recipe is'}"
            )
        return _let_go(workspace_uri, known, found, now, reason)


def release_forced(workspace_uri: str, run: ResolvedRun, now: datetime, reason: str) -> None:
    """Release a run's recipe, whose model a person promotes by hand; the caller has the lock."""
    known = present(workspace_uri, run.registered_model)
    digest = run.config.recipe_digest
    if known is not None and any(each.digest == digest for each in known.held):
        _let_go(workspace_uri, known, {digest}, now, reason)


def _let_go(
    workspace_uri: str, known: AnchorEntry, digests: set[str], now: datetime, reason: str
) -> AnchorEntry:
    left = tuple(each for each in known.held if each.digest not in digests)
    changes = {"set_at": now, "kind": "release", "held": left, "run_uri": None, "reason": reason}
    return append(workspace_uri, known.model_copy(update=changes))


def held_in(workspace_uri: str, registered_model: str) -> list[HeldRecipe]:
    """Return the recipes that are on hold now."""
    known = present(workspace_uri, registered_model)
    return list(known.held) if known else []


def digest_or_nothing(recipe: Recipe | None) -> str:
    """Return a recipe's digest; '' where it cannot be read, for it cannot be trained either."""
    try:
        return recipe.parse().recipe_digest if recipe else ""
    except ConfigurationError:
        return ""


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise ConfigurationError("--reason is empty; expected a sentence for the record")


def _folder(workspace_uri: str, registered_model: str) -> str:
    return storage.join(workspace_uri, "anchors", registered_model)
