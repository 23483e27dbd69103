"""Years of the real rules: what drifts, what stays fresh, and what a holdout of a size can see."""

from collections.abc import Callable

import numpy as np
import pytest

from support.comparisons import CONFIG
from validation.model_gate.years import TRUE_CHANGES, Setting, Year, live_years, operating_curve

NUM_YEARS, SEED = 150, 5


def lived(recipe: Callable[[int], float], **setting: float) -> list[Year]:
    return live_years(recipe, Setting(**setting), CONFIG, NUM_YEARS, SEED)


def mean_quality(years: list[Year]) -> float:
    return float(np.mean([year.mean_quality for year in years]))


@pytest.mark.parametrize("step", [-0.001, -0.0025, -0.005])
@pytest.mark.parametrize("decay", [0.0, 0.003])
def test_recipes_that_get_worse_by_small_steps_do_not_drag_the_year_down(
    step: float, decay: float
) -> None:
    """A gate that holds challengers to the champion alone ends such years at -1.3 to -4.8 %."""
    years = lived(lambda cycle: step * (cycle + 1), decay=decay)
    assert mean_quality(years) > -0.003


@pytest.mark.parametrize("value", [-0.0025, -0.005, -0.009])
def test_a_recipe_that_is_always_worse_costs_next_to_nothing(value: float) -> None:
    assert mean_quality(lived(lambda cycle: value)) > -0.003


def test_recipes_that_get_better_are_kept() -> None:
    years = lived(lambda cycle: 0.002 * (cycle + 1), decay=0.0, error=0.00115)
    assert mean_quality(years) > 0.95 * 0.002 * 27 / 2


@pytest.mark.parametrize("decay", [0.0, 0.003])
def test_where_nothing_changes_something_fresh_is_promoted_within_two_cycles(decay: float) -> None:
    done = np.array([year.was_promoted for year in lived(lambda cycle: 0.0, decay=decay)])
    assert (done[:, 1:] | done[:, :-1]).mean() > 0.95


SURE, BLIND = 0.001, 0.02


@pytest.fixture(scope="module")
def curves() -> dict[float, dict[float, tuple[float, float, float]]]:
    return {
        error: {
            point.true_change: (point.promoted, point.rejected, point.year_quality)
            for point in operating_curve(error, CONFIG)
        }
        for error in (SURE, BLIND)
    }


def test_a_holdout_that_sees_well_promotes_what_is_better_and_rejects_what_is_worse(
    curves: dict[float, dict[float, tuple[float, float, float]]],
) -> None:
    seen = curves[SURE]
    assert tuple(seen) == TRUE_CHANGES
    assert seen[0.01][0] > 0.95 and seen[0.01][1] == 0
    assert seen[-0.01][1] > 0.95 and seen[-0.01][0] < 0.01
    assert seen[0.0][0] > 0.95  # the accepted recipe itself


def test_a_worse_recipe_costs_next_to_nothing_over_a_year_and_a_better_one_is_kept(
    curves: dict[float, dict[float, tuple[float, float, float]]],
) -> None:
    seen = curves[SURE]
    assert min(quality for _, _, quality in seen.values()) > -0.005
    assert seen[0.02][2] > 0.018


def test_a_holdout_that_sees_nothing_decides_seldom(
    curves: dict[float, dict[float, tuple[float, float, float]]],
) -> None:
    blind, sure = curves[BLIND], curves[SURE]
    assert blind[0.0][1] < 0.01
    for true_change in (-0.005, 0.005):
        promoted, rejected, _ = blind[true_change]
        assert promoted < 0.3
        assert rejected < 0.3  # by what is pooled over a year
    assert blind[-0.005][2] < sure[-0.005][2]  # it costs freshness
