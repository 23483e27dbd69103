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
from pipelines.contracts.errors import PromotionRefusedError
from pipelines.contracts.judgement import (
    Approval,
    Judgement,
    Promoted,
    Promotion,
    approval_uri,
)
from pipelines.registry import history, registry, tracking
from pipelines.registry.history import HistoryEntry, RecipeChange, recipe_of
from pipelines.registry.reconcile import follow, require_newest, require_own, version_of

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
    verdict, approval = judgement.verdict, _approval_for(run, judgement)
    champion, history_uri = run.champion, None
    if verdict.promoted is Promoted.NONE:
        reason = f"The verdict is {verdict.decision}: {verdict.reasons[0]}"
    elif not run.may_promote:
        is_own = verdict.promoted is Promoted.CHALLENGER
        what = "PROMOTE" if is_own else "to promote the anchor"
        reason = f"The verdict is {what}, but this run was asked not to promote (a backfill)."
    elif approval is not None and not approval.is_given:
        reason = approval.sentence
    else:
        _require_same_models(run, challenger, fresh, judgement)
        champion, reason, config = judgement.promoted_model, verdict.reasons[0], run.config
        assert champion is not None  # The verdict promotes something.
        if verdict.promoted is Promoted.ANCHOR:
            config = run.standing.anchor or config
            reason = f"The accepted recipe made fresh, in place of the challenger. {reason}"
        reason = f"{reason} {approval.sentence}" if approval is not None else reason
        entry = HistoryEntry(
            moved_at=now,
            kind="promotion",
            model=champion,
            previous=run.champion,
            run_uri=run.run_uri,
            recipe=config.recipe_ref,
            reason=reason,
        )
        client = tracking.connect(run.tracking_uri)
        with history.promotion_lock(run.workspace_uri):
            history_uri = _move_once(client, run, judgement, entry)
        log.info("%s is champion now: %s", champion.label, reason)
    return Promotion(
        decision=verdict.decision,
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


def _require_same_models(
    run: ResolvedRun, challenger: Challenger, fresh: FreshAnchor, judgement: Judgement
) -> None:
    """Refuse a verdict on other models than the run's, and one on an older day than the champion's.

    Raises:
        PromotionRefusedError: it is one.
    """
    compared = judgement.comparison
    pairs: list[tuple[str, ModelRef | None, ModelRef | None]] = [
        ("challenger", compared.challenger_model, challenger.model),
        ("champion that it was compared with", compared.baseline_model, run.champion),
    ]
    if judgement.anchor is not None:
        trained = fresh.trained.model if fresh.trained else None
        pairs.append(("fresh anchor", judgement.anchor.model, trained))
    for what, judged, made in pairs:
        if judged != made:
            said, known = (each.label if each else "none" for each in (judged, made))
            raise PromotionRefusedError(
                f"the {what} is {said} in the verdict and {known} in this run; expected the same "
                f"model; start a new cycle"
            )
    if run.champion is not None and run.as_of <= run.champion.as_of:
        raise PromotionRefusedError(
            f"as_of {run.as_of:%Y-%m-%d} is not newer than the champion's "
            f"({run.champion.label}, {run.champion.as_of:%Y-%m-%d}); an older model is never "
            f"promoted over a newer one; to go back use `homefeed rollback`"
        )


def _move_once(
    client: "MlflowClient", run: ResolvedRun, judgement: Judgement, entry: HistoryEntry
) -> str:
    """Create the entry of a cycle's promotion, or find it; let the alias follow; return its URI.

    A person may have made the model champion in spite of an earlier verdict; that stands for it.
    """
    name, place, model = entry.model.name, run.workspace_uri, entry.model
    state = follow(client, place, name)
    known, last = state.history, state.history.last
    if (mine := known.of_run(run.run_uri)) is not None:
        uri, before = mine
        if before.model != model:
            raise PromotionRefusedError(
                f"{model.label} is to be promoted, and this cycle promoted {before.model.label} at "
                f"{before.moved_at:%Y-%m-%d %H:%M} UTC; a cycle promotes at most once; start a new "
                f"cycle"
            )
        if last is not None and last.model.version != model.version:
            raise PromotionRefusedError(
                f"{model.label} was champion, and {last.model.label} took its place at "
                f"{last.moved_at:%Y-%m-%d %H:%M} UTC ({last.kind}: {last.reason}); expected what "
                f"this cycle promoted to serve still; to serve it again after all run "
                f"`homefeed rollback --to-version {model.version}`"
            )
        return uri
    require_newest(state)
    if last is not None and last.model == model:
        return known.entries[-1][0]
    if known.newest != run.newest_entry or state.serves != version_of(run.champion):
        raise _decided_since(run, known)
    judged = judgement.comparison.challenger_model
    kept = registry.read_tags(client, judged).get(registry.RULING, "")
    if kept not in ("", judgement.ruling_digest):  # A comparison that was killed has left none.
        raise PromotionRefusedError(
            f"the verdict on {judged.label} has digest {judgement.ruling_digest[:12]}, and the "
            f"registry keeps {kept[:12]} of the comparison; expected the same: the manifest was "
            f"edited, or a later comparison was interrupted; compare again, which rules anew: run "
            f"`homefeed stage compare_with_champion --run {shlex.quote(run.run_uri)} --again`, "
            f"then promote"
        )
    registry.require_unaltered(client, model)
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


def _decided_since(run: ResolvedRun, known: history.History) -> PromotionRefusedError:
    """Return the refusal of a verdict that was judged against an older entry of the history."""
    found = []
    for each in known.placed:
        event, number = each.entry.event, each.entry.number
        said = "the accepted recipes were changed by a person"
        if not isinstance(event, RecipeChange):
            said = f"{event.kind} of {event.model.label}"
        if number > run.newest_entry.number:
            found.append(f"entry {number}: {said}, {event.reason!r}")
    return PromotionRefusedError(
        f"the verdict was judged against entry {run.newest_entry.number} of the history of "
        f"{run.registered_model}, and entry {known.newest.number} is the newest "
        f"({'; '.join(found) or 'the history is another one'}); expected nothing to be decided "
        f"meanwhile; nothing was moved; start a new cycle, which is judged against what serves now"
    )
