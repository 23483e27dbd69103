import math
from typing import Any

import pytest

from pipelines.contracts.artifacts import (
    BaselineKind,
    Comparison,
    Decision,
    Interval,
    MetricComparison,
)
from pipelines.contracts.config import Limit, ModelGateConfig, RelativeLimit
from support.holdouts import HEADS, champion_with
from support.judgements import CHALLENGER, HOLDOUT
from validation.model_gate.verdict import decide

CONFIG = ModelGateConfig(
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.8, maximum=1.25),),
    guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.02),),
    min_users=50,
)
TARGET = "repin_volume_at_3"


def change(value: float, low: float | None = None, high: float | None = None) -> Interval:
    return Interval(
        value=value,
        low=value - 0.001 if low is None else low,
        high=value + 0.001 if high is None else high,
        confidence=0.95,
    )


def metric(
    name: str, relative: Interval | None, challenger: float = 1.0, segment: str = "all"
) -> MetricComparison:
    return MetricComparison(
        metric=name,
        segment=segment,
        challenger=challenger,
        baseline=1.0,
        relative_change=relative,
    )


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
    ]
    metrics = [m for m in metrics if m.metric not in drop and f"{m.metric}/{m.segment}" not in drop]
    values: dict[str, Any] = {
        "holdout_digest": "d" * 64,
        "baseline_holdout_digest": "d" * 64,
        "holdout": HOLDOUT,
        "baseline_kind": BaselineKind.CHAMPION,
        "challenger_model": CHALLENGER,
        "champion_model": champion_with("a" * 64),
        "num_users": 50,
        "num_requests": 100,
        "num_examples": 1000,
        "segment_users": {"all": 50, "core": 30, "non_core": 25},
        "metrics": (*add, *metrics),
        "smallest_detectable_change": 0.02,
        "bootstrap_seed": 1,
        "are_scores_identical": False,
    }
    return Comparison(**(values | fields))


def decision(found: Comparison, config: ModelGateConfig = CONFIG) -> Decision:
    return decide(found, config, HEADS).decision


def test_a_better_challenger_is_promoted_and_says_by_how_much() -> None:
    verdict = decide(comparison(change(0.02, 0.01, 0.03)), CONFIG, HEADS)

    assert verdict.decision is Decision.PROMOTE
    assert "+2.00 % (95 % interval +1.00 % to +3.00 %)" in verdict.reasons[0]
    assert "above the -1.00 % required" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.0099, 0.02, Decision.PROMOTE),  # within the margin: fresh and not worse
        (-0.01, 0.02, Decision.INCONCLUSIVE),  # exactly at the margin is not above it
        (-0.0101, 0.02, Decision.INCONCLUSIVE),
        (-0.02, 0.0, Decision.INCONCLUSIVE),  # zero is not below zero
        (-0.02, -1e-6, Decision.REJECT),
        (-0.005, -0.001, Decision.REJECT),  # surely worse, if by less than the margin
        (0.0, 0.0, Decision.PROMOTE),
    ],
)
def test_the_interval_decides(low: float, high: float, expected: Decision) -> None:
    assert decision(comparison(change((low + high) / 2, low, high))) is expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.02, Decision.PROMOTE),
        (0.0, 0.02, Decision.INCONCLUSIVE),  # the margin is for freshness, and this is the first
        (-0.005, 0.02, Decision.INCONCLUSIVE),
        (-0.02, -0.001, Decision.REJECT),
    ],
)
def test_the_first_cycle_must_beat_popularity(low: float, high: float, expected: Decision) -> None:
    first = comparison(
        change((low + high) / 2, low, high),
        baseline_kind=BaselineKind.POPULARITY,
        champion_model=None,
        drop=("hit_at_3.hide",),  # no champion, no guardrail
    )
    verdict = decide(first, CONFIG, HEADS)
    assert verdict.decision is expected
    assert "the popularity ranking" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("calibration", "expected"),
    [
        (0.8, Decision.PROMOTE),
        (0.7999, Decision.REJECT),
        (1.25, Decision.PROMOTE),
        (1.2501, Decision.REJECT),
        (math.nan, Decision.REJECT),
        (math.inf, Decision.REJECT),
    ],
)
def test_floors_hold_at_the_bound_and_break_beyond(calibration: float, expected: Decision) -> None:
    assert decision(comparison(calibration=calibration)) is expected


@pytest.mark.parametrize(
    ("increase", "expected"),
    [(0.02, Decision.PROMOTE), (1.02 - 1, Decision.PROMOTE), (0.0201, Decision.REJECT)],
)
def test_guardrails_hold_at_the_bound_and_break_beyond(increase: float, expected: Decision) -> None:
    assert decision(comparison(hide=change(increase))) is expected


def test_a_guardrail_on_a_decrease_looks_down() -> None:
    rails = (*CONFIG.guardrails, RelativeLimit(metric="hit_at_3.save", max_decrease=0.05))
    config = CONFIG.model_copy(update={"guardrails": rails})

    held = comparison(add=(metric("hit_at_3.save", change(-0.05)),))
    broken = comparison(add=(metric("hit_at_3.save", change(-0.06)),))
    assert decision(held, config) is Decision.PROMOTE
    verdict = decide(broken, config, HEADS)
    assert verdict.decision is Decision.REJECT
    assert verdict.reasons == (
        "hit_at_3.save changed by -6.00 % (95 % interval -6.10 % to -5.90 %), beyond its "
        "guardrail [-5.00 %, inf].",
    )


def test_a_broken_floor_rejects_even_where_another_metric_is_missing() -> None:
    verdict = decide(comparison(calibration=2.0, drop=("hit_at_3.hide",)), CONFIG, HEADS)

    assert verdict.decision is Decision.REJECT
    assert "2.0000" in verdict.reasons[0]
    assert "hit_at_3.hide" in verdict.reasons[1]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (comparison(drop=(TARGET,)), "target metric 'repin_volume_at_3' was not computed"),
        (comparison(drop=(f"{TARGET}/core",)), "in the required segment 'core'"),
        (comparison(drop=("calibration_ratio.repin",)), "its floor cannot be judged"),
        (comparison(drop=("hit_at_3.hide",)), "its guardrail cannot be judged"),
        (comparison(change(math.nan, math.nan, math.nan)), "has no interval"),
        (comparison(change(0.1, math.nan, 0.2)), "has no interval"),
        (comparison(hide=change(math.nan, 0, 0)), "its guardrail cannot be judged"),
        (comparison(num_users=49), "49 users, expected at least 50"),
        (comparison(segment_users={"all": 50, "core": 50, "non_core": 0}), "'non_core' has no"),
        (comparison(segment_users={"all": 50, "core": 50}), "'non_core' has no users"),
        (comparison(champion_model=champion_with("b" * 64)), "compared with itself"),
        (comparison(champion_model=None), "no champion model is named"),
        (comparison(are_scores_identical=True), "the same score to each of the 1,000"),
        (comparison(are_scores_identical=None), "Nobody checked"),
        (comparison(baseline_holdout_digest="e" * 64), "not scored on the same holdout"),
        (comparison(baseline_holdout_digest=None), "baseline unknown"),
    ],
)
def test_it_fails_closed_with_a_sentence(found: Comparison, sentence: str) -> None:
    verdict = decide(found, CONFIG, HEADS)

    assert verdict.decision is Decision.INCONCLUSIVE
    assert sentence in " ".join(verdict.reasons)
    assert all(reason.endswith(".") for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"floors": ()}, "No absolute floor"),
        ({"guardrails": ()}, "'hide' is unwanted"),
        ({"margin": math.nan}, "'model_gate.margin' is nan"),
        (
            {
                "floors": (
                    Limit(metric="calibration_ratio.repin", minimum=math.nan),
                    Limit(metric="calibration_ratio.repin", minimum=0.8),
                )
            },
            "minimum' is nan",
        ),
        (
            {"guardrails": (RelativeLimit(metric="hit_at_3.hide", max_increase=math.nan),)},
            "max_increase' is nan",
        ),
    ],
)
def test_a_missing_threshold_never_promotes(broken: dict[str, Any], sentence: str) -> None:
    verdict = decide(comparison(), CONFIG.model_copy(update=broken), HEADS)

    assert verdict.decision is Decision.INCONCLUSIVE
    assert sentence in " ".join(verdict.reasons)


def test_void_evidence_accuses_nobody() -> None:
    # The interval lies below zero, but it is of a model against itself.
    same = comparison(change(-0.1), champion_model=champion_with("b" * 64))
    assert decision(same) is Decision.INCONCLUSIVE


def test_a_challenger_without_numbers_is_rejected() -> None:
    nan = comparison(add=(metric(TARGET, None, challenger=math.nan),))
    verdict = decide(nan, CONFIG, HEADS)

    assert verdict.decision is Decision.REJECT
    assert verdict.reasons == ("The challenger's repin_volume_at_3 is nan, not a number.",)


def test_a_segment_that_lost_is_named_but_does_not_decide() -> None:
    lost = comparison(add=(metric(TARGET, change(-0.05), segment="core"),))
    verdict = decide(lost, CONFIG, HEADS)

    assert verdict.decision is Decision.PROMOTE
    assert "Note: in segment core repin_volume_at_3 changed by -5.00 %" in " ".join(verdict.reasons)
