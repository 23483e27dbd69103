"""Append-only record of the anchor: the last accepted recipe, and which recipes are on hold.

    <workspace>/anchors/<registered model>/<time>.json    an AnchorEntry, never rewritten

There is one file for each change, and the newest says what holds. The *anchor* is the recipe that a
challenger of another recipe is held against: `train_anchor` makes it fresh in such a cycle. Not for
deciding when it moves (`validation.model_gate.policy.rules`, and people by `homefeed anchor`).
"""

import fnmatch
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef, ResolvedRun, StageRecord
from pipelines.contracts.base import Frozen
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, HomefeedError, TransientStorageError
from pipelines.contracts.run_layout import manifest_uri
from pipelines.registry.history import promotion_lock

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

    set_at: AwareDatetime
    kind: Kind
    registered_model: str
    recipe: Recipe | None = Field(description="The anchor; None where it could not be read.")
    held: tuple[HeldRecipe, ...] = Field(default=(), description="Recipes on hold.")
    run_uri: str | None = Field(description="Cycle that asked for it; None: a person.")
    reason: str = Field(description="One sentence.")


def read(workspace_uri: str, registered_model: str) -> list[AnchorEntry]:
    """Return every entry of a registered model, oldest first."""
    folder = _folder(workspace_uri, registered_model)
    # A name that begins with a full stop is that of a file which was never finished.
    names = fnmatch.filter(storage.list_names(folder), "[!.]*.json")
    repair = "put a sound copy back, or delete it and see `homefeed anchor show`"
    return [storage.read_model(storage.join(folder, n), AnchorEntry, repair) for n in names]


def present(workspace_uri: str, registered_model: str) -> AnchorEntry | None:
    """Return the entry in force, or None where no model was ever promoted."""
    return next(reversed(read(workspace_uri, registered_model)), None)


def append(workspace_uri: str, entry: AnchorEntry) -> AnchorEntry:
    """Add an entry. One of the same kind by the same cycle, or of the same time, is added once."""
    for known in read(workspace_uri, entry.registered_model):
        if (known.kind, known.set_at) == (entry.kind, entry.set_at):
            return known
        if entry.run_uri is not None and (known.kind, known.run_uri) == (entry.kind, entry.run_uri):
            return known
    folder = _folder(workspace_uri, entry.registered_model)
    name = f"{entry.set_at:%Y%m%dT%H%M%S%fZ}-{entry.kind}-{entry.fingerprint()[:8]}.json"
    storage.write_model(storage.join(folder, name), entry)
    return entry


def recipe_of(run: ResolvedRun) -> Recipe:
    """Return the recipe of a cycle."""
    config = run.config.model_dump(mode="json")
    return Recipe(config=config, code_digest=run.code_digest, run_uri=run.run_uri)


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


def take_back_rollback(
    workspace_uri: str, registered_model: str, begun_at: datetime, now: datetime, reason: str
) -> None:
    """Record that a rollback which was begun did not happen; the caller holds the lock.

    Nothing is done where it had said nothing of recipes yet, or where a person has said something
    else since.
    """
    entries = read(workspace_uri, registered_model)
    if not entries or (entries[-1].kind, entries[-1].set_at) != ("rollback", begun_at):
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
