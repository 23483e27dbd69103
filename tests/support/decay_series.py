"""Series of models that age as it is known: what trained ones vary by, and how they lose."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from validation.decay.curve import Pair

LUCK, ODD, TASTES, USER = 0.014, 0.006, 0.045, 0.54
"""Standard deviations: of a model by its seed, of a window for all models, of users' own decay, of
a user's sums per root of the hits. By `spread_of` they are those that trained worlds showed."""
TRUE_DAYS, TRUE_LOSS = 60.0, 0.04
Fall = Callable[[float], float]
"""Change of a model by its age in days."""


def saturating(lag: float) -> float:
    """Return the change that falls to -4 % within some months."""
    return -TRUE_LOSS * (1 - math.exp(-lag / TRUE_DAYS))


def linear(lag: float) -> float:
    """Return a change of -0.14 % a week."""
    return -0.0002 * lag


def series(
    seed: int, num_windows: int = 14, luck: float = LUCK, fall: Fall = saturating, step: int = 14
) -> list[Pair]:
    """Pairs of models whose luck, windows and users differ, as trained ones do."""
    rng, num_users = np.random.default_rng(seed), 500
    activity, tastes = rng.gamma(0.5, 2, num_users), rng.normal(0, TASTES, num_users)
    lucky, users = rng.normal(0, luck, num_windows), np.arange(num_users)
    pairs = []
    for window in range(num_windows):
        fresh = rng.poisson(activity * 3).astype(float)
        odd = rng.normal(0, ODD)
        for old in range(window):
            lag = (window - old) * step
            lost = fall(lag) * (1 + tastes / TRUE_LOSS) + lucky[old] - lucky[window] + odd
            noise = rng.normal(0, USER, num_users) * np.sqrt(fresh)
            pairs.append(Pair(old, window, lag, fresh * lost + noise, fresh, users))
    return pairs


def year(rng: np.random.Generator, is_sudden: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a year of weeks, (52, 52): true change of a model on a window, and what is seen of it.

    Where tastes shift suddenly, three times a year, each model of before loses 5 % more from then
    on. What is seen without a fresh model is off by its luck, by the window and by 1.2 % of noise.
    """
    num = 52
    ages = np.maximum(-np.subtract.outer(np.arange(num), np.arange(num)), 0)
    true = np.vectorize(saturating)(7.0 * ages)
    for at in rng.integers(2, num, 3) if is_sudden else ():
        true[:at, at:] -= 0.05
    off = rng.normal(0, LUCK, (num, 1)) + rng.normal(0, ODD, num) + rng.normal(0, 0.012, true.shape)
    return true, true + off * (ages > 0)


class Spread(NamedTuple):
    """Standard deviations by which pairs vary about their curve, as `series` draws them."""

    luck: float  # Of a model by its seed.
    odd: float  # Of a window for all models.
    tastes: float  # Of users' own change.
    user: float  # Of a user's sums on a window, per root of the hits.


def spread_of(pairs: Sequence[Pair]) -> Spread:
    """Return what pairs vary by, from the products of residuals that share one thing alone.

    A model's luck is what two windows of the same older model share; an odd window, with the luck
    of its own model, is what two older models on the same window share; users' own change is what
    two pairs without a common model or window share on the same users.
    """
    lag = np.array([pair.lag_days for pair in pairs], dtype=np.float64)
    basis = np.stack([lag, 1 - np.exp(-lag / TRUE_DAYS)], axis=1)
    change = np.array([pair.change for pair in pairs])
    residual = change - basis @ np.linalg.lstsq(basis, change, rcond=None)[0]
    both = list(itertools.combinations(range(len(pairs)), 2))

    def shared(is_meant: Callable[[Pair, Pair], bool]) -> float:
        found = [residual[a] * residual[b] for a, b in both if is_meant(pairs[a], pairs[b])]
        return float(np.mean(found))

    luck = shared(lambda a, b: a.old == b.old)
    window = shared(lambda a, b: a.window == b.window)
    own, whole, square = 0.0, 0.0, 0.0
    for a, b in both:
        if not {pairs[a].old, pairs[a].window} & {pairs[b].old, pairs[b].window}:
            _, one, two = np.intersect1d(pairs[a].group, pairs[b].group, return_indices=True)
            lost, other = (p.lost - p.change * p.fresh for p in (pairs[a], pairs[b]))
            own += float(lost[one] @ other[two])
            whole += float(pairs[a].fresh[one] @ pairs[b].fresh[two])
    for pair in pairs:
        square += float(((pair.lost - pair.change * pair.fresh) ** 2).sum())
    hits = sum(float(pair.fresh.sum()) for pair in pairs)
    parts = luck, window - luck, own / whole, square / hits
    return Spread(*(math.sqrt(max(part, 0.0)) for part in parts))
