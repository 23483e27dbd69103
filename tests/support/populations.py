"""Simulated comparisons of two models that are equally good, in worlds that are more or less kind.

Not a model of people: only the shape of the sums by user and day matters here.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

import numpy as np

from pipelines.contracts.time import Window
from validation.model_gate.intervals import Cells, Measured, change_estimate, user_groups
from validation.model_gate.pooling import CycleChange, pool_cycles, tries_as_one


@dataclass(frozen=True)
class Population:
    """Who uses the product, how much of a metric there is, and what the days do to it.

    Users differ in activity and taste; both models hit mostly the same, as two models of one recipe
    do. What the challenger does beyond that varies by day for everybody, and by user for good.
    """

    num_users: int
    num_days: int = 14
    sigma: float = 1.0  # of the logarithm of the users' activity
    heavy_share: float = 0.0  # of all requests, by one user
    rate: float = 1.5  # of the metric, per request
    shared: float = 0.9  # of the metric, the same in both models
    zero_share: float = 0.0  # of users who never do it
    day_sd: float = 0.0  # of the relative change, by day
    taste_sd: float = 0.0  # of the relative change, by user

    def compare(
        self,
        rng: np.random.Generator,
        change: float = 0.0,
        people: np.random.Generator | None = None,
    ) -> Measured | None:
        """Return the gate's estimate of the change in one drawn comparison.

        `people` draws the users; a new one of the same seed draws the same users.
        """
        of_users = people or rng
        requests = np.ceil(of_users.lognormal(0, self.sigma, self.num_users))
        if self.heavy_share:
            others = requests[1:].sum()
            requests[0] = np.ceil(others * self.heavy_share / (1 - self.heavy_share))
        acts = of_users.random(self.num_users) >= self.zero_share
        taste = of_users.gamma(2, 0.5, self.num_users) * acts
        expected = requests * taste * self.rate / (1 - self.zero_share)
        own = 1 - self.shared
        differs = of_users.normal(0, self.taste_sd, self.num_users)
        moved = np.maximum(own + change + differs, 0)
        # What a group's users do is a Poisson number too, so that it can be drawn at once.
        _, group = user_groups(np.arange(self.num_users))
        by_group, by_mover = np.bincount(group, expected), np.bincount(group, expected * moved)
        share = by_group[:, None] / self.num_days * np.ones(self.num_days)
        days = rng.normal(0, self.day_sd, self.num_days)
        common = rng.poisson(share * self.shared)
        extra = by_mover[:, None] / self.num_days + share * days
        ours = common + rng.poisson(np.maximum(extra, 0))
        theirs = common + rng.poisson(share * own)
        cells = _cells(len(by_group), self.num_days)
        return change_estimate(*(s.ravel().astype(np.float64) for s in (ours, theirs)), cells)


@cache
def _cells(num_groups: int, num_days: int) -> Cells:
    return Cells.of(
        np.repeat(np.arange(num_groups), num_days), np.tile(np.arange(num_days), num_groups)
    )


class Coverage(NamedTuple):
    """What came of many comparisons of equal models."""

    covered: float  # share of intervals that hold zero
    covered_by_users: float  # the same if only users varied, normally distributed
    error_ratio: float  # the mean standard error over that of users alone


def coverage(population: Population, num_trials: int, seed: int) -> Coverage:
    """Draw comparisons without a difference, and count the 95 % intervals that say so."""
    rng = np.random.default_rng(seed)
    found = [measured for _ in range(num_trials) if (measured := population.compare(rng))]
    values = np.abs([each.value for each in found])
    reaches = np.array([1.96 * each.error for each in found])
    users = np.sqrt([each.users.variance for each in found])
    whole = np.sqrt([each.users.variance + each.days.variance for each in found])
    return Coverage(
        float(np.mean(values <= reaches)),
        float(np.mean(values <= 1.96 * users)),
        float(whole.mean() / users.mean()),
    )


def pooled_coverage(population: Population, num_cycles: int, num_trials: int, seed: int) -> float:
    """Pool cycles of the same users and of other days; return how often no change is held for one.

    That is the share of 95 % intervals of the pooled change that hold zero.
    """
    rng, groups = np.random.default_rng(seed), user_groups(np.arange(population.num_users))[0]
    cells, covered = _cells(len(groups), population.num_days), []
    first, apart = datetime(2017, 3, 1, tzinfo=UTC), timedelta(days=population.num_days)
    for trial in range(num_trials):
        cycles = []
        for number in range(num_cycles):
            people = np.random.default_rng((seed, trial))
            found = population.compare(rng, people=people)
            assert found is not None
            start = first + number * apart
            window, users = Window(start=start, end=start + apart), cells.by_group(found.influences)
            cycles.append(CycleChange(window, found.value, groups, users, found.days))
        pooled, _ = pool_cycles(tries_as_one(cycles))
        covered.append(abs(pooled.value) <= 1.96 * pooled.error)
    return float(np.mean(covered))
