"""Pooling over cycles, held against resampling of users over all the cycles at once."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from pipelines.contracts.reasons import PooledChange
from pipelines.contracts.time import Window
from support.comparisons import TARGET, change, comparison, metric
from validation.model_gate.intervals import NOTHING, Part, error_of, user_groups, user_part
from validation.model_gate.policy import Estimate
from validation.model_gate.pooling import (
    CycleChange,
    Influences,
    end_of_walk,
    pool_cycles,
    pool_with,
    tries_as_one,
)

START = datetime(2017, 3, 1, tzinfo=UTC)


def week(number: float) -> Window:
    start = START + timedelta(weeks=number)
    return Window(start=start, end=start + timedelta(weeks=1))


def as_change(number: int, users: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> CycleChange:
    groups, place = user_groups(users)
    sums = [np.bincount(place, side, minlength=len(groups)) for side in (ours, theirs)]
    ratio, total = ours.sum() / theirs.sum(), theirs.sum()
    column = (sums[0] - ratio * sums[1]) / total
    return CycleChange(week(number), float(ratio - 1), groups, column)


def standard_error(influences: np.ndarray) -> float:
    return error_of([user_part(influences)])


def test_the_pooled_error_is_that_of_resampling_users_over_all_cycles() -> None:
    num_users, rng, cycles = 2_000, np.random.default_rng(3), []
    taste = rng.normal(0, 0.3, num_users)  # a user's taste stays from cycle to cycle
    for _ in range(4):
        users = np.flatnonzero(rng.random(num_users) < 0.7)
        baseline = rng.poisson(3.0, len(users)).astype(float)
        noise = rng.normal(0, 0.3, len(users))
        cycles.append((users, baseline * 1.02 + taste[users] + noise, baseline))
    pooled, _ = pool_cycles([as_change(n, *cycle) for n, cycle in enumerate(cycles)])

    rng, draws = np.random.default_rng(4), []
    for _ in range(2_000):
        weights = np.bincount(rng.integers(0, num_users, num_users), minlength=num_users)
        changes = [(weights[users] @ ours) / (weights[users] @ theirs) - 1
                   for users, ours, theirs in cycles]  # fmt: skip
        draws.append(np.mean(changes))
    assert pooled.error == pytest.approx(float(np.std(draws)), rel=0.08)
    # As if users were new in every cycle, the error would come out far too small.
    alone = [standard_error(as_change(n, *cycle).influences) for n, cycle in enumerate(cycles)]
    assert 1 / math.sqrt(sum(1 / error**2 for error in alone)) < 0.75 * pooled.error


def flat(number: int, value: float, influence_of_each: float, first: int = 0) -> CycleChange:
    groups = np.arange(first, first + 100)
    return CycleChange(week(number), value, groups, np.full(100, influence_of_each))


def test_cycles_are_weighted_by_the_inverse_of_their_variance() -> None:
    sure, unsure = flat(0, 0.01, 0.0001), flat(2, 0.09, 0.0002, first=100)
    found, num_cycles = pool_cycles([sure, unsure])
    assert num_cycles == 2
    assert found.value == pytest.approx(0.8 * 0.01 + 0.2 * 0.09)
    assert found.error < standard_error(sure.influences)
    assert pool_cycles([sure])[0].error == pytest.approx(standard_error(sure.influences))
    # A cycle that saw nothing of a change acquits nobody; seeds add to the variance of each.
    seen, equal = flat(0, 0.05, 0.001), flat(2, 0.0, 0.0)
    assert pool_cycles([equal, seen]) == pool_cycles([seen])
    assert pool_cycles([equal, equal]) == (Estimate(0.0, 0.0), 2)
    assert pool_cycles([equal, equal], 0.0002)[0].error == pytest.approx(math.sqrt(0.0002 / 2))


def test_users_return_and_days_do_not() -> None:
    days = Part(0.0004, 13.0)
    cycles = [replace(flat(2 * n, 0.01, 0.001), days=days) for n in range(4)]
    users = user_part(cycles[0].influences)
    # Four cycles of the same users are worth one; their days are worth four times as much.
    found, _ = pool_cycles(cycles)
    assert found.error == pytest.approx(error_of([users, *[days.scaled(0.25)] * 4]))
    assert found.error < 0.65 * pool_cycles(cycles[:1])[0].error


def test_cycles_whose_days_were_alike_by_luck_do_not_count_more() -> None:
    days = (Part(0.00001, 6.0), Part(0.0009, 6.0))
    cycles = [replace(flat(2 * n, n, 0.001), days=part) for n, part in enumerate(days)]
    assert pool_cycles(cycles)[0].value == pytest.approx(0.5)


@pytest.mark.parametrize("num_cycles", [3, 6])
def test_pooled_intervals_hold_the_truth_where_days_move_everybody(num_cycles: int) -> None:
    freedom, spread = 13, 0.0027  # of 14 days of 1 %, whose variance is known by these days alone
    rng, num_trials, covered = np.random.default_rng(5), 4_000, 0
    for _ in range(num_trials):
        values = rng.normal(0, spread, num_cycles)
        parts = spread**2 * rng.chisquare(freedom, num_cycles) / freedom
        cycles = [
            replace(flat(2 * n, value, 1e-6), days=Part(part, freedom))
            for n, (value, part) in enumerate(zip(values, parts, strict=True))
        ]
        pooled, _ = pool_cycles(cycles)
        covered += abs(pooled.value) <= 1.96 * pooled.error
    assert 0.94 < covered / num_trials < 0.97


def test_tries_on_holdouts_that_overlap_are_averaged() -> None:
    def at(number: float, first: int = 0, days: float = 0.0) -> CycleChange:
        groups = np.arange(first, first + 2)
        return CycleChange(week(number), number, groups, np.array([0.1, 0.3]), Part(days, 6.0))

    one, two, three = tries_as_one([at(4), at(3.5, 1, 0.04), at(3), at(2.9, 3, 0.01), at(1)])
    assert (one.value, one.holdout, one.days) == (3.75, week(4), Part(0.04, 6.0))
    assert one.groups.tolist() == [0, 1, 2]
    assert one.influences == pytest.approx([0.05, 0.2, 0.15])  # half of each; the users return
    assert (two.value, three.value, three.holdout) == (pytest.approx(2.95), 1, week(1))


def in_line(found: float, *others: float, name: str = TARGET) -> PooledChange:
    """Return what is known of a recipe that was changed since each of the others, in their order.

    Each error is 0.01, and each holdout has users of its own.
    """
    now, target = comparison(change(found), hide=change(found)), (name, "all")
    days = timedelta(days=7)
    column = np.full(200, 0.01 / math.sqrt(200))
    groups = np.arange(200)
    earlier = [
        CycleChange(
            Window(start=now.holdout.start - n * days, end=now.holdout.end - n * days),
            value,
            200 * n + groups,
            column,
            steps=n,
        )
        for n, value in enumerate(others, 1)
    ]
    mine = Influences(groups, {target: column}, {target: NOTHING})
    [row] = pool_with(now, mine, {target: earlier}, steps={target[0]: 0.005}).pooled
    return row


def test_a_changed_recipe_is_held_to_its_line_and_older_ones_count_for_less() -> None:
    row = in_line(0.01, -0.01, -0.01)
    error, step = 0.01, 0.005
    shared = step**2 * np.minimum.outer([0, 1, 2], [0, 1, 2]) + error**2 * np.eye(3)
    weights = np.linalg.solve(shared, np.ones(3))
    weights /= weights.sum()
    assert row.pooled_value == pytest.approx(float(weights @ [0.01, -0.01, -0.01]), rel=0.01)
    assert row.pooled_error == pytest.approx(math.sqrt(weights @ shared @ weights), rel=0.01)
    assert row.num_cycles == 3 and row.line is not None
    assert row.line.value == pytest.approx(-0.01 / 3)
    assert row.line.high == pytest.approx(row.line.value + 1.645 * error / math.sqrt(3), rel=0.01)


def test_how_far_a_line_has_moved_is_the_end_of_a_walk_that_was_seen_with_noise() -> None:
    values, variances, step = [0.02, -0.01, 0.03, 0.01], [1e-4, 4e-4, math.inf, 1e-4], 0.01
    steps = [0, 0, 1, 3]  # The newest recipe was seen twice, the first of the line before two more.
    mean = variance = 0.0  # By Kalman's own steps, the oldest first, each change of recipe one.
    for change_of, noise, value in ((1, 1e-4, 0.01), (2, math.inf, 0), (1, 4e-4, -0.01)):
        variance += change_of * step**2
        gain = variance / (variance + noise)
        mean, variance = mean + gain * (value - mean), variance * (1 - gain)
    gain = variance / (variance + 1e-4)
    mean, variance = mean + gain * (0.02 - mean), variance * (1 - gain)
    found = end_of_walk(*map(np.array, (values, variances, steps)), step)
    assert found.value == pytest.approx(mean)
    assert found.error == pytest.approx(math.sqrt(variance))
    unseen = end_of_walk(np.array([0.5]), np.array([math.inf]), np.array([0]), step)
    assert (unseen.value, unseen.error) == (0, step)
    assert in_line(0.01, 0.01).since_accepted is None  # The target has a line of its own.
    of_hides, error = in_line(0.01, -0.01, name="hit_at_3.hide"), np.array([1e-4, 1e-4])
    expected = end_of_walk(np.array([0.01, -0.01]), error, np.array([0, 1]), 0.005)
    assert of_hides.since_accepted is not None and of_hides.num_cycles == 1
    assert of_hides.since_accepted.value == pytest.approx(expected.value, rel=0.01)
    assert of_hides.since_accepted.error == pytest.approx(expected.error, rel=0.01)


def test_a_recipe_that_is_surely_better_than_its_line_is_judged_alone() -> None:
    row = in_line(0.04, -0.01, -0.01)
    assert (row.pooled_value, row.num_cycles, row.line) == (0.04, 1, None)
    worse = in_line(-0.04, 0.01, 0.01)  # It is not spared what it is.
    assert worse.num_cycles == 3 and worse.pooled_value < -0.01


def test_a_comparison_is_pooled_change_by_change() -> None:
    found = comparison(change(0.01), add=(metric("hit_at_3.hide", None),))
    column, target = np.array([0.001, -0.001, 0.0005]), (TARGET, "all")
    hide = ("hit_at_3.hide", "all")  # it has no relative change here
    days = Part(1e-6, 6.0)
    mine = Influences(
        np.array([1, 5, 9]), {target: column, hide: column}, {target: days, hide: NOTHING}
    )
    start = found.holdout.start
    before = Window(start=start - timedelta(days=7), end=start)
    earlier = CycleChange(before, 0.03, np.array([1, 7, 9]), column, days)
    # The same holdout counts once.
    pooled = pool_with(found, mine, {target: [earlier, earlier]}, 8e-6, num_tries=3)
    assert pooled.num_tries == 3
    [row] = pooled.pooled
    assert (row.metric, row.segment, row.num_cycles) == (TARGET, "all", 2)
    assert (row.value, row.pooled_value) == (0.01, pytest.approx(0.02))
    seeds = Part(8e-6, math.inf)
    assert row.error == pytest.approx(error_of([user_part(column), days, seeds]))
