"""Promotion by a cycle: whether its verdict may move the champion at this instant.

Not for judging. Promotion obeys the verdict, and asks itself only what concerns the record at this
instant: whether the run may promote, whether the verdict is about these models, whether as_of is
newer, and whether anything was decided since the run was resolved. Not for how the alias follows
(`pipelines.registry.reconcile`), nor for what people move (`pipelines.registry.by_hand`).
"""

import logging
import shlex
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, FreshAnchor, ModelRef, ResolvedRun
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import PromotionRefusedError
from pipelines.contracts.judgement import (
    Approval,
    Judgement,
    Promoted,
    Promotion,
    Verdict,
    approval_uri,
)
from pipelines.registry import history, registry, tracking
from pipelines.registry.recipes_on_record import recipe_of
from pipelines.registry.reconcile import (
    follow,
    require_newest,
    require_own,
    require_unaltered,
    version_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


def move_if_permitted(
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
    approval = _approval_for(run, judgement)
    reason, history_uri = _reason_to_stay(run, judgement, approval), None
    champion = run.champion
    if reason is None:
        _require_same_models(run, challenger, fresh, judgement)
        champion, reason = judgement.promoted_model, judgement.verdict.reasons[0]
        assert champion is not None  # The verdict promotes something, or there is a reason to stay.
        if judgement.verdict.promoted is Promoted.ANCHOR:
            reason = f"The accepted recipe made fresh, in place of the challenger. {reason}"
        if approval is not None:
            reason = f"{reason} {approval.sentence}"
        entry = history.HistoryEntry(
            moved_at=now,
            kind="promotion",
            model=champion,
            previous=run.champion,
            run_uri=run.run_uri,
            recipe=_recipe_of(run, judgement.verdict).recipe_ref,
            reason=reason,
        )
        client = tracking.connect(run.tracking_uri)
        with history.promotion_lock(run.workspace_uri):
            history_uri = _move_once(client, run, judgement, entry)
        log.info("%s is champion now: %s", champion.label, reason)
    return Promotion(
        decision=judgement.verdict.decision,
        is_promoted=history_uri is not None,
        champion_before=run.champion,
        champion_after=champion,
        reason=reason,
        history_uri=history_uri,
        approval=approval,
    )


def read_approval(run_uri: str) -> Approval | None:
    """Return what became of the question whether a cycle may promote; None: not asked, or open."""
    uri = approval_uri(run_uri)
    repair = (
        "delete it and clear approve_promotion in Airflow, with what is after it: that asks anew, "
        "and promotes what is approved"
    )
    return storage.read_model(uri, Approval, repair) if storage.exists(uri) else None


def _approval_for(run: ResolvedRun, judgement: Judgement) -> Approval | None:
    """Return the answer that the recipe wants, None where nobody is asked.

    Raises:
        PromotionRefusedError: somebody is to be asked about this verdict, and was not.
    """
    if not judgement.waits_for_approval(run):
        return None
    found = read_approval(run.run_uri)
    if found is not None and found.ruling_digest == judgement.ruling_digest:
        return found
    about, mend = "none is on record", "clear that task there, with what is after it"
    if found is not None:
        # Airflow goes on showing the question that was answered.
        about, mend = "the one on record is about another verdict", "begin another cycle"
    raise PromotionRefusedError(
        f"the recipe lets nothing be promoted that no person has approved (promotion.approval), "
        f"and {about}; expected the answer that Airflow's task approve_promotion asks for; run "
        f"the cycle in Airflow or {mend}, or overrule it with "
        f"`homefeed promote --force --run {shlex.quote(run.run_uri)} --reason '...'`"
    )


def _recipe_of(run: ResolvedRun, verdict: Verdict) -> RunConfig:
    """Return the recipe that made what the verdict promotes."""
    accepted = run.standing.anchor
    is_anchor = verdict.promoted is Promoted.ANCHOR
    return accepted if is_anchor and accepted is not None else run.config


def _move_once(
    client: "MlflowClient", run: ResolvedRun, judgement: Judgement, entry: history.HistoryEntry
) -> str:
    """Create the entry of a cycle's promotion, or find it; let the alias follow; return its URI.

    A person may have made the model champion in spite of an earlier verdict; that stands for it.
    """
    name, place = entry.model.name, run.workspace_uri
    state = follow(client, place, name)
    known = state.history
    if (mine := known.of_run(run.run_uri)) is not None:
        uri, before = mine
        if before.model != entry.model:
            raise PromotionRefusedError(
                f"{entry.model.label} is to be promoted, and this cycle promoted "
                f"{before.model.label} at {before.moved_at:%Y-%m-%d %H:%M} UTC; a cycle promotes "
                f"at most once; start a new cycle"
            )
        _require_not_replaced(known, entry.model)
        return uri
    require_newest(state)
    if known.last is not None and known.last.model == entry.model:
        return known.entries[-1][0]
    if known.newest != run.newest_entry or state.serves != version_of(run.champion):
        raise _decided_since(run, known)
    _require_own_ruling(client, run, judgement)
    require_unaltered(client, entry.model)
    require_own(state)
    recipes = known.recipes
    if judgement.verdict.becomes_anchor or recipes.accepted is None:
        recipes = recipes.model_copy(update={"accepted": recipe_of(run)})
    try:
        known = history.create(place, name, known, entry, recipes)
    except history.LostTheNumberError as error:
        raise _decided_since(run, history.load(place, name)) from error
    follow(client, place, name, is_checked=True)
    return known.placed[-1].uri


def _require_not_replaced(known: history.History, model: ModelRef) -> None:
    """Refuse to say that a cycle has promoted a model which was taken down since.

    Raises:
        PromotionRefusedError: another model serves.
    """
    last = known.last
    if last is not None and last.model.version != model.version:
        raise PromotionRefusedError(
            f"{model.label} was champion, and {last.model.label} took its place at "
            f"{last.moved_at:%Y-%m-%d %H:%M} UTC ({last.kind}: {last.reason}); expected what this "
            f"cycle promoted to serve still; to serve it again after all run "
            f"`homefeed rollback --to-version {model.version}`"
        )


def _decided_since(run: ResolvedRun, known: history.History) -> PromotionRefusedError:
    """Return the refusal of a verdict that was judged against an older entry of the history."""
    since = [each for each in known.placed if each.entry.number > run.newest_entry.number]
    found = "; ".join(f"entry {each.entry.number}: {_told(each.entry.event)}" for each in since)
    return PromotionRefusedError(
        f"the verdict was judged against entry {run.newest_entry.number} of the history of "
        f"{run.registered_model}, and entry {known.newest.number} is the newest "
        f"({found or 'the history is another one'}); expected nothing to be decided meanwhile; "
        f"nothing was moved; start a new cycle, which is judged against what serves now"
    )


def _told(event: history.HistoryEntry | history.RecipeChange) -> str:
    if isinstance(event, history.RecipeChange):
        return f"the accepted recipes were changed by a person, {event.reason!r}"
    return f"{event.kind} of {event.model.label}, {event.reason!r}"


def _reason_to_stay(
    run: ResolvedRun, judgement: Judgement, approval: Approval | None
) -> str | None:
    """Return why nothing may move, or None."""
    verdict = judgement.verdict
    if verdict.promoted is Promoted.NONE:
        return f"The verdict is {verdict.decision}: {verdict.reasons[0]}"
    if not run.may_promote:
        what = "PROMOTE" if verdict.promoted is Promoted.CHALLENGER else "to promote the anchor"
        return f"The verdict is {what}, but this run was asked not to promote (a backfill)."
    return approval.sentence if approval is not None and not approval.is_given else None


def _require_same_models(
    run: ResolvedRun, challenger: Challenger, fresh: FreshAnchor, judgement: Judgement
) -> None:
    compared = judgement.comparison
    trained = fresh.trained.model if fresh.trained else None
    pairs: list[tuple[str, ModelRef, ModelRef | None]]
    pairs = [("challenger", compared.challenger_model, challenger.model)]
    if judgement.anchor is not None:
        pairs.append(("fresh anchor", judgement.anchor.model, trained))
    for what, judged, made in pairs:
        if judged != made:
            raise PromotionRefusedError(
                f"the verdict is about {judged.label}, the {what} of this run is "
                f"{made.label if made else 'none'}; start a new cycle"
            )
    if compared.baseline_model != run.champion:
        raise PromotionRefusedError(
            f"the verdict compares with {_label(compared.baseline_model)}, this run was resolved "
            f"against {_label(run.champion)}; start a new cycle"
        )
    if run.champion is not None and run.as_of <= run.champion.as_of:
        raise PromotionRefusedError(
            f"as_of {run.as_of:%Y-%m-%d} is not newer than the champion's "
            f"({run.champion.label}, {run.champion.as_of:%Y-%m-%d}); an older model is never "
            f"promoted over a newer one; to go back use `homefeed rollback`"
        )


def _require_own_ruling(client: "MlflowClient", run: ResolvedRun, judgement: Judgement) -> None:
    """Refuse a verdict that is not the one which the registry keeps beside the challenger.

    Raises:
        PromotionRefusedError: the manifest was edited, or the comparison was made again since.
    """
    challenger = judgement.comparison.challenger_model
    kept = registry.read_tags(client, challenger).get(registry.RULING, "")
    if kept not in ("", judgement.ruling_digest):  # A comparison that was killed has left none.
        raise PromotionRefusedError(
            f"the verdict on {challenger.label} has digest {judgement.ruling_digest[:12]}, and the "
            f"registry keeps {kept[:12]} of the comparison; expected the same: the manifest was "
            f"edited, or a later comparison was interrupted; compare again, which rules anew: run "
            f"`homefeed stage compare_with_champion --run {shlex.quote(run.run_uri)} --again`, "
            f"then promote"
        )


def _label(model: ModelRef | None) -> str:
    return model.label if model else "no champion"
