"""Promotion by a cycle: whether its verdict may move the champion at this instant.

Not for judging. Promotion obeys the verdict, and asks itself only what concerns the registry at
this instant: whether the run may promote, whether the verdict is about these models, whether as_of
is newer, and whether the champion moved meanwhile. Not for how the alias is moved once
(`pipelines.registry.moves`), nor for what people move (`pipelines.registry.by_hand`).
"""

import logging
import shlex
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, FreshAnchor, ModelRef, ResolvedRun
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import BundleMissingError, PromotionRefusedError
from pipelines.contracts.judged.approval import Approval, approval_uri
from pipelines.contracts.judgement import Judgement, Promoted, Promotion, Verdict
from pipelines.contracts.mlflow_errors import translated_outages
from pipelines.registry import anchor, history, moves, registry, tracking
from pipelines.registry.reconcile import look, require_agreement, require_newest, require_own

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)


def move_if_permitted(
    run: ResolvedRun,
    challenger: Challenger,
    fresh: FreshAnchor,
    judgement: Judgement,
    now: datetime,
) -> Promotion:
    """Make the promoted model champion if the verdict and the run allow it.

    A cycle promotes at most once. If the process is killed on the way, a second call looks into the
    history first, and completes what the first one began. A model that became champion and was
    replaced since is not made champion again, because that would undo what a person did.

    Raises:
        PromotionRefusedError: the alias moved, the verdict is about another model, as_of is not
            newer than the champion's, or the model was champion and was replaced.
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
            history_uri = _move_once(client, run, judgement, entry, now)
            over = _accepts_over(run, judgement.verdict)
            if over is not None:  # Somebody else had made the model champion.
                anchor.accept(run.workspace_uri, entry, over)
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
    client: "MlflowClient",
    run: ResolvedRun,
    judgement: Judgement,
    entry: history.HistoryEntry,
    now: datetime,
) -> str:
    """Move the champion for a cycle, go on with what it began, or find it moved; return the URI."""
    name, place = entry.model.name, run.workspace_uri
    why = "another cycle promoted"
    known = moves.settle_others(client, place, name, now, why, own=run.run_uri)
    _require_not_replaced(known, entry.model)
    for uri, each in known.entries:
        if each.run_uri == run.run_uri:
            _require_same_promotion(each, entry, "promoted")
            state = look(client, place, name)
            require_agreement(state)
            require_newest(state)
            return uri
    mine = known.of_run(run.run_uri)
    if mine is None:
        _require_own_ruling(client, run, judgement)
        require_unaltered(client, place, entry.model)
        state = require_own(client, place, name)
        require_newest(state)
        if state.serves == entry.model.version and known.last is not None:
            # The newest entry made it champion, and is none of this cycle: somebody else's move.
            return known.entries[-1][0]
        moves.make(client, place, known, entry, _accepts_over(run, judgement.verdict))
        return history.read(place, name)[-1][0]
    _require_same_promotion(mine.intent.entry, entry, "began to promote")
    if mine.outcome is None:
        if not moves.has_moved(client, mine):
            # It may have been altered since the attempt that began this had looked.
            require_unaltered(client, place, entry.model)
        moves.carry_out(client, mine, now)
    else:
        raise PromotionRefusedError(
            f"the promotion of {entry.model.label} by this cycle was given up at "
            f"{mine.outcome.moved_at:%Y-%m-%d %H:%M} UTC, because {mine.outcome.note}; a cycle "
            f"promotes at most once; start a new cycle"
        )
    return history.read(place, name)[-1][0]


def _require_same_promotion(
    before: history.HistoryEntry, wanted: history.HistoryEntry, did: str
) -> None:
    """Refuse to promote a second model: the cycle was judged anew after it had promoted one.

    Raises:
        PromotionRefusedError: the cycle has promoted, or begun to promote, another model.
    """
    if before.model != wanted.model:
        raise PromotionRefusedError(
            f"{wanted.model.label} is to be promoted, and this cycle {did} {before.model.label} "
            f"at {before.moved_at:%Y-%m-%d %H:%M} UTC; a cycle promotes at most once; start a new "
            f"cycle"
        )


def _accepts_over(run: ResolvedRun, verdict: Verdict) -> str | None:
    """Return over which record of accepted recipes the challenger's is accepted; None if it is not.

    What a person or a rollback has recorded since the run was resolved is left as it is.
    """
    known = anchor.present(run.workspace_uri, run.registered_model)
    is_own = known is not None and known.run_uri == run.run_uri  # The move has recorded it.
    if is_own or not verdict.becomes_anchor:
        return None
    was = run.standing.anchor.recipe_digest if run.standing.anchor else ""
    if known is not None and anchor.digest_or_nothing(known.recipe) != was:
        log.warning("the accepted recipe was changed during the run (%s); it stays", known.reason)
        return None
    return anchor.state_of_record(run.workspace_uri, run.registered_model)


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


def require_unaltered(client: "MlflowClient", workspace_uri: str, judged: ModelRef) -> None:
    """Refuse a version that is not what was judged: a verdict is about the bundle's digest.

    Raises:
        PromotionRefusedError: the registry says that the version is another model.
        DataContractError: its files are not those of that digest, or are marked as deleted.
    """
    found = registry.read_version(client, judged.name, judged.version)
    if found != judged:
        raise PromotionRefusedError(
            f"{judged.label} was judged with bundle {judged.bundle_digest[:12]}; found bundle "
            f"{found.bundle_digest[:12]} (as_of {found.as_of:%Y-%m-%d}, MLflow run "
            f"{found.mlflow_run_id}) at that version in the registry; expected what was judged: "
            f"its tags were altered since; start a new cycle"
        )
    require_not_deleted(client, judged)
    with storage.scratch_folder(workspace_uri) as scratch:
        registry.download_bundle(client, judged, scratch)


def require_not_deleted(client: "MlflowClient", model: ModelRef) -> None:
    """Refuse to make a version champion whose logged model is marked as deleted.

    Its files may be there, so that they could be fetched, until `mlflow gc` erases them. A mark is
    made under the lock that the caller holds (`pipelines.retention.carry_out`).

    Raises:
        BundleMissingError: it is marked, or erased already.
    """
    with translated_outages(client.tracking_uri):
        version = client.get_model_version(model.name, model.version)
        if _has_files(client, version):
            return
        model_id = registry.find_logged_model(client, version)
        versions = client.search_model_versions(f"name = '{model.name}'")
        left = sorted(int(each.version) for each in versions if _has_files(client, each))
    there = f"{'are' if len(left) > 1 else 'is'} {', '.join(f'v{n}' for n in left) or 'no version'}"
    raise BundleMissingError(
        f"{model.label} cannot become champion: its logged model {model_id} is marked as deleted "
        f"in MLflow at {client.tracking_uri}, or erased; expected one that is there, because "
        f"`mlflow gc` erases the files of a marked one; nothing was moved; MLflow has no call that "
        f"takes the mark back, so count it as gone; of {model.name} there {there}; "
        f"{registry.ROLL_BACK}, or start a new cycle"
    )


def _has_files(client: "MlflowClient", version: "ModelVersion") -> bool:
    """Return whether a version's logged model is there; others' files are not looked for."""
    model_id = registry.find_logged_model(client, version)
    return not model_id or registry.find_location(client, model_id) != ""


def _require_own_ruling(client: "MlflowClient", run: ResolvedRun, judgement: Judgement) -> None:
    """Refuse a verdict that is not the one which the registry keeps beside the challenger.

    Raises:
        PromotionRefusedError: the manifest was edited, or the comparison was made again since.
    """
    challenger = judgement.comparison.challenger_model
    kept = registry.read_tags(client, challenger).get(registry.RULING, "")
    if kept not in ("", judgement.ruling_digest):  # Older cycles left none.
        raise PromotionRefusedError(
            f"the verdict on {challenger.label} has digest {judgement.ruling_digest[:12]}, and the "
            f"registry keeps {kept[:12]} of the comparison; expected the same: the manifest was "
            f"edited, or a later comparison was interrupted; compare again, which rules anew: run "
            f"`homefeed stage compare_with_champion --run {shlex.quote(run.run_uri)} --again`, "
            f"then promote"
        )


def _require_not_replaced(known: history.History, challenger: ModelRef) -> None:
    """Refuse a challenger that the history knows as a former champion, unless it serves again."""
    entries = [entry for _, entry in known.entries]
    if not entries or entries[-1].model.version == challenger.version:
        return
    for move in reversed(entries):
        if move.previous is not None and move.previous.version == challenger.version:
            raise PromotionRefusedError(
                f"{challenger.label} was champion, and {move.model.label} took its place at "
                f"{move.moved_at:%Y-%m-%d %H:%M} UTC ({move.kind}: {move.reason}); expected a "
                f"challenger that has not served yet; to serve it again after all run "
                f"`homefeed rollback --to-version {challenger.version}`"
            )


def _label(model: ModelRef | None) -> str:
    return model.label if model else "no champion"
