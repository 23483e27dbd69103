"""Intervals over users and days, held against what is known of them, and against drawn worlds."""

import math
from typing import Any

import numpy as np
import pytest

from support.populations import Population, coverage
from validation.model_gate.intervals import (
    MAX_GROUPS,
    NOTHING,
    Cells,
    Measured,
    Part,
    change_estimate,
    day_part,
    error_of,
    ratio_estimate,
    reach,
    smallest_detectable_change,
    total,
    user_groups,
    user_part,
)


def cells(users: Any, days: Any) -> Cells:
    return Cells.of(np.array(users), np.array(days))


def test_the_variance_is_that_of_users_and_of_days_less_what_both_count() -> None:
    # Users a, a, b, c on days 0, 1, 0, 1.
    where = cells([0, 0, 1, 2], [4, 9, 4, 9])
    influences = where.sums(np.array([0.3, 0.1, 0.2, -0.6]))
    found = Measured.of(0.0, influences, where)
    by_user, by_day = np.array([0.4, 0.2, -0.6]), np.array([0.5, -0.5])
    squares = by_user**2
    assert found.users.variance == pytest.approx(squares.sum() * 3 / 2)
    assert found.users.freedom == pytest.approx(squares.sum() ** 2 / (squares**2).sum() - 1)
    days = (by_day**2).sum() * 2 - (influences**2).sum()
    assert found.days.variance == pytest.approx(days)
    # What is left of the days' variance is known as badly as the whole of it.
    assert found.days.variance**2 / found.days.freedom == pytest.approx((by_day**2).sum() ** 2 * 4)
    assert found.day_share == pytest.approx(days / (days + squares.sum() * 3 / 2))


def test_one_day_is_no_evidence_on_days_and_one_user_none_at_all() -> None:
    some = np.array([0.1, -0.3, 0.2])
    assert day_part(some, cells([0, 1, 2], [7, 7, 7])) == NOTHING
    # Days that hold what users make add nothing, and never less than nothing.
    assert day_part(np.array([0.1, -0.1, 0.1, -0.1]), cells([0, 1, 2, 3], [0, 0, 1, 1])) == NOTHING
    assert user_part(np.array([0.1, 0.0])).variance == math.inf
    assert Measured.of(0.1, np.array([0.2]), cells([0], [0])).interval(0.95) is None


def test_few_users_who_make_a_difference_widen_the_interval() -> None:
    assert reach(Part(4.0, math.inf), 0.95) == pytest.approx(2 * 1.96, abs=1e-3)
    assert reach(Part(4.0, 2.0), 0.95) == pytest.approx(2 * 4.303, abs=1e-3)
    assert error_of([Part(4.0, 2.0)]) == pytest.approx(2 * 4.303 / 1.96, abs=1e-3)
    # Satterthwaite: (1 + 4)^2 / (1 / 10 + 16 / 4).
    assert total([Part(1.0, 10.0), Part(4.0, 4.0), NOTHING]) == (5.0, pytest.approx(25 / 4.1))
    assert Part(1.0, 10.0).scaled(0.5) == (0.25, 10.0)
    even, heavy = np.tile([0.1, -0.1], 50), np.array([0.7, -0.7, *np.tile([0.014, -0.014], 49)])
    assert user_part(even).freedom == pytest.approx(99)
    assert user_part(heavy).freedom < 2


def test_ratios_that_do_not_exist_have_no_estimate_and_equal_sides_do_not_differ() -> None:
    where = cells([0, 1, 2], [0, 1, 0])
    ones, zeros = np.ones(3), np.zeros(3)
    assert ratio_estimate(ones, zeros, where) is None
    assert ratio_estimate(np.array([1, math.nan, 1]), ones, where) is None
    assert change_estimate(ones, zeros, where) is None
    same = change_estimate(np.array([1.0, 2.0, 0.1]), np.array([1.0, 2.0, 0.1]), where)
    assert same is not None and (same.value, same.error, same.day_share) == (0.0, 0.0, 0.0)
    rare = ratio_estimate(np.array([0.0, 0.0, 1.0]), ones, where)
    assert rare is not None and (found := rare.interval(0.95, lowest=0.0)) is not None
    assert (found.low, found.value) == (0.0, pytest.approx(1 / 3))


def test_smallest_detectable_change_is_bloom_s_multiple() -> None:
    # z(0.975) + z(0.8) = 1.95996 + 0.84162
    assert smallest_detectable_change(0.01, 0.95) == pytest.approx(0.0280158, abs=1e-6)
    assert smallest_detectable_change(0.01, 0.9) == pytest.approx(0.0248647, abs=1e-6)
    assert smallest_detectable_change(0.0, 0.95) == 0.0


@pytest.mark.parametrize(
    "population",
    [
        Population(1_000),
        # Intervals over users alone cover 69, 84 and 87 % of 1,000 of these three.
        Population(5_000, day_sd=0.02),
        Population(1_000, num_days=7, day_sd=0.02),
        Population(1_000, sigma=2.0, zero_share=0.7, taste_sd=0.05),
    ],
)
def test_intervals_cover_the_truth_as_often_as_they_say(population: Population) -> None:
    found = coverage(population, 300, seed=10)
    # Three standard deviations of a binomial below 93.5 %: a sound interval passes by any seed.
    assert found.covered >= 0.935 - 3 * math.sqrt(0.935 * 0.065 / 300)
    assert found.covered_by_users <= found.covered


def test_users_keep_their_group_from_cycle_to_cycle_and_few_users_are_groups_of_one() -> None:
    few_groups, few = user_groups(np.array([7, 3, 7, 5]))
    assert (len(few_groups), few[0]) == (3, few[2])

    everybody = np.arange(200_000)
    groups, group = user_groups(everybody)
    assert len(groups) == MAX_GROUPS
    again = user_groups(everybody[::-1])[1][::-1]
    assert (again == group).all()  # whoever else is there, where no group is empty
    assert np.bincount(group).max() < 40  # 12 on average
