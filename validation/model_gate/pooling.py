"""Pools a relative change over cycles: one holdout is often too small to tell, several are not.

Cycles are weighted by the inverse of their variances. They are not independent, because users
return, so the error of the mean is computed from *influences*: how much each group of users moves
an estimated change. The change is theta = sum(challenger) / sum(baseline) - 1 over groups of users.
The influence of group g is r_g / sum(baseline) with the residual
r_g = challenger_g - (1 + theta) * baseline_g, so that the squared influences add up to the variance
of theta (the delta method; Efron and Tibshirani 1993, chapter 21). Influences of several cycles on
the same group add up before they are squared, which counts users who return. docs/statistics.md
derives it.

Not for choosing which cycles are about the same pair (`pipelines.registry.evidence`), nor for the
intervals that people read (`validation.model_gate.bootstrap`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.reasons import PooledChange
from pipelines.contracts.time import Window
from validation.model_gate.bootstrap import MAX_GROUPS, FloatArray
from validation.model_gate.policy import Estimate

Key = tuple[str, str]
"""Metric and segment."""


@dataclass(frozen=True)
class Influences:
    """Of one comparison, for the changes that decide."""

    groups: NDArray[np.intp]  # (G,) numbers of the groups that are in this holdout
    columns: Mapping[Key, FloatArray]  # (G,) each; a change that does not exist has none


def influence(challenger: FloatArray, baseline: FloatArray) -> FloatArray | None:
    """Return each group's influence on the relative change, or None where there is no change.

    Args:
        challenger: (G,) sums of the challenger's side per group.
        baseline: (G,) sums of the baseline's.
    """
    total = float(baseline.sum())
    if total == 0 or not math.isfinite(total) or not np.isfinite(challenger).all():
        return None
    ratio = float(challenger.sum()) / total
    return (challenger - ratio * baseline) / total


def standard_error(influences: FloatArray) -> float:
    """Return the standard error that (G,) influences make; one group alone tells nothing: inf."""
    num_groups = np.count_nonzero(influences) or 1
    if num_groups == 1 and influences.any():
        return math.inf
    scale = num_groups / max(1, num_groups - 1)
    return math.sqrt(float(np.square(influences).sum()) * scale)


def deciding(config: ModelGateConfig) -> tuple[Key, ...]:
    """Return the changes that rules ask for: the target, its segments and the guardrails."""
    segments = ("all", *config.required_segments)
    target = [(config.target_metric, segment) for segment in segments]
    return tuple(dict.fromkeys((*target, *((rail.metric, "all") for rail in config.guardrails))))


@dataclass(frozen=True)
class CycleChange:
    """What one cycle says of a change."""

    holdout: Window
    value: float
    groups: NDArray[np.intp]  # (G,)
    influences: FloatArray  # (G,)


def newest_without_overlap(cycles: Sequence[CycleChange]) -> list[CycleChange]:
    """Return the cycles whose holdouts share no instant; of those that overlap, the newest.

    Args:
        cycles: In the order of preference, the present cycle first, then the newest.
    """
    kept: list[CycleChange] = []
    for cycle in cycles:
        one = cycle.holdout
        if not any(
            one.start < other.holdout.end and other.holdout.start < one.end for other in kept
        ):
            kept.append(cycle)
    return kept


def pool_cycles(cycles: Sequence[CycleChange], extra_variance: float = 0.0) -> tuple[Estimate, int]:
    """Return the mean of the cycles' changes by inverse variance, with its standard error.

    A cycle in which no group of users moves the change has seen nothing of it: both sides were
    equal everywhere, as they are where an action is rare. It counts only where all cycles are so,
    or where each adds a variance of its own. The second result is how many cycles count.

    Args:
        cycles: At least one.
        extra_variance: What every cycle adds on its own, whatever its users: seeds.
    """
    if not extra_variance:
        cycles = [cycle for cycle in cycles if cycle.influences.any()] or cycles
    errors = np.array([standard_error(cycle.influences) for cycle in cycles])
    variances = np.square(errors) + extra_variance
    weights = np.full(len(cycles), 1 / len(cycles))
    if variances.any():
        weights = (1 / variances) / (1 / variances).sum()
    summed = np.zeros(MAX_GROUPS)
    for weight, cycle in zip(weights, cycles, strict=True):
        summed[cycle.groups] += weight * cycle.influences
    value = math.fsum(w * cycle.value for w, cycle in zip(weights, cycles, strict=True))
    seeds = extra_variance * float(np.square(weights).sum())
    return Estimate(value, math.sqrt(standard_error(summed) ** 2 + seeds)), len(cycles)


def pool_with(
    comparison: Comparison,
    influences: Influences,
    earlier: Mapping[Key, Sequence[CycleChange]],
    seed_variance: float = 0.0,
) -> Comparison:
    """Return the comparison with each deciding change pooled.

    Args:
        comparison: This cycle's.
        influences: Of its deciding changes.
        earlier: What earlier cycles of the same pair found, the newest first.
        seed_variance: What the seeds of two trainings add to a change of the target metric.
    """
    rows = []
    for key, column in influences.columns.items():
        row = comparison.find(*key)
        if row is None or row.relative_change is None or not math.isfinite(standard_error(column)):
            continue
        value = row.relative_change.value
        mine = CycleChange(comparison.holdout, value, influences.groups, column)
        cycles = newest_without_overlap([mine, *earlier.get(key, ())])
        seeds = seed_variance if key[0] == comparison.target_metric else 0.0
        (alone, _), (pooled, num_cycles) = pool_cycles([mine], seeds), pool_cycles(cycles, seeds)
        rows.append(
            PooledChange(
                metric=key[0],
                segment=key[1],
                value=value,
                error=alone.error,
                pooled_value=pooled.value,
                pooled_error=pooled.error,
                num_cycles=num_cycles,
            )
        )
    return comparison.model_copy(update={"pooled": tuple(rows)})
