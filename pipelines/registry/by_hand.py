"""What people do: roll back, overrule a verdict, name or release recipes, repair the record.

A command that lost its number to somebody else decides anew on what is so then: only a person's
move may. One that was killed, or whose answer was lost, is finished by the same command, which
finds its entry and writes nothing twice. Not for what a cycle does (`promotion`).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, ModelRef, ResolvedRun
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    TrackingEntryMissingError,
)
from pipelines.registry import history, registry
from pipelines.registry.history import (
    HeldRecipe,
    History,
    HistoryEntry,
    Recipe,
    RecipeChange,
    Recipes,
    recipe_of,
    recipe_of_model,
)
from pipelines.registry.reconcile import State, follow, require_own, require_workspace
from pipelines.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
_NUM_DECISIONS = 5
Decided = TypeVar("Decided")


def require_reason(reason: str) -> None:
    """Refuse a command of a person that says no reason.

    Raises:
        ConfigurationError: the reason is empty.
    """
    if not reason.strip():
        raise ConfigurationError("--reason is empty; expected a sentence for the record")


def decided(workspace_uri: str, decide: Callable[[], Decided]) -> Decided:
    """Let a person's command decide, and decide anew where somebody else was quicker."""
    with history.promotion_lock(workspace_uri):
        for _ in range(_NUM_DECISIONS - 1):
            try:
                return decide()
            except history.LostTheNumberError as error:
                log.info("%s; it is decided anew", error)
        return decide()


def _move(
    client: "MlflowClient", state: State, entry: HistoryEntry, recipes: Recipes
) -> HistoryEntry:
    """Create the entry of a move whose model was looked at; let the alias follow; return it."""
    require_own(state)
    history.create(state.workspace_uri, state.name, state.history, entry, recipes)
    follow(client, state.workspace_uri, state.name, is_checked=True)
    return entry


def force(
    client: "MlflowClient", run: ResolvedRun, challenger: Challenger, now: datetime, reason: str
) -> HistoryEntry:
    """Make a run's challenger champion in spite of its verdict, because a person says so.

    Args:
        client: Client of `run.tracking_uri`.
        run: The cycle.
        challenger: What it trained.
        now: The time of the move.
        reason: Why, in a sentence, for the history and the alert.

    Returns:
        The move, or the earlier one by which the challenger was promoted by hand already.

    Raises:
        ConfigurationError: there is no reason, or the challenger serves already.
        PromotionRefusedError: the registry's version is not what the cycle trained.
        RecordDisagreesError: the alias is not where the history says.
    """
    model = challenger.model
    require_reason(reason)

    def decide() -> HistoryEntry:
        state = follow(client, run.workspace_uri, model.name)
        last, recipes = state.history.last, state.history.recipes
        if state.serves == model.version:
            if last is not None and last.kind == "forced" and last.model == model:
                return last
            raise ConfigurationError(f"{model.label} is the champion already; nothing was moved")
        registry.require_unaltered(client, model)
        entry = HistoryEntry(
            moved_at=now,
            kind="forced",
            model=model,
            previous=state.served,
            recipe=run.config.recipe_ref,
            reason=reason,
        )
        recipes = recipes.without(run.config.recipe_digest)
        accepted = recipes.accepted or recipe_of(run)
        return _move(client, state, entry, recipes.model_copy(update={"accepted": accepted}))

    return decided(run.workspace_uri, decide)


def rollback(
    client: "MlflowClient",
    settings: Settings,
    to_version: str | None,
    now: datetime,
    reason: str,
    from_version: str | None = None,
) -> HistoryEntry:
    """Point `champion` back at an earlier version: the one before the present, or a named one.

    The version is fetched, and must give its golden rows their scores, before anything is decided.
    Where the last move was a rollback already, nothing is moved unless a version is named: a
    command that is given twice, because its answer was lost, must not walk from version to version.
    The recipe of what serves again is accepted again, and the other one is on hold.

    Args:
        client: Client of the tracking server.
        settings: Where workspace and registry are.
        to_version: What shall serve; None: what served before the present champion.
        now: The time.
        reason: Why, in a sentence.
        from_version: What is to be taken down; another version that serves is left alone.

    Returns:
        The move, or the earlier one by which the champion was taken back already.

    Raises:
        ConfigurationError: there is nothing to go back to, or the version serves already.
        DataContractError: the version's files are missing, altered, marked as deleted in MLflow, or
            do not score as they did.
        RecordDisagreesError: the alias is not where the history says.
        TrackingUnavailableError: MLflow does not answer; the message says what was moved.
    """
    place, name = storage.to_uri(settings.workspace_location), settings.registered_model
    require_workspace(place)

    def decide() -> HistoryEntry:
        state = follow(client, place, name)
        if state.served is None:
            raise ConfigurationError(f"{name} has no champion; there is nothing to roll back")
        if (done := _back_already(state, state.served, to_version, from_version)) is not None:
            return done
        present, known = state.served, state.history
        model = registry.read_version(client, name, to_version or _version_before(known, present))
        if model.version == present.version:
            raise ConfigurationError(f"{model.label} is the champion already; name another version")
        _require_fit(client, model, known)
        entry = HistoryEntry(
            moved_at=now, kind="rollback", model=model, previous=present, reason=reason
        )
        return _move(client, state, entry, _recipes_after(client, state, entry, present))

    return decided(place, decide)


def _back_already(
    state: State, present: ModelRef, target: str | None, away: str | None
) -> HistoryEntry | None:
    """Return the last move if it was the rollback that is asked for.

    Raises:
        ConfigurationError: what is to be taken down does not serve, and was not taken down last.
    """
    last = state.history.last
    if last is not None and last.kind == "rollback" and last.previous is not None:
        is_asked = away in (None, last.previous.version) and target in (None, present.version)
        if is_asked and last.model.version == present.version:
            return last
    if away not in (None, present.version):
        raise ConfigurationError(
            f"{present.label} serves, and not v{away}, which was to be taken down; nothing was "
            f"moved; see `homefeed history`, and leave out --from-version to go back all the same"
        )
    return None


def _version_before(known: History, present: ModelRef) -> str:
    """Return the version that served before the present one came.

    Only what the history says has served counts: what a hand had put behind the alias for a while
    was never accepted. The move by which the present one came back by a rollback is passed over.
    """
    moves = [entry for _, entry in known.entries]
    for place, move in reversed(list(enumerate(moves))):
        before = moves[place - 1].model if place else move.previous
        has_come = move.model.version == present.version and move.kind != "rollback"
        if has_come and before is not None and before.version != present.version:
            return before.version
    if known.is_newest_damaged and known.last is not None:
        return known.last.model.version
    raise ConfigurationError(
        f"the history knows no champion before {present.label}; name one with --to-version"
    )


def _require_fit(client: "MlflowClient", model: ModelRef, known: History) -> None:
    """Refuse to go back to a version that was altered or deleted since, or that cannot serve.

    Its files are compared with its tags, so whoever may alter both could bring back anything: the
    tags are compared with what the history keeps of the version.

    Raises:
        DataContractError: it is one of these; nothing was moved.
    """
    from training.bundle.files import load_bundle

    recorded = [each.model for _, each in known.entries if each.model.version == model.version]
    # What was no version of this project when it was recorded has no digests.
    if recorded and recorded[-1].bundle_digest and recorded[-1] != model:
        then, now = (
            f"bundle {each.bundle_digest[:12]} and model {each.model_digest[:12] or 'unknown'}"
            for each in (recorded[-1], model)
        )
        raise DataContractError(
            f"{model.label} is on record with {then}; found {now} in its tags; expected the same, "
            f"so the champion stays; name another version with --to-version"
        )
    registry.require_not_deleted(client, model)
    with registry.scratch_for_models() as scratch:
        try:
            load_bundle(registry.download_bundle(client, model, scratch))
        except DataContractError as error:
            raise DataContractError(
                f"{model.label} cannot serve, so the champion stays: {error}; name another version "
                f"with --to-version"
            ) from error


def _recipes_after(
    client: "MlflowClient", state: State, back: HistoryEntry, down: ModelRef
) -> Recipes:
    """Return the recipes after a rollback: accepted what serves again, on hold what was taken down.

    What cannot be read is not waited for.
    """
    serves, away = (recipe_on_record(client, state, model) for model in (back.model, down))
    digest = serves.digest if serves else ""
    # What serves again is accepted again, whatever was said of it before.
    held = list(state.history.recipes.without(digest).held)
    if away is not None and away.digest not in ("", digest):
        at = f"{back.moved_at:%Y-%m-%d %H:%M} UTC"
        why = f"{down.label} was rolled back at {at}: {back.reason}"
        held.append(HeldRecipe(recipe=away, reason=why))
    return Recipes(accepted=serves, held=tuple(held))


def recipe_on_record(client: "MlflowClient", state: State, model: ModelRef) -> Recipe | None:
    """Return what made a model: by its cycle's folder, or by the history where that is gone."""
    try:
        return recipe_of_model(state.workspace_uri, model, registry.read_tags(client, model))
    except ConfigurationError as error:
        log.warning("%s", error)
    known = state.history
    refs = [each.recipe for _, each in known.entries if each.model.version == model.version]
    ref: RecipeRef | None = next((each for each in refs if each is not None), None)
    for each in reversed(known.placed):
        recipes = each.entry.recipes
        for recipe in (recipes.accepted, *(held.recipe for held in recipes.held)):
            if ref is not None and recipe is not None and recipe.digest == ref.digest:
                return recipe
    return None


def _change_recipes(
    place: str, name: str, change: RecipeChange, choose: Callable[[History], Recipes]
) -> Recipes:
    """Create the entry of a change of recipes, unless they are so already; return them."""
    require_reason(change.reason)

    def decide() -> Recipes:
        known = history.load(place, name)
        if (wanted := choose(known)) != known.recipes:
            history.create(place, name, known, change, wanted)
        return wanted

    return decided(place, decide)


def accept_recipe(
    workspace_uri: str, name: str, recipe: Recipe, now: datetime, reason: str
) -> Recipes:
    """Make a recipe the accepted one because a person says so; it is no longer on hold.

    Raises:
        ConfigurationError: there is no reason, or the recipe cannot be read.
    """
    digest = recipe.parse().recipe_digest

    def choose(known: History) -> Recipes:
        before = known.recipes.accepted
        is_same = before and (before.digest, before.code_digest) == (digest, recipe.code_digest)
        accepted = before if is_same else recipe
        return known.recipes.without(digest).model_copy(update={"accepted": accepted})

    change = RecipeChange(set_at=now, kind="by_hand", reason=reason)
    return _change_recipes(workspace_uri, name, change, choose)


def release_recipe(
    workspace_uri: str, name: str, digest: str, now: datetime, reason: str
) -> Recipes:
    """Let a recipe that was rolled back be promoted again.

    Args:
        workspace_uri: The workspace.
        name: The registered model.
        digest: The recipe's digest, or its first digits.
        now: The time.
        reason: Why, in a sentence.

    Raises:
        ConfigurationError: there is no reason, or no such recipe is or was on hold.
    """

    def choose(known: History) -> Recipes:
        held = {each.digest for each in known.recipes.held}
        once = {each.digest for placed in known.placed for each in placed.entry.recipes.held}
        found, before = (
            {d for d in each if digest and d.startswith(digest)} for each in (held, once)
        )
        if len(found) > 1 or not before:
            raise ConfigurationError(
                f"recipe {digest!r} is not on hold; expected the first digits of one that is: "
                f"{', '.join(each[:12] for each in sorted(held)) or 'no recipe is'}"
            )
        # Where none is held any more, it was released: the command is given again.
        return known.recipes.without(found.pop()) if found else known.recipes

    change = RecipeChange(set_at=now, kind="release", reason=reason)
    return _change_recipes(workspace_uri, name, change, choose)


@dataclass(frozen=True)
class Plan:
    """What a repair does: sentences for people, and the model that is to serve; None as it is."""

    steps: tuple[str, ...]
    model: ModelRef | None


def plan(
    client: "MlflowClient", state: State, restores_alias: bool, to_version: str | None = None
) -> Plan:
    """Return what `repair` would do; nothing where all agrees.

    Args:
        client: Client of the tracking server.
        state: What was found.
        restores_alias: The history is right and the alias is moved; otherwise the other way round.
        to_version: A version that shall serve, whatever both say.

    Raises:
        ConfigurationError: nothing serves that could be recorded, or nothing is recorded that the
            alias could be pointed at, or the alias names it and the version itself was altered.
        TrackingEntryMissingError: the registry has no such version any more.
        DataContractError: the alias would be pointed at a version that is marked as deleted.
    """
    steps: list[str] = []
    pending = state.history.pending
    model = _model_to_serve(client, state, restores_alias, to_version)
    if model is None and pending is not None:
        steps.append(f"let the alias follow the {pending.kind} of {pending.model.label}")
    elif model is not None and model.version == state.serves:
        steps.append(f"record that {model.label} serves")
    elif model is not None:
        registry.require_not_deleted(client, model)
        steps.append(f"point the alias at {model.label}")
    steps += [f"take note that {uri} is damaged or gone" for uri in state.history.damaged]
    if _is_unkept(state):
        was = state.keeper or "none"
        steps.append(f"name {state.workspace_uri} as the history's keeper (was {was})")
    return Plan(tuple(steps), model)


def _is_unkept(state: State) -> bool:
    """Return whether the registry has to be told that this workspace keeps the history."""
    return state.is_kept_elsewhere or (state.served is not None and not state.keeper)


def _model_to_serve(
    client: "MlflowClient", state: State, restores_alias: bool, to_version: str | None
) -> ModelRef | None:
    """Return what shall serve and be recorded; None where the log's word stands."""
    is_sound, are_same = not state.history.is_newest_damaged, state.serves == state.recorded
    is_asked = (is_sound or are_same) if to_version is None else (is_sound and are_same)
    if is_asked and to_version in (None, state.serves):
        if not replace(state, keeper="").disagreement():
            return None
    wanted = to_version or (state.recorded if restores_alias else state.serves)
    if wanted is None and not restores_alias:
        raise ConfigurationError(
            f"{state.name} has no champion in the registry, so none can be recorded; expected "
            f"one; point the alias at what the history names with "
            f"`homefeed history repair --restore-alias`, or at another version with "
            f"`homefeed history repair --to-version N`; either shows first what it would do"
        )
    if wanted is None:
        raise ConfigurationError(
            f"the history of {state.name} knows no champion that the alias could be pointed at; "
            f"expected at least one entry; leave out --restore-alias"
        )
    if restores_alias and to_version is None and are_same:
        raise ConfigurationError(
            f"--restore-alias is given, and the alias names what the history does: "
            f"{state.disagreement()}; put its tags and files back; or leave --restore-alias out, "
            f"which records it as it is; or name another version with --to-version N"
        )
    try:
        return registry.read_version(client, state.name, wanted)
    except TrackingEntryMissingError as error:
        raise TrackingEntryMissingError(
            f"{error}; name a version that is there with --to-version N; where the registry is a "
            f"new one, begin a new history: set HOMEFEED_WORKSPACE or HOMEFEED_REGISTERED_MODEL"
        ) from error


def repair(
    client: "MlflowClient", state: State, wanted: Plan, now: datetime, reason: str
) -> HistoryEntry | None:
    """Carry a plan out; the state is of just now.

    Raises:
        ConfigurationError: there is no reason.
        LostTheNumberError: something was decided since the state was read; look again.
    """
    require_reason(reason)
    place, name, known = state.workspace_uri, state.name, state.history
    if _is_unkept(state):
        registry.name_keeper(client, name, place)
    entry, serving = None, known.last
    model = wanted.model or (state.served if known.damaged else None)
    if model is not None:
        # Where the alias is moved, it comes from where it was found.
        before = serving.model if serving and model.version == state.serves else state.served
        entry = HistoryEntry(
            moved_at=now, kind="outside", model=model, previous=before, reason=reason
        )
        accepted = known.recipes.accepted or recipe_on_record(client, state, model)
        recipes = known.recipes.model_copy(update={"accepted": accepted})
        damaged = tuple(history.name_of(uri) for uri in known.damaged)
        history.create(place, name, known, entry, recipes, damaged)
    follow(client, place, name)
    return entry
