"""Bounds: broken by whole intervals, held back by straddling ones, silent where nothing is seen."""

from typing import Any

import pytest

from pipelines.contracts.config import Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.judgement import Comparison, Decision, Verdict
from pipelines.contracts.reasons import (
    BaselineFacts,
    BaselineKind,
    HeadFacts,
    Interval,
    MetricComparison,
)
from pipelines.recipes.built_in import RECIPES
from support.comparisons import CONFIG, SOUND, TARGET, change, comparison, metric
from support.holdouts import HEADS
from support.judgements import BEATEN, SERVING, baseline_facts
from validation.model_gate.examine import Place, detectable, place
from validation.model_gate.verdict import decide

HIDE = "hit_at_3.hide"


def verdict_on(found: Comparison, config: ModelGateConfig = CONFIG) -> Verdict:
    return decide(found, SOUND, SERVING, config, HEADS, baselines=BEATEN)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.05, 0.02, Place.WITHIN),  # exactly at the bound
        (0.0, 1.02 - 1, Place.WITHIN),  # which float arithmetic misses by a rounding
        (0.01, 0.03, Place.STRADDLES),
        (0.02, 0.03, Place.STRADDLES),
        (0.0201, 0.03, Place.BEYOND),
        (-0.06, 0.0, Place.STRADDLES),
        (-0.06, -0.051, Place.BEYOND),
    ],
)
def test_an_interval_lies_within_straddles_or_is_beyond(
    low: float, high: float, expected: Place
) -> None:
    assert place(change((low + high) / 2, low, high), -0.05, 0.02) is expected


def test_the_detectable_change_of_an_interval() -> None:
    # 2.80 standard errors, of which a 95 % interval is 3.92 wide
    assert detectable(change(0.0, -0.0196, 0.0196)) == pytest.approx(0.0280, abs=1e-4)


@pytest.mark.parametrize(
    ("hide", "expected", "sentence"),
    [
        (change(0.30, 0.021, 0.60), Decision.REJECT, "beyond its guardrail"),
        # Two equal models with few hides: the estimate is beyond the bound, the interval is not.
        (change(0.10, -0.20, 0.50), Decision.PROMOTE, "sees changes of"),
        # The holdout could have seen the bound, and cannot exclude it.
        (change(0.018, 0.012, 0.024), Decision.INCONCLUSIVE, "this holdout cannot tell"),
        (change(0.005, -0.001, 0.011), Decision.PROMOTE, "within its guardrail"),
    ],
)
def test_a_guardrail_is_judged_by_its_interval(
    hide: Interval, expected: Decision, sentence: str
) -> None:
    verdict = verdict_on(comparison(hide=hide))
    assert verdict.decision is expected
    assert sentence in " ".join(verdict.reasons)


def without_change(challenger: float, low: float, high: float, baseline: float = 0.0) -> Any:
    """Return hides of a baseline that has none, or has none in some resamples."""
    value = challenger - baseline
    difference = Interval(value=value, low=low, high=high, confidence=0.95)
    return metric(HIDE, None, challenger).model_copy(
        update={"baseline": baseline, "difference": difference}
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (without_change(0.5, 0.3, 0.7), Decision.REJECT),  # hides, where the champion has none
        (without_change(0.0, 0.0, 0.0), Decision.PROMOTE),
        (without_change(0.01, 0.0, 0.03), Decision.PROMOTE),  # one hide of one user
    ],
)
def test_a_champion_without_hides_can_be_beaten_and_is_not_exceeded(
    row: MetricComparison, expected: Decision
) -> None:
    verdict = verdict_on(comparison(drop=(f"{HIDE}/all",), add=(row,)))
    assert verdict.decision is expected
    assert "0.0000" in " ".join(verdict.reasons)


def test_the_first_cycle_is_held_to_its_guardrails_too() -> None:
    many = metric(HIDE, change(100.0, 80.0, 120.0), challenger=1.0)
    first = {"baseline_kind": BaselineKind.RANKING, "baseline_model": None}
    assert verdict_on(comparison(change(0.3), add=(many,), **first)).decision is Decision.REJECT


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        (change(-0.30, -0.40, -0.20), Decision.REJECT),
        (change(-0.049, -0.055, -0.043), Decision.INCONCLUSIVE),
        (change(-0.02, -0.30, 0.26), Decision.PROMOTE),  # too few users to tell
        (change(-0.03, -0.04, -0.02), Decision.PROMOTE),  # a loss, within what is allowed
    ],
)
def test_a_segment_may_lose_no_more_than_its_margin(segment: Interval, expected: Decision) -> None:
    verdict = verdict_on(comparison(add=(metric(TARGET, segment, segment="non_core"),)))
    assert verdict.decision is expected
    assert "segment non_core" in " ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("interval", "value", "expected"),
    [
        (None, 1.3, Decision.REJECT),  # a level without an interval is taken as it is
        ((1.26, 1.34), 1.3, Decision.REJECT),
        ((1.2, 1.4), 1.3, Decision.INCONCLUSIVE),
        ((1.1, 1.3), 1.2, Decision.PROMOTE),
    ],
)
def test_a_floor_is_judged_by_its_interval(
    interval: tuple[float, float] | None, value: float, expected: Decision
) -> None:
    row = metric("calibration_ratio.repin", None, challenger=value)
    if interval is not None:
        low, high = interval
        level = Interval(value=value, low=low, high=high, confidence=0.95)
        row = row.model_copy(update={"challenger_interval": level})
    assert verdict_on(comparison(add=(row,))).decision is expected


def level(value: float, low: float, high: float) -> Interval:
    return Interval(value=value, low=low, high=high, confidence=0.95)


def of_head(name: str, interval: Interval) -> MetricComparison:
    row = metric(name, None, challenger=interval.value)
    return row.model_copy(update={"challenger_interval": interval})


def facts(**update: Any) -> tuple[HeadFacts, ...]:
    hide = HeadFacts(head="hide", num_positives=20, spread=0.1)
    repin = HeadFacts(head="repin", num_positives=200, spread=0.5)
    return (repin.model_copy(update=update), hide)


@pytest.mark.parametrize(
    ("found", "expected", "sentence"),
    [
        (comparison(heads=facts(spread=None)), Decision.REJECT, "hold NaN or infinity"),
        (comparison(heads=facts(spread=0.0)), Decision.REJECT, "the same probability"),
        (
            comparison(add=(of_head("auc.repin", level(0.4, 0.35, 0.45)),)),
            Decision.REJECT,
            "ranks worse than chance",
        ),
        (comparison(add=(of_head("auc.repin", level(0.48, 0.45, 0.51)),)), Decision.PROMOTE, ""),
        (comparison(heads=facts()[1:]), Decision.INCONCLUSIVE, "'repin' was not examined"),
        (comparison(heads=facts(num_positives=49)), Decision.PROMOTE, "49 positives"),
        (comparison(heads=facts(num_positives=49, spread=0.0)), Decision.PROMOTE, "49 positives"),
        (comparison(heads=facts(num_positives=49, spread=None)), Decision.REJECT, "hold NaN"),
        (comparison(drop=("auc.repin",)), Decision.INCONCLUSIVE, "so the head cannot be judged"),
    ],
)
def test_every_head_is_held_to_the_least_whatever_its_weight(
    found: Comparison, expected: Decision, sentence: str
) -> None:
    verdict = verdict_on(found)
    assert verdict.decision is expected
    assert sentence in " ".join(verdict.reasons)


@pytest.mark.parametrize(
    ("calibration", "expected"),
    [
        (level(3.79, 2.9, 4.8), Decision.REJECT),
        (level(2.2, 1.9, 2.5), Decision.PROMOTE),  # not surely
        (level(0.3, 0.2, 0.4), Decision.REJECT),
    ],
)
def test_a_head_that_is_surely_out_of_calibration_is_not_served(
    calibration: Interval, expected: Decision
) -> None:
    config = CONFIG.model_copy(update={"floors": (Limit(metric=TARGET, minimum=0.1),)})
    row = of_head("calibration_ratio.repin", calibration)
    assert verdict_on(comparison(add=(row,)), config).decision is expected


def test_thresholds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="no value lies from 1.25 to 0.8"):
        Limit(metric="calibration_ratio.repin", minimum=1.25, maximum=0.8)
    with pytest.raises(ValueError, match="segment_margin 0.01 is below model_gate.margin 0.02"):
        ModelGateConfig(floors=CONFIG.floors, margin=0.02, segment_margin=0.01)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        RelativeLimit(metric=HIDE, max_increase=-0.1)


ALL = CONFIG.model_copy(update={"first_champion_beats": "every_baseline"})
FIRST: dict[str, Any] = {"baseline_kind": BaselineKind.RANKING, "baseline_model": None}
BETTER = change(0.3)


def verdict_with(*baselines: BaselineFacts, **fields: Any) -> Verdict:
    found = comparison(BETTER, **(FIRST | fields))
    return decide(found, SOUND, SERVING, ALL, HEADS, baselines=baselines)


def test_without_baselines_no_first_champion_is_promoted() -> None:
    verdict = verdict_with()
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reasons[0] == "No simple baseline was measured, and no model serves."


@pytest.mark.parametrize(
    ("kind", "interval", "expected"),
    [
        ("ranking", (0.001, 0.2), Decision.PROMOTE),
        ("ranking", (0.0, 0.2), Decision.INCONCLUSIVE),
        ("ranking", (-0.1, 0.2), Decision.INCONCLUSIVE),
        ("ranking", (-0.2, -0.001), Decision.REJECT),
        ("regression", (-0.009, 0.2), Decision.PROMOTE),
        ("regression", (-0.1, 0.01), Decision.INCONCLUSIVE),
        ("regression", (-0.2, -0.011), Decision.REJECT),
        ("regression", (-0.009, -0.001), Decision.PROMOTE),  # a loss, within the margin
    ],
)
def test_each_baseline_has_its_bound(
    kind: str, interval: tuple[float, float], expected: Decision
) -> None:
    assert CONFIG.margin == 0.01
    other = baseline_facts("newest first", kind, interval)
    verdict = verdict_with(*BEATEN, other)
    assert verdict.decision is expected
    named = "newest first" in " ".join(verdict.reasons)
    assert named
    if expected is Decision.REJECT:
        assert "beats the challenger" in verdict.reasons[0]


def test_a_baseline_that_cannot_be_held_against_it_is_a_gap() -> None:
    unknown = baseline_facts("newest first", change=None).model_copy(update={"note": "No hits."})
    verdict = verdict_with(unknown)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "ranking by newest first: No hits." in verdict.reasons[0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.2, 0.4, Decision.PROMOTE),
        (-0.1, 0.2, Decision.INCONCLUSIVE),
        (-0.4, -0.2, Decision.REJECT),
    ],
)
def test_a_ranking_that_finds_next_to_nothing_is_judged_by_the_difference(
    low: float, high: float, expected: Decision
) -> None:
    interval = Interval(value=(low + high) / 2, low=low, high=high, confidence=0.95)
    weak = baseline_facts("newest first", change=None).model_copy(update={"difference": interval})
    verdict = verdict_with(*BEATEN, weak)
    assert verdict.decision is expected
    assert "as a difference, because the ranking finds next to nothing" in " ".join(verdict.reasons)


def test_a_later_cycle_is_warned_and_not_held_up() -> None:
    champion = {name: getattr(comparison(), name) for name in ("baseline_kind", "baseline_model")}
    better = baseline_facts("newest first", change=(-0.3, -0.2), against_random=(-0.5, -0.4))
    said = " ".join(verdict_with(better, **champion).reasons)
    assert verdict_with(better, **champion).decision is Decision.PROMOTE
    assert "Warning: The ranking by newest first beats the challenger" in said
    assert "newest first ranks worse than a random order" in said


def test_the_best_may_be_the_regression_and_then_the_margin_counts() -> None:
    by = {"baseline_kind": BaselineKind.REGRESSION, "baseline_name": "logistic regression"}
    found = comparison(change(0.0, -0.008, 0.008), **(FIRST | by))
    verdict = decide(found, SOUND, SERVING, ALL, HEADS, baselines=BEATEN)
    assert verdict.decision is Decision.PROMOTE
    assert "the logistic regression" in verdict.reasons[0]


def test_every_ranking_is_asked_for_by_all_recipes_but_the_one_for_a_first_look() -> None:
    asked = {name: make().model_gate.first_champion_beats for name, make in RECIPES.items()}
    assert {name for name, what in asked.items() if what == "popularity"} == {"smoke"}
    assert ModelGateConfig(floors=CONFIG.floors).first_champion_beats == "every_baseline"


def test_a_recipe_may_ask_for_popularity_alone_and_is_warned_of_the_others() -> None:
    better = baseline_facts("newest first", change=(-0.3, -0.2))
    found = comparison(BETTER, **FIRST)
    verdict = decide(found, SOUND, SERVING, CONFIG, HEADS, baselines=(better,))
    assert CONFIG.first_champion_beats == "popularity"
    assert verdict.decision is Decision.PROMOTE
    said = " ".join(verdict.reasons)
    assert "Warning: The ranking by newest first beats the challenger" in said
