"""Years of the real rules: what drifts, what stays fresh, and what a holdout of a size can see."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipelines.contracts.judgement import Decision, Promoted
from support.comparisons import CONFIG
from support.hiding_years import Creep, mean_of
from validation.model_gate import years
from validation.model_gate.policy import Estimate, Evidence, Outcome, for_code
from validation.model_gate.years import TRUE_CHANGES, Setting, Year, live_years, operating_curve

NUM_YEARS, SEED = 150, 5
LOST = Outcome(Decision.INCONCLUSIVE, Promoted.NONE)


def lived(recipe: Callable[[int], float], **setting: float) -> list[Year]:
    return live_years(recipe, Setting(**setting), CONFIG, NUM_YEARS, SEED)


def mean_quality(years: list[Year]) -> float:
    return float(np.mean([year.qualities for year in years]))


@pytest.mark.parametrize("decay", [0.0, 0.003])
@pytest.mark.parametrize("step", [-0.001, -0.0025, -0.005])
def test_recipes_that_get_worse_by_small_steps_do_not_drag_the_year_down(
    step: float, decay: float
) -> None:
    """A gate that holds challengers to the champion alone ends such years at -1.3 to -4.8 %."""
    assert mean_quality(lived(lambda cycle: step * (cycle + 1), decay=decay)) > -0.003
    assert mean_quality(lived(lambda cycle: 2 * step, decay=decay)) > -0.003  # always worse


@pytest.mark.parametrize("error", [0.00115, 0.0033])
def test_a_year_of_worse_code_ends_where_it_began_and_a_worse_one_is_not_promoted_twice(
    error: float,
) -> None:
    """By the recipes' margin 23 and 43 % of codes that are 0.5 % worse are promoted twice."""
    code, setting = for_code(CONFIG), Setting(error=error)
    for step in (-0.0002, -0.002, -0.006):  # Another code each cycle.
        years = live_years(lambda cycle, c=step: c * (cycle + 1), setting, code, NUM_YEARS, SEED)
        assert np.mean([year.qualities[-1] for year in years]) > -0.001
    years = live_years(lambda cycle: -0.005, setting, code, 600, SEED)
    promoted = [[one.promoted is Promoted.CHALLENGER for one in year.outcomes] for year in years]
    assert (np.sum(promoted, axis=1) >= 2).mean() <= 0.05


def test_recipes_that_get_better_are_kept() -> None:
    years = lived(lambda cycle: 0.002 * (cycle + 1), decay=0.0, error=0.00115)
    assert mean_quality(years) > 0.95 * 0.002 * 27 / 2


@pytest.mark.parametrize("error", [0.00115, 0.0035, 0.01])
def test_a_worse_recipe_gains_nothing_by_a_small_change_in_every_cycle(error: float) -> None:
    """Judged by one holdout each, 46, 22 and 6 % of such challengers are promoted."""

    def promoted(step: float) -> float:
        years = lived(lambda cycle: -0.005 + step * cycle, decay=0.0, error=error)
        return float(np.mean([[o.decision is Decision.PROMOTE for o in y.outcomes] for y in years]))

    assert promoted(1e-9) <= promoted(0.0) + 0.05


def test_a_line_of_recipes_that_gets_better_is_believed_though_no_holdout_could_tell() -> None:
    years = lived(lambda cycle: 0.002 * (cycle + 1), decay=0.0, error=0.01)
    assert np.mean([year.qualities[-1] for year in years]) > 0.9 * 0.002 * 26


@pytest.mark.parametrize("decay", [0.0, 0.003])
def test_where_nothing_changes_something_fresh_is_promoted_within_two_cycles(decay: float) -> None:
    made = [year.outcomes for year in lived(lambda cycle: 0.0, decay=decay)]
    done = np.array([[one.promoted is not Promoted.NONE for one in year] for year in made])
    assert (done[:, 1:] | done[:, :-1]).mean() > 0.95


def test_the_curve_of_a_holdout_that_sees_well_and_of_one_that_sees_nothing() -> None:
    sure, blind = (
        {point.true_change: point for point in operating_curve(error, CONFIG)}
        for error in (0.001, 0.02)
    )
    assert tuple(sure) == TRUE_CHANGES
    assert sure[0.01].promoted > 0.95 and sure[0.01].rejected == 0
    assert sure[-0.01].rejected > 0.95 and sure[-0.01].promoted < 0.01
    assert sure[0.0].promoted > 0.95  # the accepted recipe itself
    # A worse recipe costs next to nothing over a year, and a better one is kept.
    assert min(point.year_quality for point in sure.values()) > -0.005
    assert sure[0.02].year_quality > 0.018
    assert blind[0.0].rejected < 0.01
    for true_change in (-0.005, 0.005):  # what is pooled over a year decides what little is decided
        assert max(blind[true_change].promoted, blind[true_change].rejected) < 0.3
    assert blind[-0.005].year_quality < sure[-0.005].year_quality  # it costs freshness


def test_a_change_of_recipe_has_the_error_of_two_seeds_beside_the_holdouts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Evidence] = []
    monkeypatch.setattr(years, "choose", lambda found, *_: seen.append(found) or LOST)
    lived(lambda cycle: 0.01, error=0.003, seed_noise=0.004)
    for found in seen:
        assert found.theta is not None and found.delta is not None and found.phi is not None
        assert found.delta.now.error == pytest.approx((0.003**2 + 2 * 0.004**2) ** 0.5)
        assert (found.theta.now.error, found.phi.now.error) == (0.003, 0.003)


@pytest.mark.parametrize(("error", "forgotten"), [(0.0071, 0.035), (0.0075, 0.11), (0.053, 0.09)])
def test_hides_do_not_creep_beside_a_target_that_gets_better(
    error: float, forgotten: float
) -> None:
    creep = Creep(target=0.003, hides=0.005, hide_error=error)
    assert mean_of(creep, CONFIG, NUM_YEARS, SEED).hides <= 0.03
    assert mean_of(creep, CONFIG, 40, SEED, has_memory=False).hides > forgotten
    calm = mean_of(replace(creep, hides=0.0), CONFIG, NUM_YEARS, SEED)
    assert calm.held <= 0.1 and calm.target > 0.9 * 0.003 * 26


def test_one_bad_recipe_of_a_good_line_is_seldom_promoted() -> None:
    for error in (0.0035, 0.01):
        years = lived(lambda cycle: -0.01 if cycle == 8 else 0.003, error=error)
        promoted = [year.outcomes[8].promoted is Promoted.CHALLENGER for year in years]
        assert np.mean(promoted) <= 0.1  # without its line, at most 1 %


def test_pooling_weighs_by_the_inverse_of_the_variance() -> None:
    found = years.pool([Estimate(0.01, 0.001), Estimate(0.03, 0.002)])
    assert found.value == pytest.approx((4 * 0.01 + 0.03) / 5)
    assert found.error == pytest.approx((1e6 + 2.5e5) ** -0.5)
