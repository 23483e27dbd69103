"""Bounds: broken by whole intervals, held back by straddling ones, silent where nothing is seen."""

from typing import Any

import pytest

from pipelines.contracts.config import Limit, ModelGateConfig
from pipelines.contracts.judgement import Comparison, Decision
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
from validation.model_gate.examine import _ROUNDING, Place, place
from validation.model_gate.verdict import decide

HIDE = "hit_at_3.hide"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.05, 0.02, "within"),  # exactly at the bound
        (0.0, 1.02 - 1, "within"),  # which float arithmetic misses by a rounding
        (0.01, 0.03, "straddles"),
        (0.02, 0.03, "straddles"),
        (0.0201, 0.03, "beyond"),
        (-0.06, 0.0, "straddles"),
        (-0.06, -0.051, "beyond"),
        (0.02 + _ROUNDING, 0.03, "straddles"),  # they touch, from outside
        (-0.06, -0.05 - _ROUNDING, "straddles"),
    ],
)
def test_an_interval_lies_within_straddles_or_is_beyond(
    low: float, high: float, expected: Place
) -> None:
    assert place(change((low + high) / 2, low, high), -0.05, 0.02) == expected


def interval(low: float, high: float, value: float | None = None) -> Interval:
    value = (low + high) / 2 if value is None else value
    return Interval(value=value, low=low, high=high, confidence=0.95)


def without_change(challenger: float, low: float, high: float) -> Comparison:
    """Return hides of a baseline that has none, or nearly none."""
    difference = {"baseline": 0.0, "difference": interval(low, high, challenger)}
    row = metric(HIDE, None, challenger).model_copy(update=difference)
    return comparison(drop=(f"{HIDE}/all",), add=(row,))


def of_segment(low: float, high: float) -> Comparison:
    return comparison(add=(metric(TARGET, interval(low, high), segment="non_core"),))


def of_level(name: str, level: Interval | None, value: float = 0.0) -> MetricComparison:
    row = metric(name, None, challenger=level.value if level else value)
    return row.model_copy(update={"challenger_interval": level})


def facts(**update: Any) -> tuple[HeadFacts, ...]:
    hide = HeadFacts(head="hide", num_positives=20, spread=0.1)
    repin = HeadFacts(head="repin", num_positives=200, spread=0.5)
    return (repin.model_copy(update=update), hide)


CALIBRATION, AREA = "calibration_ratio.repin", "auc.repin"
LOOSE = CONFIG.model_copy(update={"floors": (Limit(metric=TARGET, minimum=0.1),)})
REJECT, HELD_BACK, PROMOTE = Decision.REJECT, Decision.INCONCLUSIVE, Decision.PROMOTE
MANY = metric(HIDE, change(100.0, 80.0, 120.0), challenger=1.0)
FIRST: dict[str, Any] = {"baseline_kind": BaselineKind.RANKING, "baseline_model": None}
CASES: list[tuple[Comparison, ModelGateConfig, Decision, str]] = [
    # A guardrail is judged by its interval.
    (comparison(hide=change(0.30, 0.10, 0.50)), CONFIG, REJECT, "beyond its guardrail"),
    # Alone it would be broken; among so many bounds one such number is no surprise.
    (comparison(hide=change(0.30, 0.021, 0.60)), CONFIG, HELD_BACK, "this holdout cannot tell"),
    # Two equal models with few hides: the estimate is beyond the bound, the interval is not.
    (comparison(hide=change(0.10, -0.20, 0.50)), CONFIG, PROMOTE, "sees changes of"),
    # The holdout sees such changes, and more likely than not the bound is broken.
    (comparison(hide=change(0.022, 0.016, 0.028)), CONFIG, HELD_BACK, "this holdout cannot tell"),
    (comparison(hide=change(0.018, 0.012, 0.024)), CONFIG, PROMOTE, "sees changes of"),
    (comparison(hide=change(0.005, -0.001, 0.011)), CONFIG, PROMOTE, "within its guardrail"),
    # More than is plausible may come from a leak; exactly as much may not.
    (comparison(change(0.05), plausible_lift=0.05), CONFIG, PROMOTE, ""),
    (
        comparison(change(0.051), plausible_lift=0.05),
        CONFIG,
        HELD_BACK,
        "more than the +5.00 % that is plausible where few earlier cycles are known",
    ),
    (
        comparison(change(0.051), plausible_lift=0.03, past_lifts=(-0.002, 0.004, 0.01)),
        CONFIG,
        HELD_BACK,
        "more than the +3.00 % that 3 earlier cycles make plausible, which changed it by "
        "-0.20 % to +1.00 %: the label may leak",
    ),
    # A champion without hides can be beaten, and is not exceeded.
    (without_change(0.5, 0.3, 0.7), CONFIG, REJECT, "0.0000"),
    (without_change(0.0, 0.0, 0.0), CONFIG, PROMOTE, "0.0000"),
    (without_change(0.01, 0.0, 0.03), CONFIG, PROMOTE, "0.0000"),  # one hide of one user
    (comparison(change(0.3), add=(MANY,), **FIRST), CONFIG, REJECT, "beyond its guardrail"),
    # A segment may lose no more than its margin.
    (of_segment(-0.40, -0.20), CONFIG, REJECT, "segment non_core"),
    (of_segment(-0.057, -0.045), CONFIG, HELD_BACK, "segment non_core"),
    (of_segment(-0.30, 0.26), CONFIG, PROMOTE, "segment non_core"),  # too few users to tell
    (of_segment(-0.04, -0.02), CONFIG, PROMOTE, "segment non_core"),  # a loss that is allowed
    # A floor is judged by its interval; a level without one is taken as it is.
    (comparison(add=(of_level(CALIBRATION, None, 1.3),)), CONFIG, REJECT, "outside its floor"),
    (comparison(add=(of_level(CALIBRATION, interval(1.26, 1.34)),)), CONFIG, REJECT, "floor"),
    (comparison(add=(of_level(CALIBRATION, interval(1.2, 1.4)),)), CONFIG, HELD_BACK, "floor"),
    (comparison(add=(of_level(CALIBRATION, interval(1.1, 1.3)),)), CONFIG, PROMOTE, "floor"),
    # Every head is held to the least, whatever its weight.
    (comparison(heads=facts(spread=None)), CONFIG, REJECT, "hold NaN or infinity"),
    (comparison(heads=facts(spread=0.0)), CONFIG, REJECT, "the same probability"),
    (comparison(add=(of_level(AREA, interval(0.35, 0.45)),)), CONFIG, REJECT, "worse than chance"),
    (comparison(add=(of_level(AREA, interval(0.45, 0.51)),)), CONFIG, PROMOTE, ""),
    (comparison(heads=facts()[1:]), CONFIG, HELD_BACK, "'repin' was not examined"),
    (comparison(heads=facts(num_positives=49)), CONFIG, PROMOTE, "49 positives"),
    (comparison(heads=facts(num_positives=49, spread=0.0)), CONFIG, PROMOTE, "49 positives"),
    (comparison(heads=facts(num_positives=49, spread=None)), CONFIG, REJECT, "hold NaN"),
    (comparison(drop=(AREA,)), CONFIG, HELD_BACK, "so its head cannot be judged"),
    (comparison(add=(of_level(CALIBRATION, interval(2.9, 4.8)),)), LOOSE, REJECT, "calibration"),
    (comparison(add=(of_level(CALIBRATION, interval(1.9, 2.5)),)), LOOSE, PROMOTE, ""),
    (comparison(add=(of_level(CALIBRATION, interval(0.2, 0.4)),)), LOOSE, REJECT, "calibration"),
]


@pytest.mark.parametrize(("found", "config", "expected", "sentence"), CASES)
def test_a_bound_is_broken_held_or_not_seen(
    found: Comparison, config: ModelGateConfig, expected: Decision, sentence: str
) -> None:
    verdict = decide(found, SOUND, SERVING, config, HEADS, baselines=BEATEN)
    assert verdict.decision is expected
    assert sentence in " ".join(verdict.reasons)


ALL = CONFIG.model_copy(update={"first_champion_beats": "every_baseline"})
BEATS, WEAK = (
    "beats the challenger",
    "as a difference, because the baseline is not surely above zero",
)
WORST = baseline_facts("newest first", change=(-0.3, -0.2))
REGRESSION = FIRST | {"baseline_kind": BaselineKind.REGRESSION,
                      "baseline_name": "logistic regression"}  # fmt: skip


def other(kind: str = "ranking", change: Any = None, **update: Any) -> tuple[BaselineFacts, ...]:
    return (*BEATEN, baseline_facts("newest first", kind, change).model_copy(update=update))


def first(relative: Interval | None = None, **fields: Any) -> Comparison:
    return comparison(relative or change(0.3), **(FIRST | fields))


@pytest.mark.parametrize(
    ("found", "baselines", "config", "expected", "said"),
    [
        (first(), other("ranking", (0.001, 0.2)), ALL, PROMOTE, "newest first"),
        (first(), other("ranking", (0.0, 0.2)), ALL, HELD_BACK, "newest first"),
        (first(), other("ranking", (-0.1, 0.2)), ALL, HELD_BACK, "newest first"),
        (first(), other("ranking", (-0.2, -0.001)), ALL, REJECT, BEATS),
        (first(), other("regression", (-0.009, 0.2)), ALL, PROMOTE, "newest first"),
        (first(), other("regression", (-0.1, 0.01)), ALL, HELD_BACK, "newest first"),
        (first(), other("regression", (-0.2, -0.011)), ALL, REJECT, BEATS),
        # A loss, within the margin.
        (first(), other("regression", (-0.009, -0.001)), ALL, PROMOTE, "newest first"),
        (first(), other(note="No hits."), ALL, HELD_BACK, "ranking by newest first: No hits."),
        (first(), other(difference=interval(0.2, 0.4)), ALL, PROMOTE, WEAK),
        (first(), other(difference=interval(-0.1, 0.2)), ALL, HELD_BACK, WEAK),
        (first(), other(difference=interval(-0.4, -0.2)), ALL, REJECT, WEAK),
        # Its own ends count, also where the interval lies far to one side of its value.
        (first(), other(difference=change(-0.05, -0.4, -0.001)), ALL, REJECT, WEAK),
        (first(), (), ALL, HELD_BACK, "No simple baseline was measured, and no model serves."),
        # A later cycle, and a recipe that asks for popularity alone, are warned.
        (comparison(change(0.3)), (WORST,), ALL, PROMOTE, f"The ranking by newest first {BEATS}"),
        (first(), (WORST,), CONFIG, PROMOTE, f"Warning: The ranking by newest first {BEATS}"),
        # Where the best is the regression, the margin counts.
        (first(change(0.0, -0.008, 0.008), **REGRESSION), BEATEN, ALL, PROMOTE,
         "the logistic regression"),
    ],
)  # fmt: skip
def test_each_baseline_has_its_bound(
    found: Comparison,
    baselines: tuple[BaselineFacts, ...],
    config: ModelGateConfig,
    expected: Decision,
    said: str,
) -> None:
    verdict = decide(found, SOUND, SERVING, config, HEADS, baselines=baselines)
    assert verdict.decision is expected
    assert said in (verdict.reasons[0] if expected is REJECT else " ".join(verdict.reasons))


def test_every_ranking_is_asked_for_by_all_recipes_but_the_one_for_a_first_look() -> None:
    asked = {name: make().model_gate.first_champion_beats for name, make in RECIPES.items()}
    assert {name for name, what in asked.items() if what == "popularity"} == {"smoke"}
    assert ModelGateConfig(floors=CONFIG.floors).first_champion_beats == "every_baseline"
    assert (CONFIG.first_champion_beats, CONFIG.margin) == ("popularity", 0.01)
