"""Everything that is decided about the champion: what cycles promote, and what people do.

Each looks at alias and history, refuses or creates the next entry of the log, and lets the alias
follow (`pipelines.registry.reconcile`). A cycle's verdict was judged against one entry and may
create the one after it only; it obeys the verdict, and asks only what concerns the record at this
instant. A person's command that lost its number to somebody else decides anew on what is so then.
What was killed, or whose answer was lost, is finished by the same command, which finds its entry
and writes nothing twice. Not for judging.
"""

import logging
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, FreshAnchor, ModelRef, ResolvedRun
from pipelines.contracts.errors import ConfigurationError, PromotionRefusedError
from pipelines.contracts.judgement import Approval, Judgement, Promoted, Promotion
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.contracts.run_layout import approval_uri
from pipelines.registry import history, registry, tracking
from pipelines.registry.history import (
    Entry,
    HeldRecipe,
    History,
    LostTheNumberError,
    Move,
    Recipe,
    Recipes,
    recipe_of,
)
from pipelines.registry.reconcile import (
    State,
    follow,
    look,
    require_newest,
    require_workspace,
    version_of,
)
from pipelines.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
Decided = TypeVar("Decided")


def promote_challenger(
    run: ResolvedRun,
    challenger: Challenger,
    fresh: FreshAnchor,
    judgement: Judgement,
    now: datetime,
) -> Promotion:
    """Make the promoted model champion if the verdict and the run allow it.

    The verdict was judged against the newest entry of the history when the run was resolved, so the
    promotion may create the next entry only. If the process is killed on the way, a second call
    finds the entry, and completes what the first one began.

    Raises:
        PromotionRefusedError: something was decided since the run was resolved, the verdict is
            about another model, or as_of is not newer than the champion's.
        RecordDisagreesError: the alias is not where the history says.
        DataContractError: the model's files or the newest entry of the history were altered.
        TrackingUnavailableError: MLflow does not answer; the message says what was moved.
    """
    verdict, champion, is_promoted = judgement.verdict, run.champion, False
    approval = _approval_of(run, judgement) if judgement.waits_for_approval(run) else None
    if verdict.promoted is Promoted.NONE:
        reason = f"The verdict is {verdict.decision}: {verdict.reasons[0]}"
    elif not run.may_promote:
        what = "PROMOTE" if verdict.promoted is Promoted.CHALLENGER else "to promote the anchor"
        reason = f"The verdict is {what}, but this run was asked not to promote (a backfill)."
    elif approval is not None and not approval.is_given:
        reason = approval.sentence
    else:
        _require_same_models(run, challenger, fresh, judgement)
        champion, reason, recipe = judgement.promoted_model, verdict.reasons[0], recipe_of(run)
        assert champion is not None  # The verdict promotes something.
        if verdict.promoted is Promoted.ANCHOR:
            assert run.standing.anchor is not None
            recipe = recipe_of(run, run.standing.anchor, fresh.code_digest)
            reason = f"The accepted recipe made fresh, in place of the challenger. {reason}"
        reason = f"{reason} {approval.sentence}" if approval is not None else reason
        entry = Move(
            moved_at=now,
            kind="promotion",
            model=champion,
            previous=run.champion,
            run_uri=run.run_uri,
            recipe=recipe,
            reason=reason,
        )
        with history.promotion_lock(run.workspace_uri):
            _promote_once(run, entry, verdict.becomes_anchor)
        is_promoted = True
        log.info("%s is champion now: %s", champion.label, reason)
    return Promotion(
        is_promoted=is_promoted,
        champion_after=champion,
        reason=reason,
        approval=approval,
    )


def read_approval(run_uri: str) -> Approval | None:
    """Return what became of the question whether a cycle may promote; None: not asked, or open."""
    uri = approval_uri(run_uri)
    repair = (
        "delete it and clear approve_promotion in Airflow, with what is after it: that asks anew, "
        "and promotes what is approved"
    )
    return storage.find_model(uri, Approval, repair)


def _approval_of(run: ResolvedRun, judgement: Judgement) -> Approval:
    """Return a person's answer about this very verdict.

    Raises:
        PromotionRefusedError: nobody was asked about it.
    """
    found = read_approval(run.run_uri)
    if found is not None and found.ruling_digest == judgement.ruling_digest:
        return found
    # Airflow goes on showing a question that was answered.
    raise PromotionRefusedError(
        f"the recipe lets nothing be promoted that no person has approved (promotion.approval), "
        f"and no answer about this verdict is on record; expected the one that Airflow's task "
        f"approve_promotion asks for; clear it there, with what is after it, begin another cycle, "
        f"or overrule the verdict with `homefeed promote --force "
        f"{shlex.quote(run.run_uri)} --reason '...'`"
    )


def _require_same_models(
    run: ResolvedRun, challenger: Challenger, fresh: FreshAnchor, judgement: Judgement
) -> None:
    """Refuse a verdict on other models than the run's, or on an older day than the champion's."""
    compared, anchor = judgement.comparison, judgement.anchor
    judged = (compared.challenger_model, compared.baseline_model, anchor and anchor.model)
    made = (challenger.model, run.champion, anchor and fresh.trained and fresh.trained.model)
    if judged != made:
        said, known = ([each and each.label for each in side] for side in (judged, made))
        raise PromotionRefusedError(
            f"challenger, champion and fresh anchor are {said} in the verdict and {known} in this "
            f"run; expected the same models; start a new cycle"
        )
    if run.champion is not None and run.as_of <= run.champion.as_of:
        raise PromotionRefusedError(
            f"as_of {run.as_of:%Y-%m-%d} is not newer than the champion's "
            f"({run.champion.label}, {run.champion.as_of:%Y-%m-%d}); an older model is never "
            f"promoted over a newer one; to go back use `homefeed rollback`"
        )


def _promote_once(run: ResolvedRun, entry: Move, becomes_anchor: bool) -> None:
    """Create the entry of a cycle's promotion, or find it; let the alias follow.

    A person may have made the model champion in spite of an earlier verdict; that stands for it.
    """
    model, client = entry.model, tracking.connect(run.tracking_uri)
    state = follow(client, run.workspace_uri, model.name)
    known, last = state.history, state.history.last
    if (mine := known.of_run(run.run_uri)) is not None:
        if last is not None and (mine.model != model or last.model.version != model.version):
            raise PromotionRefusedError(
                f"{model.label} is to be promoted; this cycle promoted {mine.model.label} at "
                f"{mine.moved_at:%Y-%m-%d %H:%M} UTC, and the newest move is the {last.kind} of "
                f"{last.model.label} ({last.reason}); a cycle promotes at most once; start a new "
                f"cycle, or name what shall serve after all: `homefeed rollback --to-version N`"
            )
        return
    require_newest(state)
    if last is not None and last.model == model:
        return
    decided = PromotionRefusedError(
        f"the verdict was judged against entry {run.newest_entry.number} of the history of "
        f"{run.registered_model}, and another one has been made since (`homefeed history`, "
        f"`homefeed anchor show`); expected nothing to be decided meanwhile; nothing was moved; "
        f"start a new cycle, which is judged against what serves now"
    )
    if known.newest != run.newest_entry or state.serves != version_of(run.champion):
        raise decided
    registry.require_unaltered(client, model)
    recipes = known.recipes
    if becomes_anchor or recipes.accepted is None:
        recipes = recipes.model_copy(update={"accepted": recipe_of(run)})
    try:
        _move(client, state, entry.model_copy(update={"recipes": recipes}))
    except LostTheNumberError as error:
        raise decided from error


def _move(client: "MlflowClient", state: State, entry: Move) -> Move:
    """Create the entry of a move whose model was looked at; let the alias follow; return it."""
    known = history.create(state.history, entry)
    follow(client, known.workspace_uri, known.name, is_checked=True)
    return known.moves[-1]


def _decided(workspace_uri: str, reason: str, decide: Callable[[], Decided]) -> Decided:
    """Let a person's command decide, and decide anew where somebody else was quicker.

    Raises:
        ConfigurationError: the person says no reason.
    """
    if not reason.strip():
        raise ConfigurationError("--reason is empty; expected a sentence for the record")
    with history.promotion_lock(workspace_uri):
        while True:
            try:
                return decide()
            except LostTheNumberError as error:
                log.info("%s; it is decided anew", error)


def force(
    client: "MlflowClient",
    run: ResolvedRun,
    model: ModelRef,
    now: datetime,
    reason: str,
    by: str = "",
) -> Move:
    """Make a run's challenger champion in spite of its verdict, because a person says why.

    Returns:
        The move, or the earlier one by which the challenger was promoted by hand already.

    Raises:
        ConfigurationError: there is no reason, or the challenger serves already.
        PromotionRefusedError: the registry's version is not what the cycle trained.
        RecordDisagreesError: the alias is not where the history says.
    """

    def decide() -> Move:
        state = follow(client, run.workspace_uri, model.name)
        last, recipes = state.history.last, state.history.recipes
        if state.serves == model.version:
            if last is not None and last.kind == "forced" and last.model == model:
                return last
            raise ConfigurationError(f"{model.label} is the champion already; nothing was moved")
        registry.require_unaltered(client, model)
        accepted = recipes.accepted or recipe_of(run)
        recipes = recipes.without(run.config.recipe_digest)
        entry = Move(
            moved_at=now,
            kind="forced",
            model=model,
            previous=state.served,
            recipe=recipe_of(run),
            reason=reason,
            by=by,
            recipes=recipes.model_copy(update={"accepted": accepted}),
        )
        return _move(client, state, entry)

    return _decided(run.workspace_uri, reason, decide)


def rollback(
    client: "MlflowClient",
    settings: Settings,
    to_version: str | None,
    now: datetime,
    reason: str,
    from_version: str | None = None,
    by: str = "",
) -> Move:
    """Point `champion` back at `to_version`, or at what served before the present one.

    The version is fetched, and must give its golden rows their scores, before anything is decided.
    Another champion than `from_version` is left alone. Where the last move was a rollback already,
    nothing is moved unless a version is named: a command that is given twice, because its answer
    was lost, must not walk from version to version.

    Returns:
        The move, or the earlier one by which the champion was taken back already.

    Raises:
        ConfigurationError: there is nothing to go back to, or the version serves already.
        HomefeedError: as `follow` and `registry.require_unaltered` raise.
    """
    place, name = settings.workspace_uri, settings.registered_model
    require_workspace(place)

    def decide() -> Move:
        state = follow(client, place, name)
        present, known, last = state.served, state.history, state.history.last
        if present is None:
            raise ConfigurationError(f"{name} has no champion; there is nothing to roll back")
        if (
            last is not None
            and (last.kind, last.model.version) == ("rollback", present.version)
            and from_version in (None, version_of(last.previous))
            and to_version in (None, present.version)
        ):
            return last  # It is given again.
        if from_version not in (None, present.version):
            raise ConfigurationError(
                f"{present.label} serves, and not v{from_version}, which was to be taken down; see "
                f"`homefeed history`; nothing was moved; leave out --from-version to go back"
            )
        target = to_version or _version_before(known, present)
        if target == present.version:
            raise ConfigurationError(f"{present.label} is the champion already; name another one")
        # By its last move, or by MLflow, whose tags may be altered with the files.
        kept = [m.model for m in known.moves if m.model.version == target and m.model.bundle_digest]
        model = kept[-1] if kept else registry.read_version(client, name, target)
        registry.require_unaltered(client, model, can_serve=True)
        said = f"{present.label} was rolled back at {now:%Y-%m-%d %H:%M} UTC: {reason}"
        recipes = _recipes_after(known, model, present, said)
        fields = {"moved_at": now, "reason": reason, "by": by, "recipe": recipes.accepted}
        entry = Move(kind="rollback", model=model, previous=present, recipes=recipes, **fields)
        return _move(client, state, entry)

    return _decided(place, reason, decide)


def _recipes_after(known: History, model: ModelRef, down: ModelRef, reason: str) -> Recipes:
    """Return what holds after a rollback: what serves again is accepted, the other is on hold."""
    accepted, its_own = known.recipe_of(model), known.recipe_of(down)
    digest = accepted.digest if accepted else ""
    held = known.recipes.without(digest).held
    if its_own is not None and its_own.digest not in ("", digest):
        held = (*held, HeldRecipe(recipe=its_own, reason=reason))
    return Recipes(accepted=accepted, held=held)


def _version_before(known: History, present: ModelRef) -> str:
    """Return the version that served before the present one came.

    Only what the history says has served counts: what a hand had put behind the alias for a while
    was never accepted. The move by which the present one came back by a rollback is passed over.
    """
    moves = known.moves
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


def accept_recipe(where: tuple[str, str], recipe: Recipe, now: datetime, reason: str) -> Recipes:
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

    return _change_recipes(where, Entry(moved_at=now, kind="by_hand", reason=reason), choose)


def release_recipe(where: tuple[str, str], digest: str, now: datetime, reason: str) -> Recipes:
    """Let a recipe that was rolled back, by the first digits of its digest, be promoted again.

    Raises:
        ConfigurationError: there is no reason, or no such recipe is or was on hold.
    """

    def choose(known: History) -> Recipes:
        # One that was released already stays so: the command is given again.
        once = {each.recipe.digest for entry in known.entries for each in entry.recipes.held}
        found = [each for each in once if each and each.startswith(digest)]
        if len(found) != 1:
            raise ConfigurationError(
                f"recipe {digest!r} is not on hold; expected the first digits of one that is or "
                f"was: {', '.join(each[:12] for each in sorted(once)) or 'no recipe was'}"
            )
        return known.recipes.without(found[0])

    return _change_recipes(where, Entry(moved_at=now, kind="release", reason=reason), choose)


def _change_recipes(
    where: tuple[str, str], entry: Entry, choose: Callable[[History], Recipes]
) -> Recipes:
    """Create the entry of a change of recipes, unless they are so already; return them."""

    def decide() -> Recipes:
        known = history.load(*where)
        wanted = choose(known)
        if wanted != known.recipes:
            history.create(known, entry.model_copy(update={"recipes": wanted}))
        return wanted

    return _decided(where[0], entry.reason, decide)


def plan_repair(
    client: "MlflowClient", state: State, to_version: str | None = None
) -> tuple[tuple[str, ...], ModelRef | None]:
    """Return what `repair` does, in sentences, and the model that is to serve and be recorded.

    The alias is right unless `to_version` says what shall serve. Nothing is done where alias and
    history agree; None is recorded where the log's word stands.

    Raises:
        ConfigurationError: nothing serves, and no version is named.
        TrackingEntryMissingError: the registry has no such version any more.
        DataContractError: it is not of this project, or marked as deleted.
    """
    known, steps, model = state.history, list[str](), None
    is_named = to_version not in (None, state.recorded)  # Else it is decided already.
    found = replace(state, keeper=None).disagreement()
    if is_named or found or known.is_newest_damaged:
        if (wanted := to_version or state.serves) is None:
            raise ConfigurationError(
                f"nothing of {known.name} serves by the registry, and by the history "
                f"{state.label(state.recorded)} does; expected a version to point the alias at; "
                f"name it: `homefeed history repair --to-version N`, which shows first what it "
                f"would do"
            )
        model = registry.read_version(client, known.name, wanted)
        if wanted == state.serves:
            steps.append(f"record that {model.label} serves")
        else:
            registry.require_not_deleted(client, model)
            steps.append(f"point the alias at {model.label}")
    elif (move := known.pending) is not None:
        steps.append(f"let the alias follow the {move.kind} of {move.model.label}")
    steps += [f"take note that {uri} is damaged or gone" for uri in known.damaged]
    if not state.is_kept_here:
        was = state.keeper or "none"
        steps.append(f"name {known.workspace_uri} as the history's keeper (was {was})")
    return tuple(steps), model


def repair(
    client: "MlflowClient",
    where: tuple[str, str],
    now: datetime,
    reason: str,
    to_version: str | None = None,
    by: str = "",
) -> tuple[str, ...]:
    """Do what `plan_repair` says, by one more entry, and return its sentences.

    Args:
        client: Client of the tracking server.
        where: Workspace and registered model.
        now: The time.
        reason: Why, in a sentence.
        to_version: As `plan_repair` takes it.
        by: Who wants it.

    Raises:
        HomefeedError: there is no reason, or as `plan_repair` raises.
    """

    def decide() -> tuple[str, ...]:
        state = look(client, *where)
        steps, model = plan_repair(client, state, to_version)
        known, last = state.history, state.history.last
        if not state.is_kept_here:
            with translated_outages(client.tracking_uri):
                client.set_registered_model_tag(known.name, registry.KEEPER, known.workspace_uri)
        if model is None and known.damaged:  # the log's word stands
            model = last.model if last else state.served
        if model is not None:
            recipe = known.recipe_of(model)
            accepted = known.recipes.accepted or recipe
            entry = Move(
                moved_at=now,
                kind="outside",
                model=model,
                # The history's model gives way, or what a hand had put there if that is moved.
                previous=state.served
                if state.serves not in (model.version, state.recorded)
                else last and last.model,
                recipe=recipe,
                reason=reason,
                by=by,
                recipes=known.recipes.model_copy(update={"accepted": accepted}),
                acknowledged=tuple(history.name_of(uri) for uri in known.damaged),
            )
            history.create(known, entry)
        follow(client, *where)
        return steps

    return _decided(where[0], reason, decide)
