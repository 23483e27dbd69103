"""Comparisons of two models whose difference is known, drawn by the thousand.

Users differ in activity and taste; both models hit mostly the same, as two models of one recipe do.
Not a model of people: only the shape of the sums matters here.
"""

from dataclasses import dataclass

import numpy as np

from validation.model_gate.bootstrap import RatioEstimate, UserSums, paired_bootstrap, user_groups

_BATCH = 100
_RESAMPLES = 1000


@dataclass(frozen=True)
class Population:
    """Who uses the product, and how much of a metric there is."""

    num_users: int
    sigma: float = 1.0  # of the logarithm of the users' activity
    heavy_share: float = 0.0  # of all requests, by one user
    rate: float = 1.5  # of the metric, per request
    shared: float = 0.9  # of the metric, the same in both models


def estimates(
    population: Population, num_trials: int, seed: int, change: float = 0.0
) -> list[RatioEstimate]:
    """Return the gate's estimates of comparisons whose true relative change is `change`."""
    rng = np.random.default_rng(seed)
    found: list[RatioEstimate] = []
    for start in range(0, num_trials, _BATCH):
        size = (population.num_users, min(_BATCH, num_trials - start))
        requests = np.ceil(rng.lognormal(0, population.sigma, size))
        if population.heavy_share:
            others = requests[1:].sum(axis=0)
            share = population.heavy_share
            requests[0] = np.ceil(others * share / (1 - share))
        expected = requests * population.rate * rng.gamma(2, 0.5, size)
        common = rng.poisson(expected * population.shared)
        own = 1 - population.shared
        sides = (
            common + rng.poisson(expected * (own + change)),
            common + rng.poisson(expected * own),
            requests,
        )
        sums = UserSums(*(_by_group(side) for side in sides))
        found += paired_bootstrap(sums, _RESAMPLES, 0.95, seed + start)
    return found


def _by_group(values: np.ndarray) -> np.ndarray:
    """Return the sums over users of each group, as the gate makes them."""
    _, group = user_groups(np.arange(len(values)))
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.add.reduceat(values[order].astype(np.float64), starts)


def coverage(found: list[RatioEstimate], change: float = 0.0) -> float:
    """Return the share of the intervals that cover the true change."""
    changes = [estimate.relative_change for estimate in found]
    return float(np.mean([c is not None and c.low <= change <= c.high for c in changes]))
