"""Metrics of two sides on the same holdout rows, before any statistics.

Not for intervals (`validation.model_gate.bootstrap`) nor for the definition of a top 3
(`validation.model_gate.ranking_metrics`). Tested in
tests/validation/model_gate/test_comparison.py.

Letters: N examples, M requests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.config import Head
from pipelines.contracts.judgement import (
    AbsenceKind,
    AbsentMetric,
    HeadFacts,
    Interval,
    MetricComparison,
    ReliabilityBin,
)
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.ranking_metrics import (
    auc_with_influence,
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
    """Return which requests (M,) belong to each segment: at a request, a user is core or not.

    Where some requests show candidates that were drawn at random, they are a segment too.
    """
    is_core = np.asarray(rows.is_core, dtype=bool)
    masks = {"all": np.ones_like(is_core), "core": is_core, "non_core": ~is_core}
    explores = np.asarray(rows.is_exploration, dtype=bool)
    return masks | ({"exploration": explores} if explores.any() else {})


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


def level_of(
    rows: ExampleRows, scores: SplitScores, heads: tuple[Head, ...], target: TargetMetric
) -> float:
    """Return the target metric of one side alone; NaN where a score is not finite."""
    metrics = ratio_metrics(rows, scores, scores, heads, target)
    metric = next(found for found in metrics if found.name == target.name)
    if metric.denominator is None:
        return float(metric.challenger.sum() / len(np.unique(rows.user_id)))
    return float(metric.challenger.sum() / metric.denominator.sum())


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


def not_finite(metric: str, segment: str, side: Side) -> AbsentMetric:
    """Return the record of a number that a side lacks because its own scores are at fault."""
    reason = f"The {side}'s scores hold NaN or infinity."
    kind = AbsenceKind.NOT_FINITE
    return AbsentMetric(metric=metric, segment=segment, side=side, kind=kind, reason=reason)


def undefined(metric: str, segment: str, side: Side, reason: str) -> AbsentMetric:
    """Return the record of a number that these rows do not give, whatever the scores are."""
    kind = AbsenceKind.UNDEFINED
    return AbsentMetric(metric=metric, segment=segment, side=side, kind=kind, reason=reason)


def head_facts(
    rows: ExampleRows, scores: SplitScores, heads: tuple[Head, ...]
) -> tuple[HeadFacts, ...]:
    """Return of each head with probabilities whether they are finite and differ at all."""
    found = []
    for head in heads:
        probability = scores.probabilities.get(head.name)
        if probability is not None:
            is_finite = bool(np.isfinite(probability).all())
            spread = float(np.ptp(probability)) if is_finite and len(probability) else None
            num_positives = int(np.sum(rows.labels[head.name], dtype=np.int64))
            found.append(HeadFacts(head=head.name, num_positives=num_positives, spread=spread))
    return tuple(found)


def pooled_metrics(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    heads: tuple[Head, ...],
    masks: Mapping[str, Mask],
    request_group: NDArray[np.intp],
    confidence: float,
) -> list[MetricComparison | AbsentMetric]:
    """Return AUC and ECE, which are not ratios of sums over users.

    AUC has an interval from its influence per group of users (`request_group`, (M,)); ECE has none.
    """
    found: list[MetricComparison | AbsentMetric] = []
    for head, (segment, mask) in product(heads, masks.items()):
        ours, theirs = (s.probabilities.get(head.name) for s in (challenger, baseline))
        if ours is None:
            continue
        chosen = mask[rows.request_index]
        label = rows.labels[head.name][chosen]
        group = request_group[rows.request_index[chosen]]
        for name in ("auc", "ece"):
            cell = _Cell(f"{name}.{head.name}", segment, label, group, confidence)
            level = cell.level(ours[chosen], "challenger")
            if isinstance(level, AbsentMetric):
                found.append(level)
                continue
            other = None if theirs is None else cell.level(theirs[chosen], "baseline")
            if isinstance(other, AbsentMetric):
                found.append(other)
                other = None
            found.append(
                MetricComparison(
                    metric=cell.metric,
                    segment=segment,
                    challenger=level.value,
                    baseline=None if other is None else other.value,
                    relative_change=None,
                    challenger_interval=level.interval,
                    baseline_interval=None if other is None else other.interval,
                )
            )
    return found


class _Level(NamedTuple):
    value: float
    interval: Interval | None


@dataclass(frozen=True)
class _Cell:
    """One pooled metric in one segment: all that both sides share."""

    metric: str
    segment: str
    label: np.ndarray  # of the segment's examples
    group: NDArray[np.intp]  # of the segment's examples
    confidence: float

    def level(self, probability: np.ndarray, side: Side) -> _Level | AbsentMetric:
        """Return the metric on one side, or why there is none."""
        num = len(self.label)
        if num == 0:
            return undefined(self.metric, self.segment, side, EMPTY_SEGMENT)
        if not np.all(np.isfinite(probability)):
            return not_finite(self.metric, self.segment, side)
        if self.metric.startswith("ece."):
            if num < NUM_RELIABILITY_BINS:
                reason = f"There are fewer examples than the {NUM_RELIABILITY_BINS} bins."
                return undefined(self.metric, self.segment, side, reason)
            return _Level(expected_calibration_error(probability, self.label), None)
        if self.label.min() == self.label.max():
            reason = f"All {num:,} examples have the same label, so no order of them is better."
            return undefined(self.metric, self.segment, side, reason)
        area, influence = auc_with_influence(probability, self.label)
        error = float(np.sqrt(np.square(np.bincount(self.group, weights=influence)).sum()))
        reach = NormalDist().inv_cdf((1 + self.confidence) / 2) * error
        low, high = max(area - reach, 0.0), min(area + reach, 1.0)
        return _Level(area, Interval(value=area, low=low, high=high, confidence=self.confidence))


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
