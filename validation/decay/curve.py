"""The decay curve: what a model loses against one that was trained later, by the days between.

A pair is an older model and a window on whose requests it and the window's own model were scored.
The change of a lag is that of the sums over all pairs of that lag. What makes it uncertain:

- Pairs share models and windows. A model that was lucky in training is lucky in every pair, and an
  odd window is odd for every model. So the variance is clustered by both ends of a pair, where two
  pairs vary together if they have an end in common (dyadic clustering: Aronow, Samii and Assenova,
  Cluster-Robust Variance Estimation for Dyadic Data, Political Analysis 23(4), 2015).
- Users come back in later windows with the tastes that they had: what their sums over windows vary
  more than their sums by window do is added (two ways of clustering, as in `intervals`).

The residuals of few pairs are too small, because the change was fitted to them: the variance is
scaled to what it would be if pairs that share no end were independent, and is never below that of
the users alone. The quantile is Student's with one degree less than there are pairs. The band holds
all lags at once: it reaches so many standard errors as the largest deviation of any lag does
(sup-t; Montiel Olea and Plagborg-Moller, Simultaneous Confidence Bands, Journal of Applied
Econometrics 34(1), 2019). docs/decay.md has its coverage on known curves.

Letters: P pairs, L lags, C cells of a window, G groups of users, D draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.contracts.decay import DecayCurve, DecayPoint
from pipelines.contracts.reasons import Interval
from validation.model_gate.intervals import MAX_GROUPS, FloatArray

FEWEST_PAIRS = 4
"""Of a lag that is told: of fewer, nothing says how models and windows differ."""
_DRAWS, _SEED = 20_000, 2023


@dataclass(frozen=True)
class Pair:
    """An older model beside a window's own, on the window's requests."""

    old: int  # The window of the older model, from 0 on in time.
    window: int  # The window, and its own model.
    lag_days: int
    lost: np.ndarray  # (C,) sums of the older model less those of the window's own
    fresh: np.ndarray  # (C,) sums of the window's own
    group: np.ndarray  # (C,) each cell's group of users, by its number in every window

    @property
    def change(self) -> float:
        """The relative change on this window alone; NaN where the fresh model has nothing."""
        whole = float(self.fresh.sum())
        return float(self.lost.sum()) / whole if whole else math.nan


@dataclass(frozen=True)
class Estimate:
    """Changes by lag with all that they have in common."""

    lags: np.ndarray  # (L,) days
    num_pairs: np.ndarray  # (L,)
    value: np.ndarray  # (L,)
    error: np.ndarray  # (L,) 1.96 of it reach as far as the 95 % interval of one lag
    root: np.ndarray  # (L, L) of the correlations

    def critical(self, confidence: float) -> float:
        """Return how many standard errors the band that holds all lags at once reaches."""
        if not len(self.lags):
            return 0.0
        largest = np.abs(self._normal(_DRAWS)).max(axis=1)
        return float(np.quantile(largest, confidence))

    def draws(self, num: int = _DRAWS, seed: int = _SEED) -> FloatArray:
        """Return curves (D, L) that are as likely as the data allow, the same ones each time."""
        return self.value + self.error * self._normal(num, seed)

    def interval(self, at: int, confidence: float) -> Interval:
        """Return the change of one lag by its place, with its own interval."""
        from scipy.stats import norm

        value, half = float(self.value[at]), float(norm.ppf((1 + confidence) / 2) * self.error[at])
        return Interval(value=value, low=value - half, high=value + half, confidence=confidence)

    def _normal(self, num: int, seed: int = _SEED) -> FloatArray:
        drawn = np.random.default_rng(seed).standard_normal((num, len(self.lags)))
        return np.asarray(drawn @ self.root.T)

    def to_curve(
        self,
        metric: str,
        confidence: float,
        segment: str = "all",
        stale: Literal["weights", "actions"] = "weights",
    ) -> DecayCurve:
        """Return it as people are told."""
        points = [
            DecayPoint(
                lag_days=int(lag),
                num_pairs=int(self.num_pairs[at]),
                change=self.interval(at, confidence),
                error=float(self.error[at]),
            )
            for at, lag in enumerate(self.lags)
        ]
        return DecayCurve(
            metric=metric,
            segment=segment,
            stale=stale,
            confidence=confidence,
            critical=self.critical(confidence),
            points=tuple(points),
        )


def estimate(pairs: Sequence[Pair]) -> Estimate:
    """Return the changes of all lags that have enough pairs; of others nothing is said."""
    from scipy.stats import norm, t

    pairs = [pair for pair in pairs if pair.fresh.sum() > 0]
    lags, place, counts = np.unique(
        [pair.lag_days for pair in pairs], return_inverse=True, return_counts=True
    )
    told = np.flatnonzero(counts >= FEWEST_PAIRS)
    kept = [pair for pair, at in zip(pairs, place, strict=True) if at in told]
    of_lag = np.searchsorted(told, [at for at in place if at in told])
    whole = np.bincount(of_lag, [float(p.fresh.sum()) for p in kept], len(told))
    value = np.bincount(of_lag, [float(p.lost.sum()) for p in kept], len(told)) / whole
    covariance = _covariance(kept, of_lag, value, whole)
    deviation = np.sqrt(np.diag(covariance))
    # An interval from so few pairs is wider than a normal one.
    wider = t.ppf(0.975, counts[told] - 1) / norm.ppf(0.975)
    error, root = deviation * wider, np.eye(len(told))
    if deviation.all():
        values, vectors = np.linalg.eigh(covariance / np.outer(deviation, deviation))
        root = vectors * np.sqrt(np.maximum(values, 0))
        root /= np.linalg.norm(root, axis=1, keepdims=True)
    return Estimate(lags[told], counts[told], value, error, root)


def _covariance(
    pairs: Sequence[Pair], of_lag: np.ndarray, value: np.ndarray, whole: np.ndarray
) -> FloatArray:
    """Return the covariance of the changes, (L, L), positive semidefinite."""
    num_lags = len(value)
    moved = np.zeros(len(pairs))  # (P,) how much each pair moves its lag
    by_user = np.zeros((num_lags, MAX_GROUPS))
    by_window: dict[int, FloatArray] = {}
    for p, (pair, lag) in enumerate(zip(pairs, of_lag, strict=True)):
        influences = (pair.lost - value[lag] * pair.fresh) / whole[lag]
        moved[p] = influences.sum()
        sums = np.bincount(pair.group, influences, MAX_GROUPS)
        by_user[lag] += sums
        by_window.setdefault(pair.window, np.zeros_like(by_user))[lag] += sums
    users = by_user @ by_user.T
    added = users - sum((sums @ sums.T for sums in by_window.values()), np.zeros_like(users))
    ends = np.array([(pair.old, pair.window) for pair in pairs]).reshape(-1, 2)
    is_shared = (ends[:, None, :, None] == ends[None, :, None, :]).any(axis=(2, 3))
    lag_of = of_lag[:, None] == np.arange(num_lags)  # (P, L)
    moves = lag_of * moved[:, None]
    counts = lag_of.sum(axis=0)
    # Residuals of one lag add up to zero, which hides a part of what they share.
    shared = np.einsum("pl,pq,ql->l", lag_of, is_shared, lag_of)
    scale = np.sqrt(counts**2 / np.maximum(counts**2 - shared, counts))
    ends_part = moves.T @ is_shared @ moves * np.outer(scale, scale)
    found = _positive(ends_part) + _positive(added)
    lift = np.sqrt(np.maximum(np.diag(users) / np.maximum(np.diag(found), 1e-300), 1.0))
    return np.asarray(found * np.outer(lift, lift))


def _positive(matrix: FloatArray) -> FloatArray:
    """Return the nearest symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T)
