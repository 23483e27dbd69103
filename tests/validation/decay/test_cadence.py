"""What a cadence loses and costs, and schedules over windows whose changes are known."""

import numpy as np
import pytest

from validation.decay.cadence import (
    CADENCES,
    cheapest,
    cost_of_cadences,
    every,
    mean_loss,
    replay,
    trust_in,
    turning_points,
    when_due,
)
from validation.decay.curve import Estimate

LAGS = np.array([14, 28])
STRAIGHT = Estimate(
    LAGS, np.array([9, 8]), np.array([-0.02, -0.04]), np.array([0.003, 0.004]), np.eye(2)
)


def test_a_cadence_loses_the_mean_of_the_curve_over_the_ages() -> None:
    curve = np.array([[-0.02, -0.04]])
    assert mean_loss(curve, LAGS, 14.0)[0] == pytest.approx(0.01)
    assert mean_loss(curve, LAGS, 3.5)[0] == pytest.approx(0.0025)
    assert mean_loss(curve, LAGS, 28.0)[0] == pytest.approx(0.02)
    level = (0.02 * 28 + 0.04 * (365 - 28)) / 365  # beyond the last lag it stays
    assert mean_loss(curve, LAGS, 365.0)[0] == pytest.approx(level, rel=1e-3)


def test_the_cheapest_cadence_is_that_of_least_loss_and_hours() -> None:
    """With a loss of b a day and a price p it is the square root of 2 p / b."""
    found = cost_of_cadences(STRAIGHT, core_hours=0.2, value=0.05, confidence=0.95)
    assert [each.days for each in found] == list(CADENCES)
    best = cheapest(found)
    assert best is not None and best.days == 7.0 and (best.chance or 0) > 0.9
    assert sum(each.chance or 0 for each in found) == pytest.approx(1.0)
    assert best.cost is not None and best.cost.low < best.cost.value < best.cost.high
    turns = turning_points(found)
    assert [each.days for _, each in turns] == [None, 28.0, 14.0, 7.0, 3.5, 1.0]
    below, above = (value for value, each in turns if each.days in (7.0, 3.5))
    assert below < 0.05 < above
    for value, days in ((below * 0.99, 14.0), (above * 1.01, 3.5)):
        again = cheapest(cost_of_cadences(STRAIGHT, 0.2, value, 0.95))
        assert again is not None and again.days == days
    free = cost_of_cadences(STRAIGHT, core_hours=0.2, value=None, confidence=0.95)
    assert cheapest(free) is None and free[0].cost is free[0].chance is None
    # Warm models of half the price are made twice as often, and are 0.5 % worse at first.
    beside = Estimate(
        LAGS - 14, LAGS, np.array([-0.005, 0.005]), np.array([0.001, 0.001]), np.eye(2)
    )
    at_cost = cost_of_cadences(STRAIGHT, 0.2, None, 0.95, (beside, 0.5))
    weekly = at_cost[2].warm
    assert weekly is not None and weekly.low < weekly.value < weekly.high
    later = 3.5 / 2 / 14
    assert weekly.value == pytest.approx(0.005 - 0.0025 - 0.005 + 0.01 * later, abs=1e-5)
    assert at_cost[-1].warm is None and found[2].warm is None
    nothing = Estimate(LAGS[:0], LAGS[:0], LAGS[:0], LAGS[:0], np.eye(0))
    assert cost_of_cadences(nothing, 0.2, 0.05, 0.95) == ()


def test_a_schedule_that_watches_trains_when_what_was_lost_is_its_price() -> None:
    age = np.maximum(-np.subtract.outer(np.arange(12), np.arange(12)), 0)
    steady = -0.01 * age
    fixed = replay(steady, every(4))
    assert fixed.trained == [0, 4, 8] and fixed.lost[:5].tolist() == [0.0, 0.01, 0.02, 0.03, 0.0]
    due = replay(steady, when_due(steady, np.full_like(steady, np.nan), 0.0999, trust=0.0))
    assert due.trained == [0, 4, 8]  # 0.01 to 0.04 lost are the price
    sudden = steady.copy()
    sudden[:5, 5:] -= 0.2  # what is trained before window 5 is lost from then on
    trust = trust_in(steady, sudden, sudden)
    assert trust == pytest.approx(1.0, abs=0.05)
    watching = replay(sudden, when_due(steady, sudden, 0.0999, trust))
    assert 6 in watching.trained  # it was seen in window 5
    assert watching.lost.sum() < replay(sudden, every(4)).lost.sum()
    assert trust_in(steady, steady, steady) == 0.0
