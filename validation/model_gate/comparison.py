"""Comparison of two models on the same holdout rows: facts, by metric and segment.

Not for permission (`validation.model_gate.verdict`) and not for making scores
(`training.bundle.split_scores`). What the offline numbers cannot say: both models are read on
candidates that the model serving at the time chose to show, so a challenger that would have chosen
differently is judged on the other's list.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.artifacts import (
    BaselineKind,
    Comparison,
    MetricComparison,
    ModelRef,
    Window,
)
from pipelines.contracts.config import Head, ModelGateConfig
from pipelines.contracts.errors import DataContractError
from training.bundle.split_scores import ExampleRows
from validation.model_gate.bootstrap import (
    RatioEstimate,
    UserSums,
    paired_bootstrap,
    smallest_detectable_change,
)
from validation.model_gate.holdout_metrics import (
    FloatArray,
    Mask,
    RatioMetric,
    SideScores,
    pooled_metrics,
    ratio_metrics,
    reliability,
    segment_masks,
)


@dataclass(frozen=True)
class ComparedModels:
    """Who is compared, on what."""

    holdout: Window
    baseline_kind: BaselineKind
    challenger: ModelRef
    champion: ModelRef | None


def compare(
    rows: ExampleRows,
    challenger: SideScores,
    baseline: SideScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> Comparison:
    """Return every metric of both sides on the same rows, with paired intervals over users.

    Metrics, by segment: `<target>_volume_at_3` (target labels in the top 3, mean per request;
    higher is better), `hit_at_3.<head>` (the same per user, as TransAct reports it; lower is
    better for an unwanted head), `log_loss.<head>`, `calibration_ratio.<head>` (sum predicted /
    sum observed; 1 is right), `auc.<head>`, `ece.<head>`. A metric that cannot be computed is left
    out, never 0; non-finite scores make it NaN.

    Raises:
        DataContractError: scores and rows do not belong together, or the holdout is empty.
    """
    if len(rows.request_index) == 0:
        raise DataContractError(
            "the holdout has no examples, expected at least one request; check "
            "snapshot.holdout_days and that the event log reaches as_of"
        )
    challenger.checked(len(rows.request_index), "challenger")
    baseline.checked(len(rows.request_index), "baseline")
    users, request_user = np.unique(rows.user_id, return_inverse=True)
    masks = segment_masks(rows)
    metrics = ratio_metrics(rows, challenger, baseline, heads)
    estimates = _bootstrap_all(rows, metrics, masks, request_user, len(users), config)
    table = [row for row, _ in estimates]
    table += pooled_metrics(rows, challenger, baseline, heads, masks)
    target_error = next(
        (
            estimate.relative_standard_error
            for row, estimate in estimates
            if row.segment == "all" and row.metric == config.target_metric
        ),
        float("nan"),
    )
    return Comparison(
        holdout_digest=challenger.holdout_digest,
        baseline_holdout_digest=baseline.holdout_digest,
        holdout=models.holdout,
        baseline_kind=models.baseline_kind,
        challenger_model=models.challenger,
        champion_model=models.champion,
        num_users=len(users),
        num_requests=len(rows.user_id),
        num_examples=len(rows.request_index),
        segment_users={name: len(np.unique(request_user[mask])) for name, mask in masks.items()},
        metrics=tuple(table),
        smallest_detectable_change=smallest_detectable_change(target_error, config.confidence),
        bootstrap_seed=config.bootstrap_seed,
        are_scores_identical=bool(np.array_equal(challenger.ranking_score, baseline.ranking_score)),
        reliability=reliability(rows, challenger, "challenger", heads)
        + reliability(rows, baseline, "baseline", heads),
    )


def _bootstrap_all(
    rows: ExampleRows,
    metrics: list[RatioMetric],
    masks: Mapping[str, Mask],
    request_user: NDArray[np.intp],
    num_users: int,
    config: ModelGateConfig,
) -> list[tuple[MetricComparison, RatioEstimate]]:
    """Bootstrap every metric in every segment on the same draws of users."""

    def per_user(values: FloatArray, metric: RatioMetric, mask: Mask) -> FloatArray:
        index = np.arange(len(rows.user_id)) if metric.is_per_request else rows.request_index
        kept = np.where(mask[index], values, 0.0)
        sums = np.bincount(request_user[index], weights=kept, minlength=num_users)
        return sums.astype(np.float64)

    keys, ours, theirs, divisors = [], [], [], []
    for segment, mask in masks.items():
        is_present = np.bincount(request_user, weights=mask, minlength=num_users) > 0
        if not is_present.any():
            continue  # an empty segment has no metrics; the verdict notices
        for metric in metrics:
            keys.append((metric, segment))
            ours.append(per_user(metric.challenger, metric, mask))
            theirs.append(
                np.zeros(num_users)
                if metric.baseline is None
                else per_user(metric.baseline, metric, mask)
            )
            divisors.append(
                is_present.astype(np.float64)
                if metric.denominator is None
                else per_user(metric.denominator, metric, mask)
            )
    sums = UserSums(np.stack(ours, 1), np.stack(theirs, 1), np.stack(divisors, 1))
    estimates = paired_bootstrap(
        sums, config.num_resamples, config.confidence, config.bootstrap_seed
    )
    found = []
    for k, ((metric, segment), estimate) in enumerate(zip(keys, estimates, strict=True)):
        divisor = sums.denominators[:, k].sum()
        if divisor == 0:
            continue  # e.g. calibration of a head that never occurred: left out, not 0
        level = float(sums.challenger[:, k].sum() / divisor)
        other = None if metric.baseline is None else float(sums.baseline[:, k].sum() / divisor)
        found.append((_row(metric.name, segment, level, other, estimate), estimate))
    return found


def _row(
    metric: str, segment: str, level: float, other: float | None, estimate: RatioEstimate
) -> MetricComparison:
    """Return one line of the comparison; what the baseline lacks stays absent."""
    has_baseline = other is not None
    return MetricComparison(
        metric=metric,
        segment=segment,
        challenger=level,
        baseline=other,
        relative_change=estimate.relative_change if has_baseline else None,
        challenger_interval=estimate.challenger,
        baseline_interval=estimate.baseline if has_baseline else None,
    )
