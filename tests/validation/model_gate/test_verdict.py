import math
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.contracts.config import Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.judgement import Comparison, Decision, SelfTest, Verdict
from pipelines.contracts.reasons import AbsenceKind, BaselineKind, Reason
from support.comparisons import CONFIG, SOUND, TARGET, absent, change, comparison, metric
from support.holdouts import HEADS, champion_with
from support.judgements import BEATEN, SERVING, SLOW
from validation.model_gate.verdict import decide

PROMOTE, INCONCLUSIVE, REJECT = Decision.PROMOTE, Decision.INCONCLUSIVE, Decision.REJECT
NOT_FINITE, NO_ACTION = AbsenceKind.NOT_FINITE, AbsenceKind.NO_ACTION
CALIBRATION = "calibration_ratio.repin"
FLOOR, RAIL = CONFIG.floors[0], CONFIG.guardrails[0]


def verdict_on(found: Comparison, config: ModelGateConfig = CONFIG) -> Verdict:
    return decide(found, SOUND, SERVING, config, HEADS, baselines=BEATEN)


def decision(found: Comparison, config: ModelGateConfig = CONFIG) -> Decision:
    return verdict_on(found, config).decision


FIRST = {"baseline_kind": BaselineKind.RANKING, "baseline_model": None}


@pytest.mark.parametrize(
    ("low", "high", "fields", "expected", "said"),
    [
        (0.01, 0.03, {}, PROMOTE, "+2.00 % (95 % interval +1.00 % to +3.00 %)"),
        (-0.0099, 0.02, {}, PROMOTE, "above the -1.00 % required"),  # fresh and not worse
        # The one-sided 95 % end, which decides, lies 1.645 standard errors below the value.
        (-0.0124, 0.02, {}, PROMOTE, ""),
        (-0.0128, 0.02, {}, INCONCLUSIVE, ""),
        (-0.02, -0.01, {}, INCONCLUSIVE, ""),  # nor wholly below it
        (-0.02, -0.0101, {}, REJECT, ""),
        # Surely worse, by less than the margin.
        (-0.0015, -0.0005, {}, PROMOTE, "The loss is certain, and smaller than the margin."),
        (0.0, 0.0, {}, PROMOTE, ""),
        # The first cycle must beat a ranking: the margin is for freshness.
        (0.001, 0.02, FIRST, PROMOTE, "the ranking by popularity"),
        (0.0, 0.02, FIRST, INCONCLUSIVE, "the ranking by popularity"),
        (-0.005, 0.02, FIRST, INCONCLUSIVE, "the ranking by popularity"),
        (-0.02, -0.001, FIRST, REJECT, "the ranking by popularity"),
    ],
)
def test_the_interval_decides(
    low: float, high: float, fields: dict[str, Any], expected: Decision, said: str
) -> None:
    verdict = verdict_on(comparison(change((low + high) / 2, low, high), **fields))
    assert verdict.decision is expected and said in verdict.reasons[0]


def test_a_guardrail_on_a_decrease_looks_down() -> None:
    rails = (*CONFIG.guardrails, RelativeLimit(metric="hit_at_3.save", max_decrease=0.05))
    config = CONFIG.model_copy(update={"guardrails": rails})

    held, broken = (
        comparison(add=(metric("hit_at_3.save", change(by)),)) for by in (-0.049, -0.06)
    )
    assert decision(held, config) is PROMOTE
    verdict = verdict_on(broken, config)
    assert verdict.decision is REJECT
    assert verdict.reasons == (
        "hit_at_3.save changed by -6.00 % (95 % interval -6.10 % to -5.90 %), beyond its "
        "guardrail [-5.00 %, inf].",
        SERVING.figures.sentence,
    )


def test_a_broken_floor_rejects_even_where_another_metric_is_missing() -> None:
    verdict = verdict_on(comparison(calibration=2.0, drop=("hit_at_3.hide",)))

    assert verdict.decision is Decision.REJECT
    assert "2.0000" in verdict.reasons[0]
    assert "hit_at_3.hide" in verdict.reasons[1]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (comparison(drop=(TARGET,)), "was not computed, and it is the target metric"),
        (comparison(drop=(f"{TARGET}/core",)), "though segment 'core' is required"),
        (comparison(drop=(CALIBRATION,)), "its floor cannot be judged"),
        (comparison(drop=("hit_at_3.hide",)), "its guardrail cannot be judged"),
        (comparison(add=(metric(TARGET, None),)), "has no interval"),
        (comparison(add=(metric("hit_at_3.hide", None),)), "its guardrail cannot be judged"),
        (comparison(add=(metric(TARGET, None).model_copy(update={"baseline": None}),),
                    absent=(absent(TARGET, NOT_FINITE, side="baseline"),)),
         "has no interval: The baseline's scores hold NaN or infinity."),
        (comparison(drop=(CALIBRATION,), absent=(absent(CALIBRATION, NO_ACTION),)),
         "so its floor cannot be judged: No example has the action."),
        (comparison(target_metric="save_volume_at_3"), "the target metric 'save_volume_at_3'"),
        (comparison(num_users=49), "49 users, expected at least 50"),
        (comparison(segment_users={"all": 50, "core": 50, "non_core": 0}), "'non_core' has no"),
        (comparison(segment_users={"all": 50, "core": 50}), "'non_core' has no users"),
        (comparison(baseline_model=champion_with("b" * 64)), "compared with itself"),
        (comparison(baseline_model=None), "no champion model is named"),
        (comparison(are_scores_identical=True), "the same score to each of the 1,000"),
        (comparison(are_scores_identical=None), "Nobody checked"),
        (comparison(baseline_holdout_digest="e" * 64), "not scored on the same holdout"),
        (comparison(baseline_holdout_digest=None), "baseline unknown"),
        # The interval lies below zero, but it is of a model against itself.
        (comparison(change(-0.1), baseline_model=champion_with("b" * 64)), "with itself"),
    ],
)  # fmt: skip
def test_it_fails_closed_with_a_sentence(found: Comparison, sentence: str) -> None:
    verdict = verdict_on(found)

    assert verdict.decision is Decision.INCONCLUSIVE
    assert sentence in " ".join(verdict.reasons)
    assert all(reason.endswith(".") for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"floors": ()}, "No absolute floor"),
        ({"guardrails": ()}, "'hide' is unwanted"),
        ({"margin": math.nan}, "'model_gate.margin' is nan"),
        ({"floors": (FLOOR.model_copy(update={"minimum": math.nan}),
                     Limit(metric=CALIBRATION, minimum=0.8))}, "minimum' is nan"),
        ({"guardrails": (RAIL.model_copy(update={"max_increase": math.nan}),)},
         "max_increase' is nan"),
    ],
)  # fmt: skip
def test_a_missing_threshold_never_promotes(broken: dict[str, Any], sentence: str) -> None:
    verdict = verdict_on(comparison(), CONFIG.model_copy(update=broken))

    assert verdict.decision is Decision.INCONCLUSIVE
    assert sentence in " ".join(verdict.reasons)


@pytest.mark.parametrize("name", [TARGET, CALIBRATION, "hit_at_3.hide"])
def test_a_challenger_without_numbers_is_rejected(name: str) -> None:
    found = comparison(drop=(f"{name}/all",), absent=(absent(name, NOT_FINITE),))
    verdict = verdict_on(found)

    assert verdict.decision is Decision.REJECT
    assert f"'{name}' was not computed" in verdict.reasons[0]
    assert verdict.reasons[0].endswith(": The challenger's scores hold NaN or infinity.")
    assert all(name in reason for reason in verdict.reasons[1:-1])
    assert verdict.reasons[-1] == SERVING.figures.sentence


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_no_number_of_a_comparison_is_nan_or_infinite(number: float) -> None:
    for make in (
        lambda: metric(TARGET, None, challenger=number),
        lambda: change(number),
        lambda: comparison(smallest_detectable_change=number),
        lambda: Limit(metric=CALIBRATION, minimum=number),
        lambda: RelativeLimit(metric="hit_at_3.hide", max_increase=number),
    ):
        with pytest.raises(ValidationError, match="finite number"):
            make()


PROBLEM = "Serving check: latency p99 is 300 ms, beyond the 250 ms allowed."
BROKEN = SERVING.model_copy(update={"problems": (SLOW,)})
DOUBT = "Self-test: not possible, the challenger's target metric is zero."
DOUBTED = SelfTest(findings=SOUND.findings, doubts=(Reason.of("test_without_target"),))
VOID = comparison(num_users=49)
LOSING = comparison(change(-0.1))
WINNING = comparison(change(0.02, 0.01, 0.03))


@pytest.mark.parametrize("found", [WINNING, LOSING, VOID], ids=["wins", "loses", "void"])
def test_a_bundle_that_would_not_serve_is_rejected_whatever_the_comparison_says(
    found: Comparison,
) -> None:
    verdict = decide(found, DOUBTED, BROKEN, CONFIG, HEADS)
    assert verdict.decision is REJECT
    assert verdict.reasons[:2] == (PROBLEM, BROKEN.figures.sentence)
    assert len(verdict.reasons) > 2  # what the comparison says comes after it
    assert verdict_on(found).reasons[-1] == SERVING.figures.sentence


@pytest.mark.parametrize(
    ("found", "tested", "expected", "first"),
    [
        (WINNING, DOUBTED, INCONCLUSIVE, DOUBT),
        (LOSING, DOUBTED, REJECT, "wholly below -1.00 %"),
        (VOID, DOUBTED, INCONCLUSIVE, "49 users"),
        (WINNING, SelfTest(), INCONCLUSIVE, "was not tested"),
    ],
)
def test_a_doubt_of_the_self_test_stands_in_the_way_of_a_promotion_only(
    found: Comparison, tested: SelfTest, expected: Decision, first: str
) -> None:
    verdict = decide(found, tested, SERVING, CONFIG, HEADS)
    assert verdict.decision is expected
    assert first in verdict.reasons[0]
    assert (DOUBT in verdict.reasons) is (found is WINNING and tested is DOUBTED)
