"""Promotion and rollback: they move the champion by compare-and-set, and write the history.

Not for judging. Promotion obeys the verdict, and asks itself only what concerns the registry at
this instant: whether the run may promote, whether the verdict is about these models, whether as_of
is newer, and whether the champion moved meanwhile.
"""

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pipelines import storage
from pipelines.contracts.artifacts import Challenger, FreshAnchor, ModelRef, ResolvedRun
from pipelines.contracts.errors import ConfigurationError, PromotionRefusedError
from pipelines.contracts.judgement import Judgement, Promoted, Promotion, Verdict
from pipelines.registry import anchor, history, registry, tracking
from pipelines.settings import Settings

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

    If the process is killed after the alias has moved and before the manifest is written, a second
    call finds the alias moved and completes the records. A model that became champion and was
    replaced since is not made champion again, because that would undo what a person did.

    Raises:
        PromotionRefusedError: the alias moved, the verdict is about another model, as_of is not
            newer than the champion's, or the model was champion and was replaced.
        TrackingUnavailableError: MLflow does not answer; nothing was moved.
    """
    reason, history_uri = _reason_to_stay(run, judgement), None
    champion = run.champion
    if reason is None:
        _require_same_models(run, challenger, fresh, judgement)
        champion, reason = judgement.promoted_model, judgement.verdict.reasons[0]
        assert champion is not None  # The verdict promotes something, or there is a reason to stay.
        if judgement.verdict.promoted is Promoted.ANCHOR:
            reason = f"The accepted recipe made fresh, in place of the challenger. {reason}"
        entry = history.HistoryEntry(
            moved_at=now,
            kind="promotion",
            model=champion,
            previous=run.champion,
            run_uri=run.run_uri,
            reason=reason,
        )
        client = tracking.connect(run.tracking_uri)
        with history.promotion_lock(run.workspace_uri):
            _require_unaltered(client, champion)
            _require_not_replaced(run, champion)
            registry.move_champion(client, run.champion, champion)
            history_uri = history.append(run.workspace_uri, entry)
            _move_anchor(run, judgement.verdict, now)
        log.info("%s is champion now: %s", champion.label, reason)
    return Promotion(
        decision=judgement.verdict.decision,
        is_promoted=history_uri is not None,
        champion_before=run.champion,
        champion_after=champion,
        reason=reason,
        history_uri=history_uri,
    )


def _move_anchor(run: ResolvedRun, verdict: Verdict, now: datetime) -> None:
    """Record the challenger's recipe as the accepted one, if the verdict says so.

    What a person or a rollback has recorded since the run was resolved is left as it is.
    """
    known = anchor.present(run.workspace_uri, run.registered_model)
    if not verdict.becomes_anchor:
        return
    was = run.standing.anchor.recipe_digest if run.standing.anchor else ""
    is_own = known is not None and known.run_uri == run.run_uri  # of an attempt before this one
    if known is not None and not is_own and anchor.digest_or_nothing(known.recipe) != was:
        log.warning("the accepted recipe was changed during the run (%s); it stays", known.reason)
        return
    entry = anchor.AnchorEntry(
        set_at=now,
        kind="promotion",
        registered_model=run.registered_model,
        recipe=anchor.recipe_of(run),
        held=known.held if known else (),
        run_uri=run.run_uri,
        reason=verdict.reasons[0],
    )
    anchor.append(run.workspace_uri, entry)


def _reason_to_stay(run: ResolvedRun, judgement: Judgement) -> str | None:
    """Return why nothing may move, or None."""
    verdict = judgement.verdict
    if verdict.promoted is Promoted.NONE:
        return f"The verdict is {verdict.decision}: {verdict.reasons[0]}"
    if not run.may_promote:
        what = "PROMOTE" if verdict.promoted is Promoted.CHALLENGER else "to promote the anchor"
        return f"The verdict is {what}, but this run was asked not to promote (a backfill)."
    return None


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


def _require_unaltered(client: "MlflowClient", judged: ModelRef) -> None:
    """Refuse a version that is not what was judged: a verdict is about the bundle's digest."""
    found = registry.read_version(client, judged.name, judged.version)
    if found != judged:
        raise PromotionRefusedError(
            f"{judged.label} was judged with bundle {judged.bundle_digest[:12]}; found bundle "
            f"{found.bundle_digest[:12]} (as_of {found.as_of:%Y-%m-%d}, MLflow run "
            f"{found.mlflow_run_id}) at that version in the registry; expected what was judged: "
            f"its tags were altered since; start a new cycle"
        )


def _require_not_replaced(run: ResolvedRun, challenger: ModelRef) -> None:
    """Refuse a challenger that the history knows as a former champion, unless it serves again."""
    moves = [entry for _, entry in history.read(run.workspace_uri, challenger.name)]
    if not moves or moves[-1].model.version == challenger.version:
        return
    for move in reversed(moves):
        if move.previous is not None and move.previous.version == challenger.version:
            raise PromotionRefusedError(
                f"{challenger.label} was champion, and {move.model.label} took its place at "
                f"{move.moved_at:%Y-%m-%d %H:%M} UTC ({move.kind}: {move.reason}); expected a "
                f"challenger that has not served yet; to serve it again after all run "
                f"`homefeed rollback --to-version {challenger.version}`"
            )


def _label(model: ModelRef | None) -> str:
    return model.label if model else "no champion"


def force(
    client: "MlflowClient", run: ResolvedRun, challenger: Challenger, now: datetime, reason: str
) -> history.HistoryEntry:
    """Make a run's challenger champion in spite of its verdict, because a person says so.

    Args:
        client: Client of `run.tracking_uri`.
        run: The cycle.
        challenger: What it trained.
        now: The time of the move.
        reason: Why, in a sentence, for the history and the alert.

    Raises:
        ConfigurationError: there is no reason, or the challenger serves already.
        PromotionRefusedError: the registry's version is not what the cycle trained.
    """
    model = challenger.model
    if not reason.strip():
        raise ConfigurationError(
            "--reason is empty; expected a sentence that says why the verdict is overruled"
        )
    with history.promotion_lock(run.workspace_uri):
        _require_unaltered(client, model)
        present = registry.read_champion(client, model.name)
        if present is not None and present.version == model.version:
            raise ConfigurationError(f"{model.label} is the champion already; nothing was moved")
        entry = _move_by_hand(client, run.workspace_uri, "forced", present, model, now, reason)
        anchor.release_forced(run.workspace_uri, run, now, reason)
        return entry


def _move_by_hand(
    client: "MlflowClient",
    workspace_uri: str,
    kind: Literal["forced", "rollback"],
    present: ModelRef | None,
    model: ModelRef,
    now: datetime,
    reason: str,
) -> history.HistoryEntry:
    """Move the champion as a person asked, and write it down; the caller holds the lock."""
    registry.move_champion(client, present, model)
    entry = history.HistoryEntry(
        moved_at=now, kind=kind, model=model, previous=present, run_uri=None, reason=reason
    )
    history.append(workspace_uri, entry)
    return entry


def rollback(
    client: "MlflowClient", settings: Settings, to_version: str | None, now: datetime, reason: str
) -> history.HistoryEntry:
    """Point `champion` back at an earlier version: the one before the present, or a named one.

    Raises:
        ConfigurationError: there is nothing to go back to, or the version serves already.
    """
    workspace_uri = storage.to_uri(settings.workspace_location)
    name = settings.registered_model
    with history.promotion_lock(workspace_uri):
        present = registry.read_champion(client, name)
        if present is None:
            raise ConfigurationError(f"{name} has no champion; there is nothing to roll back")
        target = to_version or _version_before(workspace_uri, present)
        model = registry.read_version(client, name, target)
        if model.version == present.version:
            raise ConfigurationError(f"{model.label} is the champion already; name another version")
        # Before the alias moves: were the process killed in between, challengers would be held to
        # the older recipe, which is the safe side.
        away = (present, _recipe_or_none(client, workspace_uri, present))
        recipe = _recipe_or_none(client, workspace_uri, model)
        anchor.after_rollback(workspace_uri, recipe, away, now, reason)
        return _move_by_hand(client, workspace_uri, "rollback", present, model, now, reason)


def _recipe_or_none(
    client: "MlflowClient", workspace_uri: str, model: ModelRef
) -> anchor.Recipe | None:
    """Return what made a model, or None: a rollback must not wait for what cannot be read."""
    try:
        return anchor.recipe_of_model(workspace_uri, model, registry.read_tags(client, model))
    except ConfigurationError as error:
        log.warning("%s", error)
        return None


def _version_before(workspace_uri: str, present: ModelRef) -> str:
    """Return the version that served before the present one came (skipping rolled-back ones)."""
    for _, entry in reversed(history.read(workspace_uri, present.name)):
        has_come = entry.kind != "rollback" and entry.model.version == present.version
        if has_come and entry.previous is not None:
            return entry.previous.version
    raise ConfigurationError(
        f"the history knows no champion before {present.label}; name one with --to-version"
    )
