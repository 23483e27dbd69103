"""Which shape a decay has: each is fitted without one window at a time, and foretells that window.

`linear`: change = -a lag. `exponential`: change = exp(-lag / b) - 1, in the end all is lost.
`saturating`: change = -a (1 - exp(-lag / b)), what is left in the end never ages. `any`: each lag's
own mean, where nothing is assumed. A shape is told from the best one by the difference of what they
miss by, window by window; where that is within its own noise the data do not say which it is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.contracts.decay import DecayShape
from validation.decay.curve import Pair
from validation.model_gate.intervals import FloatArray

FEWEST_WINDOWS = 5
_LONGEST = 3650.0
"""Days in which a shape falls at most: beyond, an exponential is a line."""


@dataclass(frozen=True)
class _Points:
    """Pairs as points: lag in days, change, weight, and the window (P,)."""

    lag: FloatArray
    change: FloatArray
    weight: FloatArray
    window: FloatArray
    old: FloatArray

    def take(self, rows: np.ndarray) -> "_Points":
        return _Points(**{name: values[rows] for name, values in vars(self).items()})


def compare_shapes(pairs: Sequence[Pair]) -> tuple[DecayShape, ...]:
    """Return what each shape misses later windows by, the best first; () of too few windows."""
    columns = [
        (pair.lag_days, pair.change, float(pair.fresh.sum()), pair.window, pair.old)
        for pair in pairs
        if pair.fresh.sum() > 0
    ]
    points = _Points(*np.array(columns, dtype=np.float64).reshape(-1, 5).T)
    windows = np.unique(points.window)
    if len(windows) < FEWEST_WINDOWS:
        return ()
    missed = {name: _missed(points, windows, fit) for name, fit in _FITS.items()}
    best = min(missed, key=lambda name: float(np.nanmean(missed[name])))
    found = []
    for name, by_window in missed.items():
        worse = by_window - missed[best]
        worse = worse[np.isfinite(worse)]
        error = float(worse.std(ddof=1)) / math.sqrt(len(worse)) if len(worse) > 1 else math.inf
        found.append(
            DecayShape(
                name=name,
                missed_by=math.sqrt(float(np.nanmean(by_window))),
                is_as_good=float(worse.mean()) <= 2 * error,
                parameters=_FITS[name](points)[1],
            )
        )
    return tuple(sorted(found, key=lambda shape: shape.missed_by))


def _missed(points: _Points, windows: FloatArray, fit: "_Fit") -> FloatArray:
    """Return the mean square by which a shape misses each window, fitted without it; NaN: never."""
    found = np.full(len(windows), np.nan)
    for w, window in enumerate(windows):
        is_left_out = (points.window == window) | (points.old == window)
        left, asked = points.take(~is_left_out), points.take(points.window == window)
        asked = asked.take(np.isin(asked.lag, left.lag))  # of others, `any` has no mean
        if len(asked.lag):
            square = (fit(left)[0](asked.lag) - asked.change) ** 2
            found[w] = float(np.average(square, weights=asked.weight))
    return found


_Fitted = tuple[Callable[[FloatArray], FloatArray], dict[str, float]]
_Fit = Callable[[_Points], _Fitted]


def _linear(points: _Points) -> _Fitted:
    weighted = points.weight * points.lag
    slope = float(weighted @ points.change / (weighted @ points.lag))
    return lambda lag: slope * lag, {"percent_a_week": 700 * slope}


def _falling(points: _Points, is_whole: bool) -> _Fitted:
    """Fit a (exp(-lag / b) - 1) by a search over b; `a` is 1 where all is lost in the end."""
    best = (math.inf, 1.0, _LONGEST)
    for days in np.geomspace(1.0, _LONGEST, 200):
        shape = np.expm1(-points.lag / days)
        weighted = points.weight * shape
        scale = 1.0 if is_whole else float(weighted @ points.change / (weighted @ shape))
        missed = float(points.weight @ (points.change - scale * shape) ** 2)
        best = min(best, (missed, scale, float(days)))
    _, scale, days = best
    named = {"days": days} if is_whole else {"lost_percent": 100 * scale, "days": days}
    return lambda lag: scale * np.expm1(-lag / days), named


def _any(points: _Points) -> _Fitted:
    lags, place = np.unique(points.lag, return_inverse=True)
    whole = np.bincount(place, points.weight)
    mean = np.bincount(place, points.weight * points.change) / whole
    return lambda lag: mean[np.searchsorted(lags, lag)], {}


_FITS: dict[str, _Fit] = {
    "linear": _linear,
    "exponential": lambda points: _falling(points, is_whole=True),
    "saturating": lambda points: _falling(points, is_whole=False),
    "any": _any,
}
