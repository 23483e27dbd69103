"""Pools a relative change over cycles: one holdout is often too small to tell, several are not.

Cycles are weighted by the inverse of their variances, in which days count alike. Cycles are not
independent, because users return, so the error of the mean is computed from *influences*: how much
each group of users moves an estimated change. The change is theta = sum(challenger) / sum(baseline)
- 1 over groups of users. The influence of group g is r_g / sum(baseline) with the residual
r_g = challenger_g - (1 + theta) * baseline_g, so that the squared influences add up to the variance
of theta (the delta method; Efron and Tibshirani 1993, chapter 21). Influences of several cycles on
the same group add up before they are squared, which counts users who return. docs/statistics.md
derives it.

Not for choosing which cycles are about the same pair (`pipelines.registry.evidence`), nor for the
intervals that people read (`validation.model_gate.intervals`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.config import ModelGateConfig
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.reasons import ONE_SIDED_95, Interval, PooledChange, Spent
from pipelines.contracts.time import Window
from validation.model_gate.intervals import (
    MAX_GROUPS,
    NOTHING,
    Cells,
    FloatArray,
    Measured,
    Part,
    error_of,
    user_part,
)
from validation.model_gate.policy import TWO_SIDED_95, Estimate

STEP_OF_MARGIN = 0.5
"""What a change of recipe within a line is taken to be worth, as a share of the recipe margin, or
of a guardrail's bound. With 0.2 a single bad recipe is promoted more often, with 1 a line that gets
better is believed later."""
Key = tuple[str, str]
"""Metric and segment."""


@dataclass(frozen=True)
class Influences:
    """Of one comparison, for the changes that decide."""

    groups: NDArray[np.intp]  # (G,) numbers of the groups that are in this holdout
    columns: Mapping[Key, FloatArray]  # (G,) each; a change that does not exist has none
    days: Mapping[Key, Part]  # what days add to each change's variance

    @classmethod
    def of(
        cls, groups: NDArray[np.intp], cells: Cells, changes: Mapping[Key, Measured]
    ) -> "Influences":
        """Return those of measured changes."""
        columns = {key: cells.by_group(change.influences) for key, change in changes.items()}
        return cls(groups, columns, {key: change.days for key, change in changes.items()})


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
    days: Part = NOTHING  # what days add to the variance
    steps: int = 0  # how often the recipe was changed between this cycle and the one on trial

    def parts(self, extra_variance: float) -> tuple[Part, Part, Part]:
        """Return the parts of the variance, with what every cycle adds on its own."""
        return user_part(self.influences), self.days, Part(extra_variance, math.inf)


def tries_as_one(cycles: Sequence[CycleChange]) -> list[CycleChange]:
    """Return one change for each holdout: tries of one pair on rows that overlap are averaged.

    They are trainings of one recipe that differ by luck alone, so their mean is what is known of
    the pair. What users and days add is that of the mean: the same rows are measured again.

    Args:
        cycles: In the order of preference, the present cycle first, then the newest.
    """
    kept: list[list[CycleChange]] = []
    for cycle in cycles:
        for tries in kept:
            if tries[0].steps == cycle.steps and tries[0].holdout.overlaps(cycle.holdout):
                tries.append(cycle)
                break
        else:
            kept.append([cycle])
    return [tries[0] if len(tries) == 1 else _mean(tries) for tries in kept]


def _mean(tries: Sequence[CycleChange]) -> CycleChange:
    groups, summed = np.unique(np.concatenate([t.groups for t in tries])), np.zeros(MAX_GROUPS)
    for each in tries:
        summed[each.groups] += each.influences / len(tries)
    # Days move all tries alike, so that their part does not shrink.
    days = max((each.days for each in tries), key=lambda part: part.variance)
    value = math.fsum(each.value for each in tries) / len(tries)
    return CycleChange(tries[0].holdout, value, groups, summed[groups], days, tries[0].steps)


def weights_of(variances: FloatArray, steps: NDArray[np.int64], step: float) -> FloatArray:
    """Return the weights of the mean of several changes that errs least about the newest recipe.

    Without changes of recipe they are the inverse variances. With every change of recipe the true
    value may have moved by `step`, a standard deviation, so that older recipes count for less (the
    generalized least squares of a random walk; Aitken 1936). What one user alone tells, whose
    variance is infinite, counts for nothing.
    """
    if not steps.any():
        return (1 / variances) / (1 / variances).sum()
    is_known, weights = np.isfinite(variances), np.zeros(len(variances))
    moved = step**2 * np.minimum.outer(steps, steps)[np.ix_(is_known, is_known)]
    ones = np.ones(np.count_nonzero(is_known))
    weights[is_known] = np.linalg.solve(np.diag(variances[is_known]) + moved, ones)
    return weights / weights.sum()


def disagrees(own: Estimate, others: Estimate) -> bool:
    """Return whether a recipe is surely better than those of its line before: a line of its own."""
    return own.value - others.value > TWO_SIDED_95 * math.hypot(own.error, others.error)


def pool_cycles(
    cycles: Sequence[CycleChange], extra_variance: float = 0.0, step: float = 0.0
) -> tuple[Estimate, int]:
    """Return the mean of the cycles' changes by `weights_of`, with its standard error.

    A cycle in which no group of users moves the change has seen nothing of it: both sides were
    equal everywhere, as they are where an action is rare. It counts only where all cycles are so,
    or where each adds a variance of its own. The second result is how many cycles count.

    Args:
        cycles: At least one.
        extra_variance: What every cycle adds on its own, whatever its users: seeds.
        step: What a change of recipe within a line is taken to be worth, a standard deviation.
    """
    if not extra_variance:
        cycles = [cycle for cycle in cycles if cycle.influences.any()] or cycles
    # Few days say little of their variance. Cycles whose days were alike by luck would count most,
    # so that what days add is taken to be the same in all.
    days = math.fsum(cycle.days.variance for cycle in cycles) / len(cycles)
    steps = np.array([cycle.steps for cycle in cycles])
    users = np.array([user_part(cycle.influences).variance for cycle in cycles])
    variances = users + days + extra_variance
    weights = np.full(len(cycles), 1 / len(cycles))
    if variances.any():
        weights = weights_of(variances, steps, step)
    summed = np.zeros(MAX_GROUPS)
    own = []  # Each cycle has days and seeds of its own; users return.
    for weight, cycle in zip(weights, cycles, strict=True):
        summed[cycle.groups] += weight * cycle.influences
        own += [part.scaled(weight) for part in cycle.parts(extra_variance)[1:]]
    value = math.fsum(w * cycle.value for w, cycle in zip(weights, cycles, strict=True))
    moved = step**2 * float(weights @ np.minimum.outer(steps, steps) @ weights)
    parts = (user_part(summed), *own, Part(moved, math.inf))
    return Estimate(value, error_of(parts)), len(cycles)


def pool_with(
    comparison: Comparison,
    influences: Influences,
    earlier: Mapping[Key, Sequence[CycleChange]],
    seed_variance: float = 0.0,
    num_tries: int = 1,
    steps: Mapping[str, float] = MappingProxyType({}),
) -> Comparison:
    """Return the comparison with each deciding change pooled.

    Args:
        comparison: This cycle's.
        influences: Of its deciding changes.
        earlier: What earlier cycles of the same pair found, the newest first, and of the target
            metric and guardrails those of the recipe's line too.
        seed_variance: What the seeds of two trainings add to a change of the target metric.
        num_tries: Models that were judged on this holdout, this one included.
        steps: By metric, as `steps_of` gives them.
    """
    rows = []
    for key, column in influences.columns.items():
        row = comparison.find(*key)
        if row is None or row.relative_change is None:
            continue
        value = row.relative_change.value
        mine = CycleChange(
            comparison.holdout, value, influences.groups, column, influences.days[key]
        )
        cycles: Sequence[CycleChange] = tries_as_one([mine, *earlier.get(key, ())])
        is_target, step = key[0] == comparison.target_metric, steps.get(key[0], 0.0)
        seeds, line = seed_variance if is_target else 0.0, None
        moved = since_accepted(cycles, step) if step and not is_target else None
        if is_target and key[1] == "all":
            cycles, line = _with_line(cycles, seeds)
        else:
            cycles = [cycle for cycle in cycles if not cycle.steps]
        alone, _ = pool_cycles([mine], seeds)
        pooled, num_cycles = pool_cycles(cycles, seeds, step)
        rows.append(
            PooledChange(
                metric=key[0],
                segment=key[1],
                value=value,
                error=alone.error,
                pooled_value=pooled.value,
                pooled_error=pooled.error,
                num_cycles=num_cycles,
                line=line,
                since_accepted=moved and Spent(metric=key[0], value=moved.value, error=moved.error),
            )
        )
    return comparison.model_copy(update={"pooled": tuple(rows), "num_tries": num_tries})


def _with_line(
    cycles: Sequence[CycleChange], seed_variance: float
) -> tuple[Sequence[CycleChange], Interval | None]:
    """Return the cycles that speak of a recipe, and what all recipes of its line are worth alike.

    Whoever changes a recipe a little in every cycle would else be judged by one holdout each time.
    """
    own = [cycle for cycle in cycles if not cycle.steps]
    others = [cycle for cycle in cycles if cycle.steps]
    if not others:
        return own, None
    mine, theirs = (pool_cycles(each, seed_variance)[0] for each in (own, others))
    line, _ = pool_cycles(cycles, seed_variance)
    if disagrees(mine, theirs) or not math.isfinite(line.value + line.error):
        return own, None
    low, high = line.low(ONE_SIDED_95), line.high(ONE_SIDED_95)
    return cycles, Interval(value=line.value, low=low, high=high, confidence=0.9)


def steps_of(config: ModelGateConfig) -> dict[str, float]:
    """Return what a change of recipe is taken to be worth, a standard deviation by metric."""
    bounds = {
        rail.metric: max(rail.max_decrease or 0, rail.max_increase or 0)
        for rail in config.guardrails
    }
    bounds[config.target_metric] = config.recipe_margin
    return {metric: STEP_OF_MARGIN * bound for metric, bound in bounds.items()}


def since_accepted(cycles: Sequence[CycleChange], step: float) -> Estimate:
    """Return how far the newest recipe has moved from the accepted one.

    Users who return are not counted.

    Args:
        cycles: Of the recipe's line, the newest first.
        step: As `steps_of` gives it.
    """
    days = math.fsum(cycle.days.variance for cycle in cycles) / len(cycles)
    users = np.array([user_part(cycle.influences).variance for cycle in cycles])
    # Where nobody, or one user alone, moves a change, its cycle says nothing of it.
    variances = np.where(users > 0, users + days, np.inf)
    values, steps = np.array([(cycle.value, cycle.steps) for cycle in cycles]).T
    return end_of_walk(values, variances, steps, step)


def end_of_walk(
    values: FloatArray, variances: FloatArray, steps: FloatArray, step: float
) -> Estimate:
    """Return where a random walk is now that began at 0 and was seen with noise (Kalman 1960).

    A small holdout is believed little, and many of them add up.

    Args:
        values: What was seen (C,), the newest first.
        variances: Of their noise (C,); infinite where nothing was seen.
        steps: Steps of the walk since then (C,), which began one step before the oldest.
        step: Standard deviation of one.
    """
    moved = step**2 * np.minimum.outer(*[steps.max() + 1 - steps] * 2)
    says = np.isfinite(variances)
    gains = np.linalg.solve(moved[np.ix_(says, says)] + np.diag(variances[says]), moved[0, says])
    variance = float(moved[0, 0] - gains @ moved[0, says])
    return Estimate(float(gains @ values[says]), math.sqrt(max(variance, 0.0)))
