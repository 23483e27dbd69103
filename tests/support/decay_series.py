"""Series of models that age as it is known: what trained ones vary by, and how they lose."""

import math
from collections.abc import Callable

import numpy as np

from validation.decay.curve import Pair

LUCK, ODD, TASTES = 0.006, 0.004, 0.02
"""Standard deviations: of a model by its seed, of a window for all models, of users' own decay."""
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
            noise = rng.normal(0, 0.2, num_users) * np.sqrt(fresh)
            pairs.append(Pair(old, window, lag, fresh * lost + noise, fresh, users))
    return pairs


def year(rng: np.random.Generator, is_sudden: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a year of weeks, (52, 52): true change of a model on a window, and what is seen of it.

    Where tastes shift suddenly, three times a year, each model of before loses 5 % more from then
    on. What is seen without a fresh model is 1.5 % off.
    """
    num = 52
    ages = np.maximum(-np.subtract.outer(np.arange(num), np.arange(num)), 0)
    true = np.vectorize(saturating)(7.0 * ages)
    for at in rng.integers(2, num, 3) if is_sudden else ():
        true[:at, at:] -= 0.05
    return true, true + rng.normal(0, 0.015, true.shape) * (ages > 0)
