"""Hand-made comparisons that would be promoted but for what is given, for the tests of verdicts."""

from typing import Any

from pipelines.contracts.config import Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.judgement import Comparison, Decision
from pipelines.contracts.reasons import (
    AbsenceKind,
    AbsentMetric,
    HeadFacts,
    Interval,
    MetricComparison,
    PooledChange,
)
from support.holdouts import champion_with
from support.judgements import TESTED, make_judgement, metric
from support.judgements import interval as change

CONFIG = ModelGateConfig(
    first_champion_beats="popularity",
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.8, maximum=1.25),),
    guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.02),),
    min_users=50,
)
TARGET = "repin_volume_at_3"


def comparison(
    target: Interval | None = None,
    hide: Interval | None = None,
    calibration: float = 1.0,
    drop: tuple[str, ...] = (),
    add: tuple[MetricComparison, ...] = (),
    **fields: Any,
) -> Comparison:
    """Return a comparison that would be promoted, but for what is given."""
    metrics = [
        metric(TARGET, target or change(0.01)),
        metric(TARGET, change(0.01), segment="core"),
        metric(TARGET, change(0.01), segment="non_core"),
        metric("hit_at_3.hide", hide or change(0.0)),
        metric("calibration_ratio.repin", change(0.0), challenger=calibration),
        metric("auc.repin", None, challenger=0.7),
    ]
    metrics = [m for m in metrics if m.metric not in drop and f"{m.metric}/{m.segment}" not in drop]
    values: dict[str, Any] = {
        "baseline_holdout_digest": "d" * 64,
        "baseline_model": champion_with("a" * 64),
        "num_users": 50,
        "num_examples": 1000,
        "segment_users": {"all": 50, "core": 30, "non_core": 25},
        "metrics": (*add, *metrics),
        "smallest_detectable_change": 0.02,
        "are_scores_identical": False,
        "heads": (
            HeadFacts(head="repin", num_positives=200, spread=0.5),
            HeadFacts(head="hide", num_positives=20, spread=0.1),
        ),
    }
    return make_judgement(Decision.PROMOTE, **(values | fields)).comparison


def absent(
    name: str, kind: AbsenceKind, segment: str = "all", side: str = "challenger"
) -> AbsentMetric:
    return AbsentMetric(metric=name, segment=segment, side=side, kind=kind)


SOUND = TESTED


def pooled(value: float, num_cycles: int, error: float, name: str = TARGET) -> PooledChange:
    """Return a change whose error on this cycle's holdout is 1 %."""
    return PooledChange(
        metric=name,
        segment="all",
        value=value,
        error=0.01,
        pooled_value=value,
        pooled_error=error,
        num_cycles=num_cycles,
    )
