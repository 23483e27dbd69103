"""What a cadence loses, what it costs, and when a schedule that watches would have retrained.

A model that serves from its as_of on has the age 0 then. Retrained every T days, its age runs from
0 to T, so that a day loses the mean of the decay curve over these ages on average; between measured
lags, and from 0 to the first, the curve is taken as straight, and beyond the last it stays. The
cheapest cadence is found anew on curves drawn as likely as the data allow: how often each one wins
is how sure that is. docs/decay.md has what a stated value must be for another one to be cheaper.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.contracts.decay import CadenceCost
from pipelines.contracts.reasons import Interval
from validation.decay.curve import Estimate
from validation.model_gate.intervals import FloatArray, IntArray

CADENCES = (1.0, 3.5, 7.0, 14.0, 28.0, None)
"""Days between trainings; None: the model is never trained again, over `NEVER_DAYS`."""
NEVER_DAYS = 365.0
_STEPS, _WARM_SEED = 200, 2024


def mean_loss(curves: FloatArray, lags: IntArray, days: float) -> FloatArray:
    """Return the mean loss over ages from 0 to some days, of curves (D, L) -> (D,)."""
    ages = (np.arange(_STEPS) + 0.5) * days / _STEPS
    known = np.concatenate([[0.0], lags.astype(np.float64)])
    place = np.minimum(np.searchsorted(known, ages), len(known) - 1)
    share = np.minimum((ages - known[place - 1]) / (known[place] - known[place - 1]), 1.0)
    weights = np.zeros(len(known))
    np.add.at(weights, place - 1, 1 - share)
    np.add.at(weights, place, share)
    return np.asarray(-(curves @ weights[1:]) / _STEPS)


def cost_of_cadences(
    found: Estimate,
    core_hours: float,
    value: float | None,
    confidence: float,
    warm: tuple[Estimate, float] | None = None,
) -> tuple[CadenceCost, ...]:
    """Return what each cadence loses and costs; () where no lag could be measured.

    Args:
        found: The decay.
        core_hours: Processor time of one cycle.
        value: Of 1 % of the metric a day, in core-hours; None: losses and hours alone.
        confidence: Of the intervals.
        warm: How warm models differ from those of their day from scratch, at lag 0 and the first
            one, and which share of a cycle one costs. Both are taken to be uncertain apart.
    """
    if not len(found.lags):
        return ()
    curves = np.vstack([found.value, found.draws()])
    hours = np.array([core_hours / days if days else 0.0 for days in CADENCES])
    lost = np.stack([mean_loss(curves, found.lags, days or NEVER_DAYS) for days in CADENCES], 1)
    cost = lost * 100 * (value or 0.0) + hours
    chance = np.bincount(cost[1:].argmin(axis=1), minlength=len(CADENCES)) / len(cost[1:])

    def told(values: FloatArray) -> Interval:
        low, high = np.quantile(values[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
        at = float(values[0])
        low, high = min(float(low), at), max(float(high), at)
        return Interval(value=at, low=low, high=high, confidence=confidence)

    def kept_by_warm(days: float | None) -> Interval | None:
        if warm is None or days is None:
            return None
        offsets = np.vstack([warm[0].value, warm[0].draws(seed=_WARM_SEED)])
        often = days * warm[1]  # The offset changes from lag 0 to the first lag, and then stays.
        later = -mean_loss(np.ones((1, 1)), found.lags[:1], often)[0]
        offset = (1 - later) * offsets[:, 0] + later * offsets[:, -1]
        scratch = mean_loss(curves, found.lags, days)
        return told(scratch - mean_loss(curves, found.lags, often) + offset)

    return tuple(
        CadenceCost(
            days=days,
            lost=told(lost[:, c]),
            kept=told(lost[:, -1] - lost[:, c]),
            core_hours=float(hours[c]),
            cost=told(cost[:, c]) if value else None,
            chance=float(chance[c]) if value else None,
            warm=kept_by_warm(days),
        )
        for c, days in enumerate(CADENCES)
    )


def cheapest(cadences: Sequence[CadenceCost]) -> CadenceCost | None:
    """Return the cadence that costs least; None where no value was given."""
    priced = [each for each in cadences if each.cost]
    return min(priced, key=lambda each: each.cost.value if each.cost else 0.0, default=None)


def turning_points(cadences: Sequence[CadenceCost]) -> list[tuple[float, CadenceCost]]:
    """Return from which value of 1 % a day, in core-hours, on which cadence is the cheapest.

    The first entry has value 0, where nothing is worth a training.
    """
    at, found = 0.0, [(0.0, cadences[-1])] if cadences else []
    while found:
        now = found[-1][1]
        gains = [
            ((each.core_hours - now.core_hours) / (100 * less), each)
            for each in cadences
            if (less := now.lost.value - each.lost.value) > 0 and each.core_hours > now.core_hours
        ]
        if not gains:
            break
        at, following = min(gains, key=lambda gain: gain[0])
        found.append((at, following))
    return found


class Replayed(NamedTuple):
    """How a schedule would have gone."""

    trained: list[int]  # The windows at whose beginning a model was made.
    lost: FloatArray  # (W,) share lost in each window


Schedule = Callable[[int, int], bool]
"""Of the serving model's window and the next one: whether to retrain before it."""


def replay(changes: FloatArray, is_due: Schedule, first: int = 0) -> Replayed:
    """Follow a schedule over windows whose changes are known: (W, W) by old model and window."""
    serving, trained, lost = first, [first], []
    for window in range(first, len(changes)):
        if window > first and is_due(serving, window):
            serving = window
            trained.append(window)
        lost.append(0.0 if serving == window else -float(changes[serving, window]))
    return Replayed(trained, np.array(lost))


def every(num_windows: int) -> Schedule:
    """Return the schedule that retrains every so many windows."""
    return lambda serving, window: window - serving >= num_windows


def when_due(expected: FloatArray, seen: FloatArray, price: float, trust: float) -> Schedule:
    """Return the schedule that retrains once what was lost since the last training is its price.

    What is lost in a window is what the curve lets expect, moved by what was seen of the serving
    model in the window before beyond that: what came suddenly is likely to stay.

    Args:
        expected: (W, W) change of an old model (row) on a window (column) that the curve tells.
        seen: (W, W) the change that was seen of it without a fresh model; NaN: nothing.
        price: What a training costs, as a share of the metric times windows.
        trust: From 0 to 1, how much of what is seen beyond the expected is lost in the next window.
    """

    def is_due(serving: int, window: int) -> bool:
        row = expected[serving, serving : window + 1]
        beyond = np.nan_to_num(seen[serving, serving:window] - row[:-1])
        moved = np.concatenate([[0.0], trust * beyond])
        return float(np.maximum(-(row + moved), 0.0).sum()) >= price

    return is_due


def trust_in(expected: FloatArray, seen: FloatArray, changes: FloatArray) -> float:
    """Return how much of what is seen beyond the expected is lost in the next window, 0 to 1.

    It is the slope of a line through zero, of all models that serve on after a window.
    """
    old, window = np.triu_indices(len(changes) - 1, 1)
    x = (seen - expected)[old, window]
    y = (changes - expected)[old, window + 1]
    known = np.isfinite(x) & np.isfinite(y)
    spread = float(x[known] @ x[known])
    return min(max(float(x[known] @ y[known]) / spread, 0.0), 1.0) if spread else 0.0
