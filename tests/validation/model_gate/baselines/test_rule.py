"""A first champion beats each ranking, and the regression is better by no more than the margin."""

from typing import Any

import pytest

from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.judgement import BaselineFacts, BaselineKind, Decision, Interval, Verdict
from pipelines.recipes.built_in import RECIPES
from support.comparisons import CONFIG, SOUND, change, comparison
from support.holdouts import HEADS
from support.judgements import BEATEN, SERVING, baseline_facts
from validation.model_gate.verdict import decide

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
