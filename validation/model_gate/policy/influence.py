"""Influences: how much each group of users moves an estimated relative change.

The change is theta = sum(challenger) / sum(baseline) - 1 over groups of users. The influence of
group g is r_g / sum(baseline) with the residual r_g = challenger_g - (1 + theta) * baseline_g, so
that the squared influences add up to the variance of theta (the delta method; Efron and Tibshirani
1993, chapter 21). Influences of several cycles on the same group add up before they are squared,
which counts users who return. Not for the intervals that people read
(`validation.model_gate.bootstrap`). Tested in tests/validation/model_gate/test_pooling.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.config import ModelGateConfig

FloatArray = NDArray[np.float64]
Key = tuple[str, str]
"""Metric and segment."""


@dataclass(frozen=True)
class Influences:
    """Of one comparison, for the changes that decide."""

    groups: NDArray[np.intp]  # (G,) numbers of the groups that are in this holdout
    columns: Mapping[Key, FloatArray]  # (G,) each; a change that does not exist has none

    def error(self, key: Key) -> float:
        """Return the standard error of one change."""
        return standard_error(self.columns[key])


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
