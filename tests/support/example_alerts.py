"""An alert of each kind, composed as the pipeline composes them, on places that never differ."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pipelines.alerts.commands import homefeed
from pipelines.alerts.compose import (
    Ended,
    begin_again,
    compose_failure,
    compose_forced,
    compose_missed,
    compose_moved,
    compose_not_approved,
    compose_serving,
    compose_test,
    compose_unresolved,
    compose_verdict,
    compose_wanted,
    cycle_of,
)
from pipelines.alerts.incidents import Incident, compose_recovered
from pipelines.alerts.links import mlflow_links
from pipelines.alerts.outcomes import Since, outcome_of
from pipelines.contracts.alert import Alert, Cause, Unresolved
from pipelines.contracts.artifacts import ModelRef, ResolvedRun
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.judgement import Approval, Decision, Judgement
from pipelines.contracts.run_layout import StageFailure
from pipelines.monitor.watching import compose_finding
from pipelines.registry.history import Move
from pipelines.settings import Settings
from support.judgements import CHALLENGER, CHAMPION, interval, make_failure, make_judgement, metric
from support.runs import make_run

AT = datetime(2017, 3, 2, 6, 41, tzinfo=UTC)
PLACE = "/srv/homefeed"


def example_alerts(place: Path, settings: Settings) -> dict[str, Alert]:
    """Return an alert of each kind, and others of some; whatever names `place` names `PLACE`.

    Args:
        place: An empty folder.
        settings: Addresses for the links.
    """
    run = make_run(place, champion=CHAMPION)
    wanted, wanted_again, rejected, unanswered = _asked(run, settings)
    made = {
        "regression": _verdict(run, settings, Decision.REJECT, -0.05),
        "inconclusive": _verdict(run, settings, Decision.INCONCLUSIVE, 0.01),
        "data_gate_failed": compose_failure(_refusal(), run, settings, Ended("check_snapshot")),
        "broken_run": compose_failure(
            None, run, settings, Ended("train_challenger", "timed_out", AT)
        ),
        "broken_run.noted": _noted(run, settings, "train_challenger", 65),
        "broken_run.may_pass": _noted(run, settings, "train_challenger", 75),
        "broken_run.unforeseen": _noted(run, settings, "build_snapshot", 70),
        "broken_run.promotion": _noted(run, settings, "promote_challenger", 77),
        "broken_run.unresolved": _unresolved(run, settings),
        "forced_promotion": compose_forced(
            run, _moved("forced", CHALLENGER, CHAMPION), "REJECT", settings
        ),
        "champion_moved": compose_moved(_moved("rollback", CHAMPION, CHALLENGER), settings),
        "serving_fault": compose_serving(
            "rank-1:8500",
            "a version is refused",
            "d" * 64,
            "homefeed_ranker v4 <b>is</b>\nwrong",
            settings,
        ),
        "monitor": compose_finding(
            settings,
            AT,
            ("champion_regressed", "d" * 64),
            f"{CHAMPION.label} loses more than its age explains",
            "-2.41 % (-3.90 to -0.92) against <b>ranker</b> v4 on 9 day(s), expected -0.40 %.",
            "Look at these days' data.",
            ("Retrain now:", homefeed("retrain --as-of 2017-03-02")),
        ),
        "test": compose_test(settings, AT),
        "missed_cycle": _missed(run, settings, is_newer=True),
        "missed_cycle.too_late": _missed(run, settings, is_newer=False),
        "recovered": _recovered(run, settings),
        "approval_wanted": wanted,
        "approval_wanted.again": wanted_again,
        "not_approved": rejected,
        "not_approved.unanswered": unanswered,
    }
    texts = {
        name: _settled(each).model_dump_json().replace(str(place), PLACE)
        for name, each in made.items()
    }
    return {name: Alert.model_validate_json(text) for name, text in texts.items()}


def _moved(kind: Literal["forced", "rollback"], model: ModelRef, previous: ModelRef) -> Move:
    told = {"reason": "the surface is gone", "by": "anna@desk", "moved_at": AT}
    return Move(kind=kind, model=model, previous=previous, number=5, **told)


def _settled(alert: Alert) -> Alert:
    """Return an alert that changes with no clock, option of the recipe or other digest."""
    about = tuple("d" * 64 if len(each) == 64 else each for each in alert.about)
    recipe = alert.recipe and alert.recipe.model_copy(update={"digest": "0123456789abcdef" * 4})
    return alert.model_copy(update={"at": AT, "recipe": recipe, "about": about})


def _verdict(run: ResolvedRun, settings: Settings, decision: Decision, high: float) -> Alert:
    judgement = make_judgement(decision, "It lost.", low=-0.08, high=high)
    judgement = with_segments(judgement, {"new": -0.12, "core & <b>casual</b>": -0.03})
    in_mlflow = mlflow_links("https://mlflow.example.com", "7", ("run4", "run3"))
    outcome = outcome_of(run, judgement, None, settings, in_mlflow)
    warned = (
        "The data gate warned of save_rate: found 0.0004 in 2017-02-27; expected 0.0011 to 0.0015.",
    )
    outcome = outcome.model_copy(update={"warnings": warned})
    alert = compose_verdict(outcome, judgement, run, settings)
    assert alert is not None
    return alert


def with_segments(judgement: Judgement, changes: dict[str, float]) -> Judgement:
    """Return a judgement with the target metric's change in each segment, too."""
    comparison = judgement.comparison
    rows = [
        metric(
            comparison.target_metric,
            interval(change, change - 0.02, change + 0.02),
            1.6 * (1 + change),
            segment,
            1.6,
        )
        for segment, change in changes.items()
    ]
    found = {
        "metrics": (*comparison.metrics, *rows),
        "segment_users": {**comparison.segment_users, **dict.fromkeys(changes, 321)},
    }
    return judgement.model_copy(update={"comparison": comparison.model_copy(update=found)})


def _refusal() -> StageFailure:
    return make_failure(
        "check_snapshot",
        error_class="DataGateFailedError",
        message="the data gate refused snapshot 0123456789ab; nothing was trained and the champion "
        "stays:\n- save_rate (critical): found 0.0004, expected 0.0011 to 0.0015; in 2017-02-27\n"
        "Mend the event log, then start a new cycle",
        occurred_at=AT,
        docs_uri=f"file://{PLACE}/workspace/runs/r/check_snapshot/data_docs/index.html",
    )


def _noted(run: ResolvedRun, settings: Settings, stage: str, exit_code: int) -> Alert:
    said = {"error_class": "AnError", "message": "rows <b>lost</b> & found", "occurred_at": AT}
    return compose_failure(make_failure(stage, exit_code, **said), run, settings, Ended(stage))


def _unresolved(run: ResolvedRun, settings: Settings) -> Alert:
    broken = Unresolved(
        message="DataContractError: no impressions in the training window",
        next_step=begin_again(run.to_request(), settings),
        at=AT,
        cause=Cause(stage="resolve_run", error_class="DataContractError"),
        cycle=cycle_of(run.to_request()),
    )
    return compose_unresolved("scheduled__2017-03-02", broken, settings)


def _missed(run: ResolvedRun, settings: Settings, is_newer: bool) -> Alert:
    skipped = [run.as_of - timedelta(days=days) for days in (28, 14)]
    return compose_missed(skipped, run.to_request(), settings, is_newer)


def _recovered(run: ResolvedRun, settings: Settings) -> Alert:
    incident = Incident(
        cause=Cause(stage="check_snapshot", error_class="DataGateFailedError"),
        title="Homefeed retrain 2017-02-16: the data gate refused the snapshot",
        cycle=None,
        first_at=AT - timedelta(days=14),
        last_at=AT - timedelta(days=13),
        told_at=AT - timedelta(days=14),
        num_times=3,
    )
    return compose_recovered((incident,), run, settings)


def _asked(run: ResolvedRun, settings: Settings) -> tuple[Alert, ...]:
    """Return the question whether a model may serve, put twice, and what is told of no."""
    asked = PromotionConfig(approval=ApprovalConfig(by=("anna", "ben")))
    run = run.model_copy(update={"config": run.config.model_copy(update={"promotion": asked})})
    # It is 5 % better: 1.68 against 1.6.
    better = metric("repin_volume_at_3", interval(0.05, 0.01, 0.09), 1.68, "all", 1.6)
    judgement = make_judgement(Decision.PROMOTE, "It won.", metrics=(better,))
    outcome = outcome_of(run, judgement, None, settings)
    asked_of = {"model": CHALLENGER.label, "ruling_digest": judgement.ruling_digest}
    answer = Approval(answer="rejected", by="anna", at=AT, **asked_of)
    silence = answer.model_copy(update={"answer": "no answer", "by": ""})
    until = AT + timedelta(hours=24)
    ended = {
        each: outcome_of(run, judgement, None, settings, since=Since(approval=each))
        for each in (answer, silence)
    }
    return (
        *(compose_wanted(run, outcome, "d" * 64, until, times, settings) for times in (1, 2)),
        *(compose_not_approved(run, told, each, settings) for each, told in ended.items()),
    )
