"""When a champion got worse than its age lets expect: a test that may be looked at every day.

A threshold that is read daily raises a false alarm sooner or later; an *e-detector* does not (Shin,
Ramdas and Rinaldo, E-detectors, 2023). Of a day's change x with standard error s and allowance a,
and of each size d of a loss, with the mean over sizes taken at the end:

    e = exp(-d (x + a) / s^2 - d^2 / (2 s^2)),    M = (1 + M of the day before) * e

While nothing is lost beyond the allowance, an e is 1 on average at most, so that M less the number
of days does not grow on average, and reaches so many days once in so many days at most. M is begun
anew each day, because a loss may begin on any day: the good ones before are no evidence against it.
Errors are scaled by how far neighbouring days were apart before, those of earlier champions too: a
lasting loss is in one of these differences alone. Errors are estimates, so the bound was measured
(docs/benchmarks.md, `monitor_`).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from pipelines.contracts.reasons import Interval

SIZES, PRIOR_DAYS = (0.01, 0.02, 0.05, 0.1), 10
"""Losses that are looked for, and days that vary as their errors say, assumed before the first."""


class Day(NamedTuple):
    """A day's change, its standard error, and how far it may be below 0 without any loss."""

    change: float
    error: float
    allowance: float = 0.0


def spread_of(days: Sequence[Day]) -> list[float]:
    """Return squared differences of neighbouring days, 1 on average where errors say all."""
    return [
        (one.change - other.change) ** 2 / (one.error**2 + other.error**2)
        for one, other in pairwise(days)
    ]


def evidence_of_loss(
    days: Sequence[Day],
    days_per_false_alarm: float,
    sizes: Sequence[float] = SIZES,
    before: Sequence[float] = (),
) -> list[float]:
    """Return by day what share of an alarm's evidence there is of a loss; 1 and more is one.

    `before` is the spread of days that earlier champions had.
    """
    sums, size = np.full(len(sizes), -np.inf), np.array(sizes)
    found, of_days = list[float](), spread_of(days)
    for n, (change, error, allowance) in enumerate(days):
        spread = [*before, *of_days[: max(n - 1, 0)]]  # Not of the day itself.
        variance = error**2 * (PRIOR_DAYS + sum(spread)) / (PRIOR_DAYS + len(spread))
        log_e = -(size * (change + allowance) + size**2 / 2) / variance
        sums = np.logaddexp(sums, 0) + log_e
        share = float(logsumexp(sums)) - np.log(len(size) * days_per_false_alarm)
        found.append(float(np.exp(min(share, 50.0))))
    return found


def mean_change(days: Sequence[Day], confidence: float, around: int = 7) -> Interval:
    """Return the mean of days, with an interval that holds on all days at once.

    It is Robbins' normal mixture (Howard, Ramdas, McAuliffe and Sekhon, Time-uniform,
    nonparametric, nonasymptotic confidence sequences, 2021), narrowest `around` so many days.
    """
    weights = np.array([1 / day.error**2 for day in days])
    value, known = np.average([day.change for day in days], weights=weights), weights.sum()
    tuned = around * np.median(weights) / (2 * np.log(1 / (1 - confidence)) + 1)
    inner = np.log((known + tuned) / (tuned * (1 - confidence) ** 2))
    half = float(np.sqrt((known + tuned) * inner) / known)
    return Interval(value=value, low=value - half, high=value + half, confidence=confidence)
