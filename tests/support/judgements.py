"""Hand-made comparisons and verdicts, for the tests of what people are told."""

from datetime import UTC, datetime
from typing import Any

from pipelines.contracts.alert import NextStep
from pipelines.contracts.artifacts import DataReport, ExpectationOutcome, ModelRef, Severity
from pipelines.contracts.judgement import (
    Comparison,
    Decision,
    Judgement,
    Outcome,
    Promoted,
    Promotion,
    SelfTest,
    ServingCheck,
    Verdict,
)
from pipelines.contracts.reasons import (
    BaselineFacts,
    BaselineKind,
    Interval,
    MetricComparison,
    Reason,
)
from pipelines.contracts.run_layout import StageFailure
from pipelines.contracts.time import Window


def said(text: str) -> Reason:
    """Return a reason whose sentence is this text."""
    return Reason.of("on_record", text=text)


def ruled(decision: Decision, *texts: str, **fields: bool) -> Verdict:
    """Return a verdict with these reasons; where it promotes, the challenger."""
    promoted = Promoted.CHALLENGER if decision is Decision.PROMOTE else Promoted.NONE
    grounds = tuple(map(said, texts))
    return Verdict(decision=decision, promoted=promoted, grounds=grounds, **fields)


SLOW = Reason.of("serving_slow", found=300.0, limit=250.0)
"""What a serving check finds of a bundle that is too slow."""
TESTED = SelfTest(findings=(said("The worst possible ranking: REJECT."),))
HOLDOUT = Window(start=datetime(2017, 2, 20, tzinfo=UTC), end=datetime(2017, 2, 27, tzinfo=UTC))

SERVING = ServingCheck(
    golden_difference=1e-8,
    latency_p50_ms=4.0,
    latency_p99_ms=6.0,
    processor_p99_ms=5.0,
    peak_memory_mib=400.0,
    num_candidates=100,
    num_calls=200,
    score_spread=0.1,
    saturated_share=0.0,
)


def interval(value: float, low: float | None = None, high: float | None = None) -> Interval:
    """Return a 95 % interval: a thousandth to either side where nothing else is said."""
    low, high = value - 0.001 if low is None else low, value + 0.001 if high is None else high
    return Interval(value=value, low=low, high=high, confidence=0.95)


def metric(
    name: str,
    change: Interval | None,
    challenger: float = 1.0,
    segment: str = "all",
    baseline: float = 1.0,
) -> MetricComparison:
    """Return a metric of both sides with its relative change."""
    levels = {"challenger": challenger, "baseline": baseline}
    return MetricComparison(metric=name, segment=segment, relative_change=change, **levels)


def baseline_facts(
    name: str = "popularity, 28 days",
    kind: str = "ranking",
    change: tuple[float, float] | None = (0.1, 0.2),
) -> BaselineFacts:
    """Return a simple baseline whose change has this interval."""
    found = change and interval(sum(change) / 2, *change)
    level = interval(1.5, 1.4, 1.6)
    return BaselineFacts(name=name, kind=kind, description="Planted.", level=level, change=found)


BEATEN = (baseline_facts(),)
"""A simple baseline that the challenger surely beats."""


def make_model(version: str, as_of: datetime) -> ModelRef:
    return ModelRef(
        name="test_ranker",
        version=version,
        mlflow_run_id=f"run{version}",
        as_of=as_of,
        bundle_digest="b" * 64,
        snapshot_digest="c" * 64,
    )


CHAMPION = make_model("3", datetime(2017, 2, 16, tzinfo=UTC))
CHALLENGER = make_model("4", datetime(2017, 3, 2, tzinfo=UTC))


def make_judgement(
    decision: Decision, *reasons: str, low: float = -0.05, high: float = -0.01, **compared: Any
) -> Judgement:
    """Return a judgement of v4 against v3: repin volume 1.5 against 1.6, -6.25 %.

    Args:
        decision: The verdict's.
        reasons: The verdict's.
        low: Lower end of the interval.
        high: Its upper end.
        compared: Other fields of the comparison.
    """
    fields = {
        "holdout_digest": "d" * 64,
        "holdout": HOLDOUT,
        "baseline_kind": BaselineKind.CHAMPION,
        "challenger_model": CHALLENGER,
        "baseline_model": CHAMPION,
        "num_users": 1234,
        "num_requests": 5678,
        "num_examples": 68136,
        "segment_users": {"all": 1234},
        "metrics": (metric("repin_volume_at_3", interval(-0.0625, low, high), 1.5, "all", 1.6),),
        "smallest_detectable_change": 0.021,
        "num_days": 14,
    }
    comparison = Comparison(**(fields | compared))
    return Judgement(
        serving=SERVING,
        comparison=comparison,
        self_test=TESTED,
        verdict=ruled(decision, *(reasons or ("It lost.",))),
        report_uri="file:///w/runs/r/compare_with_champion/report.html",
    )


def told(judgement: Judgement, next_step: NextStep | None = None) -> Outcome:
    """Return an outcome of a judgement for a page's test, made without a run."""
    reasons, comparison = judgement.verdict.reasons, judgement.comparison
    change = comparison.target.relative_change if comparison.target else None
    return Outcome(
        decision=judgement.verdict.decision.value,
        title=f"{comparison.challenger_model.label} was judged",
        serves="v3 serves.",
        metric=comparison.target_metric,
        direction="cannot tell",
        change=change,
        number="The number & its interval.",
        why=reasons[0],
        reasons=reasons,
        most_hurt="Segment <b>new</b> loses most.",
        warnings=("The data gate warned of rows.",),
        done="v4 is promoted.",
        next_step=next_step or NextStep(sentence="v4 becomes champion.", commands=()),
        links=(),
    )


def make_failure(stage: str = "train_challenger", exit_code: int = 65, **more: Any) -> StageFailure:
    """Return why a stage has failed."""
    fields = {"error_class": "DataContractError", "message": "rows\nare missing"}
    fields |= {"occurred_at": CHALLENGER.as_of}
    return StageFailure(stage=stage, exit_code=exit_code, **(fields | more))


def make_promotion(is_promoted: bool = True, **more: Any) -> Promotion:
    """Return what became of v4 beside v3."""
    fields = {"reason": "It is so.", "champion_after": CHALLENGER if is_promoted else CHAMPION}
    return Promotion(is_promoted=is_promoted, **(fields | more))


def make_report(snapshot_digest: str = "d" * 64, **expected: dict[str, Any]) -> DataReport:
    """Return a report of the data gate: by an expectation's name, how it differs from met."""
    usual = {"description": "It is as usual.", "severity": Severity.CRITICAL, "is_met": True}
    usual |= {"observed": "1", "expected": "2"}
    outcomes = [ExpectationOutcome(**(usual | more), name=name) for name, more in expected.items()]
    about = {"snapshot_digest": snapshot_digest, "reference_digest": None}
    return DataReport(outcomes=outcomes, docs_uri="file:///docs", **about)
