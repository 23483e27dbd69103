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
from pipelines.registry.history import History, HistoryEntry, RecipeChange
from pipelines.registry.recipes_on_record import (
    HeldRecipe,
    Recipe,
    Recipes,
    recipe_of,
    recipe_of_model,
)
from pipelines.registry.reconcile import (
    State,
    follow,
    require_not_deleted,
    require_own,
    require_unaltered,
    require_workspace,
    scratch_for_models,
)
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


def _decide(
    client: "MlflowClient", place: str, known: History, entry: HistoryEntry, recipes: Recipes
) -> HistoryEntry:
    """Create the entry of a move whose model was looked at; let the alias follow; return it."""
    history.create(place, entry.model.name, known, entry, recipes)
    follow(client, place, entry.model.name, is_checked=True)
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
    model, place = challenger.model, run.workspace_uri
    require_reason(reason)

    def decide() -> HistoryEntry:
        state = follow(client, place, model.name)
        known, last = state.history, state.history.last
        if state.serves == model.version:
            if last is not None and last.kind == "forced" and last.model == model:
                return last
            raise ConfigurationError(f"{model.label} is the champion already; nothing was moved")
        require_unaltered(client, model)
        require_own(state)
        entry = HistoryEntry(
            moved_at=now,
            kind="forced",
            model=model,
            previous=state.served,
            run_uri=None,
            recipe=run.config.recipe_ref,
            reason=reason,
        )
        recipes = known.recipes.without(run.config.recipe_digest)
        if recipes.accepted is None:
            recipes = recipes.model_copy(update={"accepted": recipe_of(run)})
        return _decide(client, place, known, entry, recipes)

    return decided(place, decide)


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
        known = state.history
        present = registry.read_champion(client, name)
        if present is None:
            raise ConfigurationError(f"{name} has no champion; there is nothing to roll back")
        if _is_back_already(known, present, to_version, from_version):
            return known.entries[-1][1]
        model = registry.read_version(client, name, to_version or _version_before(known, present))
        if model.version == present.version:
            raise ConfigurationError(f"{model.label} is the champion already; name another version")
        _require_fit(client, model, known)
        require_own(state)
        entry = HistoryEntry(
            moved_at=now,
            kind="rollback",
            model=model,
            previous=present,
            run_uri=None,
            reason=reason,
        )
        return _decide(client, place, known, entry, _recipes_after(client, place, known, entry))

    return decided(place, decide)


def _is_back_already(
    known: History, present: ModelRef, target: str | None, away: str | None
) -> bool:
    """Return whether the last move was the rollback that is asked for.

    Raises:
        ConfigurationError: what is to be taken down does not serve, and was not taken down last.
    """
    last = known.last
    is_last = last is not None and last.model.version == present.version
    if is_last and last is not None and last.kind == "rollback" and last.previous is not None:
        is_down = away in (None, last.previous.version)
        if is_down and target in (None, last.model.version):
            return True
    if away not in (None, present.version):
        raise ConfigurationError(
            f"{present.label} serves, and not v{away}, which was to be taken down; nothing was "
            f"moved; see `homefeed history`, and leave out --from-version to go back all the same"
        )
    return False


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
        raise DataContractError(
            f"{model.label} is on record with bundle {recorded[-1].bundle_digest[:12]} and model "
            f"{recorded[-1].model_digest[:12] or 'unknown'}; found bundle "
            f"{model.bundle_digest[:12]} and model {model.model_digest[:12] or 'unknown'} in its "
            f"tags; expected the same, so the champion stays; name another version with "
            f"--to-version"
        )
    require_not_deleted(client, model)
    with scratch_for_models() as scratch:
        try:
            load_bundle(registry.download_bundle(client, model, scratch))
        except DataContractError as error:
            raise DataContractError(
                f"{model.label} cannot serve, so the champion stays: {error}; name another version "
                f"with --to-version"
            ) from error


def _recipes_after(
    client: "MlflowClient", workspace_uri: str, known: History, back: HistoryEntry
) -> Recipes:
    """Return the recipes after a rollback: accepted what serves again, on hold what was taken down.

    They are compared by the digests in the history too, for a cycle's folder may be deleted by now.
    What cannot be read is not waited for.
    """
    assert back.previous is not None  # A rollback takes a champion down.
    serves = recipe_on_record(client, workspace_uri, known, back.model)
    away = recipe_on_record(client, workspace_uri, known, back.previous)
    refs = [_ref_of(known, model) for model in (back.model, back.previous)]
    is_same = refs[0] is not None and refs[1] is not None and refs[0].digest == refs[1].digest
    if serves is None and is_same:
        serves = away
    digest = serves.digest if serves else ""
    # What serves again is accepted again, whatever was said of it before.
    held = list(known.recipes.without(digest).held)
    if away is not None and away.digest not in ("", digest) and not is_same:
        at = f"{back.moved_at:%Y-%m-%d %H:%M} UTC"
        why = f"{back.previous.label} was rolled back at {at}: {back.reason}"
        held.append(HeldRecipe(recipe=away, reason=why))
    return Recipes(accepted=serves, held=tuple(held))


def recipe_on_record(
    client: "MlflowClient", workspace_uri: str, known: History, model: ModelRef
) -> Recipe | None:
    """Return what made a model: by its cycle's folder, or by the history where that is gone."""
    try:
        tags = registry.read_tags(client, model)
        return recipe_of_model(workspace_uri, model, tags)
    except ConfigurationError as error:
        log.warning("%s", error)
    ref = _ref_of(known, model)
    for each in reversed(known.placed):
        recipes = each.entry.recipes
        for recipe in (recipes.accepted, *(held.recipe for held in recipes.held)):
            if ref is not None and recipe is not None and recipe.digest == ref.digest:
                return recipe
    return None


def _ref_of(known: History, model: ModelRef) -> RecipeRef | None:
    """Return the recipe by which the history says that a model was promoted, or None."""
    refs = (each.recipe for _, each in known.entries if each.model.version == model.version)
    return next((ref for ref in refs if ref is not None), None)


def _version_before(known: History, present: ModelRef) -> str:
    """Return the version that served before the present one came.

    Only what the history says has served counts: what a hand had put behind the alias for a while
    was never accepted. The move by which the present one came back by a rollback is passed over.
    """
    entries = [entry for _, entry in known.entries]
    for place in range(len(entries) - 1, -1, -1):
        entry = entries[place]
        before = entries[place - 1].model if place else entry.previous
        has_come = entry.model.version == present.version and entry.kind != "rollback"
        if has_come and before is not None and before.version != present.version:
            return before.version
    if known.is_newest_damaged and known.last is not None:
        return known.last.model.version
    raise ConfigurationError(
        f"the history knows no champion before {present.label}; name one with --to-version"
    )


def accept_recipe(
    workspace_uri: str, name: str, recipe: Recipe, now: datetime, reason: str
) -> Recipes:
    """Make a recipe the accepted one because a person says so; it is no longer on hold.

    Raises:
        ConfigurationError: there is no reason, or the recipe cannot be read.
    """
    require_reason(reason)
    digest = recipe.parse().recipe_digest

    def decide() -> Recipes:
        known = history.load(workspace_uri, name)
        wanted = known.recipes.without(digest).model_copy(update={"accepted": recipe})
        before = known.recipes.accepted
        asked = (digest, recipe.code_digest)
        is_new = before is None or (before.digest, before.code_digest) != asked
        if is_new or wanted.held != known.recipes.held:
            change = RecipeChange(set_at=now, kind="by_hand", reason=reason)
            history.create(workspace_uri, name, known, change, wanted)
        return wanted

    return decided(workspace_uri, decide)


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
    require_reason(reason)

    def decide() -> Recipes:
        known = history.load(workspace_uri, name)
        held = {each.digest for each in known.recipes.held}
        found = {each for each in held if digest and each.startswith(digest)}
        if len(found) == 1:
            change = RecipeChange(set_at=now, kind="release", reason=reason)
            wanted = known.recipes.without(found.pop())
            return history.create(workspace_uri, name, known, change, wanted).recipes
        once = {each.digest for placed in known.placed for each in placed.entry.recipes.held}
        if digest and not found and any(each.startswith(digest) for each in once):
            return known.recipes  # It was released: the command is given again.
        raise ConfigurationError(
            f"recipe {digest!r} is not on hold; expected the first digits of one that is: "
            f"{', '.join(each[:12] for each in sorted(held)) or 'no recipe is'}"
        )

    return decided(workspace_uri, decide)


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
    if pending is not None and model is None:
        steps.append(f"let the alias follow the {pending.kind} of {pending.model.label}")
    if model is not None:
        if model.version != state.serves:
            require_not_deleted(client, model)
        does = "point the alias at" if model.version != state.serves else "record that"
        tail = "" if model.version != state.serves else " serves"
        steps.append(f"{does} {model.label}{tail}")
    steps += [f"take note that {uri} is damaged or gone" for uri in state.history.damaged]
    if _is_unkept(state):
        was = state.keeper or "none"
        steps.append(f"name {state.workspace_uri} as the history's keeper (was {was})")
    return Plan(tuple(steps), model)


def _is_unkept(state: State) -> bool:
    """Return whether the registry has to be told that this workspace keeps the history."""
    return state.is_kept_elsewhere or (state.served is not None and not state.keeper)


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
        entry = HistoryEntry(
            moved_at=now,
            kind="outside",
            model=model,
            # Where the alias is moved, it comes from where it was found.
            previous=serving.model if serving and model.version == state.serves else state.served,
            run_uri=None,
            reason=reason,
        )
        recipes = known.recipes
        if recipes.accepted is None:
            found = recipe_on_record(client, place, known, model)
            recipes = recipes.model_copy(update={"accepted": found})
        damaged = tuple(history.name_of(uri) for uri in known.damaged)
        history.create(place, name, known, entry, recipes, damaged)
    follow(client, place, name)
    return entry


def _model_to_serve(
    client: "MlflowClient",
    state: State,
    restores_alias: bool,
    to_version: str | None,
) -> ModelRef | None:
    """Return what shall serve and be recorded; None where the log's word stands."""
    recorded = state.history.last.model if state.history.last else None
    agree = not replace(state, keeper="").disagreement()
    is_damaged = state.history.is_newest_damaged
    if to_version is not None:
        stands = agree and not is_damaged and to_version == state.serves == state.recorded
        return None if stands else registry.read_version(client, state.name, to_version)
    if agree and (not is_damaged or state.serves == state.recorded):
        return None
    if not restores_alias:
        if state.served is None:
            raise ConfigurationError(
                f"{state.name} has no champion in the registry, so none can be recorded; expected "
                f"one; point the alias at what the history names with "
                f"`homefeed history repair --restore-alias`, or at another version with "
                f"`homefeed history repair --to-version N`; either shows first what it would do"
            )
        return registry.read_version(client, state.name, state.served.version)
    if recorded is not None and recorded.version == state.serves:
        raise ConfigurationError(
            f"--restore-alias is given, and the alias names what the history does: "
            f"{state.disagreement()}; put its tags and files back; or leave --restore-alias out, "
            f"which records it as it is; or name another version with --to-version N"
        )
    if recorded is None:
        raise ConfigurationError(
            f"the history of {state.name} knows no champion that the alias could be pointed at; "
            f"expected at least one entry; leave out --restore-alias"
        )
    try:
        return registry.read_version(client, state.name, recorded.version)
    except TrackingEntryMissingError as error:
        raise TrackingEntryMissingError(
            f"{error}; the history says that {recorded.label} serves; name another version with "
            f"--to-version N; where the registry is a new one, begin a new history: set "
            f"HOMEFEED_WORKSPACE or HOMEFEED_REGISTERED_MODEL"
        ) from error
