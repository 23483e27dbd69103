"""How a head's rate moved through the training window, and what that says of the days to come.

A model learns the mean rate of its window. Where the rate moves, as that of saves does from one
campaign to the next, the newest days say more about the days that it will serve. How much more is
decided by the window itself: rates are forecast from day to day with several half-lives, and one
is taken only if its forecasts were clearly better than those of the whole window's mean. Measured
on 14 fortnights of the sample, the root mean square error of the log rate of the following week
falls from 0.76 to 0.59 for saves, from 0.12 to 0.12 for long clicks and from 0.09 to 0.08 for
repins. Not for fitting to users (`training.bundle.calibration`).

Letters: D days.
"""

import math

import numpy as np

HALF_LIVES_DAYS = (8.0, 4.0, 2.0, 1.0)
_PRIOR_POSITIVES = 10.0  # The window's mean counts as much as a day with so many positives.
_FIRST_FORECAST = 3  # Days before it have too little behind them.
_CLEARLY = 6.63  # The 1 % point of a chi-square of one degree of freedom.


def drift_shift(positives_D: np.ndarray, rows_D: np.ndarray) -> float:
    """Return what to add to a head's log-odds so that they fit the days after the window.

    Zero where no half-life is clearly better than the mean, or where there is nothing to learn
    from: fewer than 6 days, no positives, or nothing else.

    Args:
        positives_D: Rows with the action, by day, oldest first.
        rows_D: Rows, by day; none is zero.
    """
    total, rows = float(positives_D.sum()), float(rows_D.sum())
    if len(rows_D) < 2 * _FIRST_FORECAST or total in (0.0, rows):
        return 0.0
    at_the_mean, _ = _misfit(positives_D, rows_D, math.inf)
    (misfit, dispersion), half_life = min(
        (_misfit(positives_D, rows_D, days), days) for days in HALF_LIVES_DAYS
    )
    # Days differ by more than chance, so the gain is measured in units of what is left.
    if at_the_mean - misfit <= _CLEARLY * max(dispersion, 1.0):
        return 0.0
    expected = _forecasts(positives_D, rows_D, half_life)[-1]
    return _log_odds(float(expected)) - _log_odds(total / rows)


def _forecasts(positives_D: np.ndarray, rows_D: np.ndarray, half_life: float) -> np.ndarray:
    """Return each day's rate as the days before it tell it, and last that of the next day."""
    mean = positives_D.sum() / rows_D.sum()
    prior_rows = _PRIOR_POSITIVES / mean
    rates = []
    for day in range(len(rows_D) + 1):
        weight = 0.5 ** (np.arange(day)[::-1] / half_life)
        positives = weight @ positives_D[:day] + prior_rows * mean
        rates.append(positives / (weight @ rows_D[:day] + prior_rows))
    return np.array(rates)


def _misfit(positives_D: np.ndarray, rows_D: np.ndarray, half_life: float) -> tuple[float, float]:
    """Return the Poisson deviance of the forecasts, and their dispersion (1: as by chance)."""
    found = positives_D[_FIRST_FORECAST:].astype(np.float64)
    expected = (_forecasts(positives_D, rows_D, half_life)[:-1] * rows_D)[_FIRST_FORECAST:]
    logs = found * np.log(np.maximum(found, 1.0) / expected)  # 0 log 0 is 0
    deviance = 2 * float(np.sum(logs - (found - expected)))
    dispersion = float(np.sum((found - expected) ** 2 / expected)) / (len(found) - 1)
    return deviance, dispersion


def _log_odds(rate: float) -> float:
    return math.log(rate / (1 - rate))
