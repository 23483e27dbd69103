"""An alert of each kind, composed as the pipeline composes them, on places that never differ."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines.alerts.approvals import compose_not_approved, compose_wanted
from pipelines.alerts.compose import compose_failure, compose_forced, compose_verdict
from pipelines.alerts.incidents import Incident, cycle_of
from pipelines.alerts.links import mlflow_links
from pipelines.alerts.missed import MissedCycles, compose_missed
from pipelines.alerts.outcomes import outcome_of
from pipelines.alerts.recovery import compose_recovered
from pipelines.contracts.artifacts import STAGES, ResolvedRun
from pipelines.contracts.config import ApprovalConfig, PromotionConfig
from pipelines.contracts.judged.alert import Alert, AlertKind, AlertReceipt
from pipelines.contracts.judged.approval import Approval
from pipelines.contracts.judgement import (
    Decision,
    Interval,
    Judgement,
    MetricComparison,
    Promotion,
)
from pipelines.contracts.run_layout import StageFailure
from pipelines.settings import Settings
from support.judgements import CHALLENGER, CHAMPION, make_judgement
from support.runs import make_run, save_artifact, save_run

AT = datetime(2017, 3, 2, 6, 41, tzinfo=UTC)
PLACE = "/srv/homefeed"


def example_alerts(place: Path, settings: Settings) -> dict[AlertKind, Alert]:
    """Return an alert of each kind; whatever names `place` names `PLACE`.

    Args:
        place: An empty folder.
        settings: Addresses for the links.
    """
    run = save_run(make_run(place, champion=CHAMPION))
    made = (
        _verdict(run, settings, Decision.REJECT, -0.05),
        _verdict(run, settings, Decision.INCONCLUSIVE, 0.01),
        compose_failure(_refusal(), run, settings, "check_snapshot"),
        compose_failure(None, run, settings, "train_challenger", "timed_out", AT),
        compose_forced(
            run, "test_ranker v4", "test_ranker v3", "the surface is gone", "REJECT", settings
        ),
        _missed(run, settings),
        _recovered(run, settings),
        *_asked(run, settings),
    )
    texts = (_settled(each).model_dump_json().replace(str(place), PLACE) for each in made)
    alerts = map(Alert.model_validate_json, texts)
    return {alert.kind: alert for alert in alerts}


def _settled(alert: Alert) -> Alert:
    """Return an alert whose words do not change with the day or the recipe's options."""
    recipe = alert.recipe and alert.recipe.model_copy(update={"digest": "0123456789abcdef" * 4})
    return alert.model_copy(update={"at": alert.at or AT, "recipe": recipe})


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
        MetricComparison(
            metric=comparison.target_metric,
            segment=segment,
            challenger=1.6 * (1 + change),
            baseline=1.6,
            relative_change=Interval(
                value=change, low=change - 0.02, high=change + 0.02, confidence=0.95
            ),
        )
        for segment, change in changes.items()
    ]
    found = {
        "metrics": (*comparison.metrics, *rows),
        "segment_users": {**comparison.segment_users, **dict.fromkeys(changes, 321)},
    }
    return judgement.model_copy(update={"comparison": comparison.model_copy(update=found)})


def _refusal() -> StageFailure:
    return StageFailure(
        stage="check_snapshot",
        error_class="DataGateFailedError",
        message="the data gate refused snapshot 0123456789ab; nothing was trained and the champion "
        "stays:\n- save_rate (critical): found 0.0004, expected 0.0011 to 0.0015; in 2017-02-27\n"
        f"Data Docs: file://{PLACE}/workspace/runs/r/check_snapshot/data_docs/index.html\n"
        "Mend the event log, then start a new cycle",
        exit_code=65,
        is_retryable=False,
        occurred_at=AT,
    )


def _missed(run: ResolvedRun, settings: Settings) -> Alert:
    day, fortnight = run.as_of, timedelta(days=14)
    missed = MissedCycles(
        skipped=(day - 2 * fortnight, day - fortnight),
        due=day,
        started_at=AT,
        is_too_late=False,
        max_lateness=timedelta(days=7),
        next_due=day + fortnight,
    )
    return compose_missed(missed, run.to_request(), settings)


def _recovered(run: ResolvedRun, settings: Settings) -> Alert:
    promotion = Promotion(
        decision=Decision.PROMOTE,
        is_promoted=True,
        champion_before=CHAMPION,
        champion_after=CHALLENGER,
        reason="Because of an example.",
        history_uri=None,
    )
    for stage in STAGES[1:]:
        nothing = AlertReceipt(alert=None, delivered_to=())
        save_artifact(run, stage, promotion if stage == "promote_challenger" else nothing)
    incident = Incident(
        cause="check_snapshot:DataGateFailedError:0",
        title="Homefeed retrain 2017-02-16: the data gate refused the snapshot",
        stage="check_snapshot",
        run_id="test-2017-02-16",
        cycles=(),
        mended_cycles=(cycle_of(run.to_request().model_copy(update={"as_of": CHAMPION.as_of})),),
        first_at=AT - timedelta(days=14),
        last_at=AT - timedelta(days=13),
        told_at=AT - timedelta(days=14),
        num_times=3,
    )
    return compose_recovered((incident,), run, settings)


def _won() -> Judgement:
    """Return a judgement of a challenger that is 5 % better: 1.68 against 1.6."""
    judgement = make_judgement(Decision.PROMOTE, "It won.")
    (target,) = judgement.comparison.metrics
    change = Interval(value=0.05, low=0.01, high=0.09, confidence=0.95)
    better = target.model_copy(update={"challenger": 1.68, "relative_change": change})
    comparison = judgement.comparison.model_copy(update={"metrics": (better,)})
    return judgement.model_copy(update={"comparison": comparison})


def _asked(run: ResolvedRun, settings: Settings) -> tuple[Alert, Alert]:
    """Return the question whether a model may serve, and what is told of the answer."""
    asked = PromotionConfig(approval=ApprovalConfig(by=("anna", "ben")))
    run = run.model_copy(update={"config": run.config.model_copy(update={"promotion": asked})})
    judgement = _won()
    outcome = outcome_of(run, judgement, None, settings)
    answer = Approval(
        answer="rejected",
        by="anna",
        at=AT,
        model=CHALLENGER.label,
        ruling_digest=judgement.ruling_digest,
    )
    until = AT + timedelta(hours=24)
    return (
        compose_wanted(run, outcome, until, settings),
        compose_not_approved(run, outcome, answer, settings),
    )
