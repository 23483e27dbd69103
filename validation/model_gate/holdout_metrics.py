"""Metrics of two sides on the same holdout rows, before any statistics.

Not for intervals (`validation.model_gate.bootstrap`) nor for the definition of a top 3
(`validation.model_gate.ranking_metrics`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.artifacts import MetricComparison, ReliabilityBin
from pipelines.contracts.config import Head
from pipelines.contracts.errors import DataContractError
from training.bundle.split_scores import ExampleRows
from validation.model_gate.ranking_metrics import (
    MetricUndefinedError,
    area_under_curve,
    expected_calibration_error,
    top_k_hits,
)

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]
TOP_K = 3
NUM_RELIABILITY_BINS = 10
"""As many as people read at a glance; bins hold equal numbers of examples, not equal widths."""
_LOWEST_PROBABILITY = 1e-7  # float32 rounds nearer values to 0, whose log loss would be infinite


@dataclass(frozen=True)
class SideScores:
    """One side's scores, aligned with the holdout's N examples."""

    ranking_score: FloatArray  # (N,) float64, the highest is shown first
    probabilities: Mapping[str, FloatArray]  # per head (N,) in [0, 1]; empty for popularity
    holdout_digest: str  # digest of the snapshot whose rows were scored

    def checked(self, num_examples: int, side: str) -> "SideScores":
        """Return itself, or refuse scores that do not belong to these rows."""
        for name, scores in {"ranking score": self.ranking_score, **self.probabilities}.items():
            if scores.shape != (num_examples,):
                raise DataContractError(
                    f"{side}: {name!r} has shape {scores.shape}, expected ({num_examples},), one "
                    f"per holdout example; score both sides on the rows that are compared"
                )
        return self


@dataclass(frozen=True)
class RatioMetric:
    """One metric as a sum per example or request on both sides, over a shared denominator."""

    name: str
    challenger: FloatArray
    baseline: FloatArray | None
    denominator: FloatArray | None  # None: the number of users
    is_per_request: bool


def target_metric_name(heads: tuple[Head, ...]) -> str:
    """Return the name of the volume metric of the target head, e.g. 'repin_volume_at_3'."""
    return f"{heads[0].name}_volume_at_{TOP_K}"


def segment_masks(rows: ExampleRows) -> dict[str, Mask]:
    """Return which requests (R,) belong to each segment: a user is core at a request, or not."""
    is_core = np.asarray(rows.is_core, dtype=bool)
    return {"all": np.ones_like(is_core), "core": is_core, "non_core": ~is_core}


def ratio_metrics(
    rows: ExampleRows, challenger: SideScores, baseline: SideScores, heads: tuple[Head, ...]
) -> list[RatioMetric]:
    """Return the metrics that are ratios of sums over users: those that get an interval."""
    num_requests = len(rows.user_id)
    target = heads[0].name
    metrics = []
    for head in heads:
        hits = [_hits(rows, side.ranking_score, head.name) for side in (challenger, baseline)]
        if head.name == target:
            metrics.append(
                RatioMetric(
                    target_metric_name(heads), hits[0], hits[1], np.ones(num_requests), True
                )
            )
        metrics.append(RatioMetric(f"hit_at_{TOP_K}.{head.name}", hits[0], hits[1], None, True))
        if head.name not in challenger.probabilities:
            continue
        label = rows.labels[head.name].astype(np.float64)
        ours = challenger.probabilities[head.name].astype(np.float64)
        theirs = baseline.probabilities.get(head.name)
        metrics += [
            RatioMetric(
                f"log_loss.{head.name}",
                _log_losses(ours, label),
                None if theirs is None else _log_losses(theirs.astype(np.float64), label),
                np.ones(len(label)),
                False,
            ),
            RatioMetric(
                f"calibration_ratio.{head.name}",
                ours,
                None if theirs is None else theirs.astype(np.float64),
                label,
                False,
            ),
        ]
    return metrics


def _hits(rows: ExampleRows, score: FloatArray, head: str) -> FloatArray:
    """Return labels in the top 3 per request (R,); NaN throughout if a score is not finite."""
    if not np.all(np.isfinite(score)):
        return np.full(len(rows.user_id), np.nan)  # no order exists, so no top 3
    return np.asarray(top_k_hits(rows, score, rows.labels[head], k=TOP_K), dtype=np.float64)


def _log_losses(probability: FloatArray, label: FloatArray) -> FloatArray:
    """Return -log p(label) per example, in nats."""
    clipped = np.clip(probability, _LOWEST_PROBABILITY, 1 - _LOWEST_PROBABILITY)
    return -(label * np.log(clipped) + (1 - label) * np.log1p(-clipped))


def pooled_metrics(
    rows: ExampleRows,
    challenger: SideScores,
    baseline: SideScores,
    heads: tuple[Head, ...],
    masks: Mapping[str, Mask],
) -> list[MetricComparison]:
    """Return AUC and ECE: not sums over users, so levels only."""
    pooled: dict[str, Callable[[FloatArray, NDArray[np.int8]], float]] = {
        "auc": area_under_curve,
        "ece": expected_calibration_error,
    }
    table = []
    for head in heads:
        if head.name not in challenger.probabilities:
            continue
        for segment, mask in masks.items():
            chosen = mask[rows.request_index]
            label = rows.labels[head.name][chosen]
            theirs = baseline.probabilities.get(head.name)
            for name, function in pooled.items():
                level = _level(function, challenger.probabilities[head.name][chosen], label)
                if level is None:
                    continue  # e.g. one class only: left out, not 0
                other = None if theirs is None else _level(function, theirs[chosen], label)
                table.append(
                    MetricComparison(
                        metric=f"{name}.{head.name}",
                        segment=segment,
                        challenger=level,
                        baseline=other,
                        relative_change=None,
                    )
                )
    return table


def _level(
    function: Callable[[FloatArray, NDArray[np.int8]], float],
    probability: FloatArray,
    label: NDArray[np.int8],
) -> float | None:
    """Return the metric; NaN where a probability is not finite, None where it is undefined."""
    if not np.all(np.isfinite(probability)):
        return float("nan")
    try:
        return float(function(probability, label))
    except MetricUndefinedError:
        return None


def reliability(
    rows: ExampleRows, scores: SideScores, side: str, heads: tuple[Head, ...]
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
                        side=side,  # type: ignore[arg-type]
                        head=head.name,
                        num_examples=len(members),
                        mean_predicted=float(probability[members].mean()),
                        mean_observed=float(rows.labels[head.name][members].mean()),
                    )
                )
    return tuple(points)
