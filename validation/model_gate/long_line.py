"""A line that no chain of small steps can bend: each champion against what never changes.

Every cycle that promotes a model leaves its target metric against simple ways to rank, which are
made anew of the cycle's own data and by the same rule for ever. A loss that every single verdict
allowed, or was too small to be seen, adds up in this line.

The line is *lost* where it has surely fallen from its best by more than the margin. "Surely" must
hold at whichever cycle somebody looks, so the evidence is an e-detector (Shin, Ramdas and Rinaldo,
E-detectors: A Nonparametric Framework for Sequential Change Detection, The New England Journal of
Statistics in Data Science 2(2), 2023). For each cycle b at which the fall may have begun, and each
cycle a < b at which the best stretch may have begun, the mean of the cycles a to b - 1 less that of
b to now and less the margin, d with variance v, has the likelihood ratio exp(k d / v - k^2 / 2v) of
a further fall k against none. Where nothing has fallen, each is a martingale with mean 1, as is
their average over a and k; summed over b, it exceeds a threshold T once in T cycles at most, on
average. Cycles count as independent, though users return: what stays of a user cancels in d.

Not for the page (`validation.report.verdict_page`), nor for what single cycles are judged by.
"""

import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from pipelines.contracts.reasons import POPULARITY, REGRESSION, BaselineFacts, LinePoint
from validation.model_gate.examine import alone
from validation.model_gate.policy import Estimate
from validation.model_gate.years import CYCLES

REFERENCES = (REGRESSION, POPULARITY)
"""What never changes. The first decides, because its changes have the smallest errors; where the
line falls against one alone, that one has become better."""
THRESHOLD = 20 * CYCLES
"""One false stop in twenty years at most."""
_FALLS = (0.005, 0.01, 0.02)
"""Further falls that the evidence looks for."""


def points_of(
    baselines: Sequence[BaselineFacts], as_of: datetime, recipe: Estimate | None = None
) -> tuple[LinePoint, ...]:
    """Return where a model stands against the references; those without a number have no point.

    Args:
        baselines: What was found of them, against the challenger.
        as_of: The cycle's.
        recipe: The challenger against the fresh anchor, where the anchor is the model.
    """
    found = []
    for facts in baselines:
        if facts.name not in REFERENCES or facts.change is None or facts.change.value <= -1:
            continue
        change = alone(facts.change)
        value, error = math.log1p(change.value), change.error / (1 + change.value)
        if recipe is not None:
            value -= math.log1p(recipe.value)
            error = math.hypot(error, recipe.error / (1 + recipe.value))
        point = LinePoint(reference=facts.name, as_of=as_of, value=value, error=error)
        found += [point] if error > 0 else []
    return tuple(found)


def evidence_of_fall(points: Sequence[LinePoint], margin: float, seed_noise: float) -> float:
    """Return the evidence that the regression's line has fallen from its best by over a margin.

    Args:
        points: Of all references, in the order of their cycles.
        margin: Relative loss that is allowed, 0 to 1.
        seed_noise: Standard deviation of a model's luck, relative.
    """
    line = [point for point in points if point.reference == REGRESSION]
    weights = np.array([1 / (point.error**2 + seed_noise**2) for point in line])
    values = np.array([point.value for point in line])
    whole, summed = (np.r_[0.0, np.cumsum(each)] for each in (weights, weights * values))
    total = 0.0
    for begun in range(1, len(line)):  # the fall; its best stretch began before
        best = np.arange(begun)
        ours, later = whole[begun] - whole[best], whole[-1] - whole[begun]
        before = (summed[begun] - summed[best]) / ours
        fall = before - (summed[-1] - summed[begun]) / later + math.log1p(-margin)
        variance = 1 / ours + 1 / later
        ratios = [np.exp(np.minimum(k * fall / variance - k**2 / (2 * variance), 600))
                  for k in _FALLS]  # fmt: skip
        total += float(np.mean(ratios))
    return total
