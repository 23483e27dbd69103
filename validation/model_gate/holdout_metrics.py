"""Metrics of two sides on the same holdout rows, before any statistics.

Not for intervals (`validation.model_gate.bootstrap`) nor for the definition of a top 3
(`validation.model_gate.ranking_metrics`). Tested in
tests/validation/model_gate/test_comparison.py.

Letters: N examples, M requests.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.config import Head
from pipelines.contracts.judgement import (
    AbsenceKind,
    AbsentMetric,
    MetricComparison,
    ReliabilityBin,
)
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.ranking_metrics import (
    MetricUndefinedError,
    area_under_curve,
    expected_calibration_error,
    top_k_hits,
)
from validation.model_gate.target_metric import TOP_K, TargetMetric, hits_name, volume_name

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]
Side = Literal["challenger", "baseline"]
NUM_RELIABILITY_BINS = 10
"""As many as people read at a glance; bins hold equal numbers of examples, not equal widths."""
EMPTY_SEGMENT = "The segment has no users in the holdout."
_POOLED: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auc": area_under_curve,
    "ece": expected_calibration_error,
}
_LOWEST_PROBABILITY = 1e-7  # float32 rounds nearer values to 0, whose log loss would be infinite


@dataclass(frozen=True)
class RatioMetric:
    """One metric as a sum per example or request on both sides, over a shared denominator."""

    name: str
    challenger: FloatArray
    baseline: FloatArray | None
    denominator: FloatArray | None  # None: the number of users
    is_per_request: bool


def segment_masks(rows: ExampleRows) -> dict[str, Mask]:
    """Return which requests (M,) belong to each segment: at a request, a user is core or not."""
    is_core = np.asarray(rows.is_core, dtype=bool)
    return {"all": np.ones_like(is_core), "core": is_core, "non_core": ~is_core}


def ratio_metrics(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    heads: tuple[Head, ...],
    target: TargetMetric,
) -> list[RatioMetric]:
    """Return the metrics that are ratios of sums over users: those that get an interval."""
    metrics = []
    for head in heads:
        ours, theirs = (_hits(rows, s.ranking_score, head.name) for s in (challenger, baseline))
        if head.name == target.head.name:
            requests = np.ones(len(rows.user_id))
            metrics.append(RatioMetric(volume_name(head.name), ours, theirs, requests, True))
        metrics.append(RatioMetric(hits_name(head.name), ours, theirs, None, True))
        if head.name in challenger.probabilities:
            metrics += _probability_metrics(rows, challenger, baseline, head.name)
    return metrics


def _probability_metrics(
    rows: ExampleRows, challenger: SplitScores, baseline: SplitScores, head: str
) -> list[RatioMetric]:
    """Return log loss and calibration ratio of one head."""
    label = rows.labels[head].astype(np.float64)
    ours = challenger.probabilities[head].astype(np.float64)
    theirs = baseline.probabilities.get(head)
    losses = None
    if theirs is not None:
        theirs = theirs.astype(np.float64)
        losses = _log_losses(theirs, label)
    examples = np.ones(len(label))
    return [
        RatioMetric(f"log_loss.{head}", _log_losses(ours, label), losses, examples, False),
        RatioMetric(f"calibration_ratio.{head}", ours, theirs, label, False),
    ]


def _hits(rows: ExampleRows, score: FloatArray, head: str) -> FloatArray:
    """Return labels in the top 3 per request (M,); NaN throughout if a score is not finite."""
    if not np.all(np.isfinite(score)):
        return np.full(len(rows.user_id), np.nan)  # no order exists, so no top 3
    return np.asarray(top_k_hits(rows, score, rows.labels[head], k=TOP_K), dtype=np.float64)


def _log_losses(probability: FloatArray, label: FloatArray) -> FloatArray:
    """Return -log p(label) per example, in nats."""
    clipped = np.clip(probability, _LOWEST_PROBABILITY, 1 - _LOWEST_PROBABILITY)
    return -(label * np.log(clipped) + (1 - label) * np.log1p(-clipped))


def absent(metric: str, segment: str, side: Side, reason: str | None = None) -> AbsentMetric:
    """Return the record of a number that these rows do not give, for a reason.

    Without a reason, the side's own scores are at fault: at least one of them is not finite.
    """
    kind = AbsenceKind.NOT_FINITE if reason is None else AbsenceKind.UNDEFINED
    reason = reason or f"The {side}'s scores hold NaN or infinity."
    return AbsentMetric(metric=metric, segment=segment, side=side, kind=kind, reason=reason)


def pooled_metrics(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    heads: tuple[Head, ...],
    masks: Mapping[str, Mask],
) -> list[MetricComparison | AbsentMetric]:
    """Return AUC and ECE, which are not sums over users and therefore have no interval."""
    found: list[MetricComparison | AbsentMetric] = []
    for head in heads:
        ours, theirs = (s.probabilities.get(head.name) for s in (challenger, baseline))
        if ours is None:
            continue
        for segment, mask in masks.items():
            chosen = mask[rows.request_index]
            label = rows.labels[head.name][chosen]
            for name in _POOLED:
                metric = f"{name}.{head.name}"
                level = _level(metric, segment, "challenger", ours[chosen], label)
                if isinstance(level, AbsentMetric):
                    found.append(level)
                    continue
                other = None
                if theirs is not None:
                    other = _level(metric, segment, "baseline", theirs[chosen], label)
                if isinstance(other, AbsentMetric):
                    found.append(other)
                    other = None
                found.append(
                    MetricComparison(
                        metric=metric,
                        segment=segment,
                        challenger=level,
                        baseline=other,
                        relative_change=None,
                    )
                )
    return found


def _level(
    metric: str, segment: str, side: Side, probability: np.ndarray, label: np.ndarray
) -> float | AbsentMetric:
    """Return the metric on one side, or why there is none."""
    if len(label) == 0:
        return absent(metric, segment, side, EMPTY_SEGMENT)
    if not np.all(np.isfinite(probability)):
        return absent(metric, segment, side)
    try:
        return _POOLED[metric.partition(".")[0]](probability, label)
    except MetricUndefinedError as error:
        reason = str(error).partition(": ")[2] + "."  # without the name of the function
        return absent(metric, segment, side, reason)


def reliability(
    rows: ExampleRows, scores: SplitScores, side: Side, heads: tuple[Head, ...]
) -> tuple[ReliabilityBin, ...]:
    """Return the calibration plot's points: bins of equal numbers of examples, by probability."""
    points = []
    for head in heads:
        probability = scores.probabilities.get(head.name)
        if probability is None or not np.all(np.isfinite(probability)):
            continue
        order = np.argsort(probability, kind="stable")
        for members in np.array_split(order, NUM_RELIABILITY_BINS):
            if len(members):
                points.append(
                    ReliabilityBin(
                        side=side,
                        head=head.name,
                        num_examples=len(members),
                        mean_predicted=float(probability[members].mean()),
                        mean_observed=float(rows.labels[head.name][members].mean()),
                    )
                )
    return tuple(points)
