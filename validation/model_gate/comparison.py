"""Comparison of two models on the same holdout rows: facts, by metric and segment.

Not for permission (`validation.model_gate.verdict`) and not for making scores
(`training.bundle.score_split`). The offline numbers have one limit: both models are read on
candidates that the model serving at the time chose to show, so a challenger that would have chosen
differently is judged on the other model's list.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.config import Head, ModelGateConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import AbsentMetric, BaselineKind, Comparison, MetricComparison
from pipelines.contracts.time import Window
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.bootstrap import (
    RatioEstimate,
    UserSums,
    paired_bootstrap,
    smallest_detectable_change,
    user_groups,
)
from validation.model_gate.holdout_metrics import (
    EMPTY_SEGMENT,
    FloatArray,
    Mask,
    RatioMetric,
    head_facts,
    not_finite,
    pooled_metrics,
    ratio_metrics,
    reliability,
    segment_masks,
    undefined,
)
from validation.model_gate.policy.influence import Influences, Key, deciding, influence
from validation.model_gate.target_metric import target_metric


@dataclass(frozen=True)
class ComparedModels:
    """Who is compared, on what."""

    holdout: Window
    baseline_kind: BaselineKind
    challenger: ModelRef
    champion: ModelRef | None
    differences: tuple[str, ...] = ()  # where the two recipes differ, in sentences
    seen: tuple[str, ...] = ()  # why the holdout was no holdout for a side, in sentences
    baseline_name: str = ""  # of a first cycle's baseline


@dataclass(frozen=True)
class HoldoutUsers:
    """Who made each of the M requests, and in which group a user is drawn."""

    request_user: NDArray[np.intp]  # (M,), users from 0 on
    user_group: NDArray[np.intp]  # one per user, places in `groups`
    groups: NDArray[np.intp]  # (G,) numbers of the groups that have a user here

    @classmethod
    def of(cls, rows: ExampleRows) -> "HoldoutUsers":
        """Return the users of a holdout's requests."""
        users, request_user = np.unique(rows.user_id, return_inverse=True)
        groups, user_group = user_groups(users)
        return cls(request_user, user_group, groups)

    @property
    def num_groups(self) -> int:
        """Groups with at least one user."""
        return len(self.groups)

    @property
    def num_users(self) -> int:
        """Users with at least one request."""
        return len(self.user_group)

    @property
    def request_group(self) -> NDArray[np.intp]:
        """The group of each request's user, (M,)."""
        return self.user_group[self.request_user]

    def per_group(self, mask: Mask) -> FloatArray:
        """Return the number of users in each group who made some of these requests."""
        present = np.unique(self.request_user[mask])
        counts = np.bincount(self.user_group[present], minlength=self.num_groups)
        return counts.astype(np.float64)

    def count(self, mask: Mask) -> int:
        """Return the number of users who made some of these requests."""
        return len(np.unique(self.request_user[mask]))


def compare(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> Comparison:
    """Return the comparison alone; see `compare_with_influences`."""
    return compare_with_influences(rows, challenger, baseline, models, heads, config)[0]


def compare_with_influences(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> tuple[Comparison, Influences]:
    """Return every metric of both sides on the same rows, with paired intervals over users.

    The second result says how much each group of users moves the changes that decide, so that
    cycles can be pooled.

    Metrics, by segment: `<head>_volume_at_3` of the target metric's head (its actions in the top 3,
    mean per request; higher is better), `hit_at_3.<head>` (the same per user, as TransAct reports
    it; lower is better for an unwanted head), `log_loss.<head>`, `calibration_ratio.<head>` (sum
    predicted / sum observed; 1 is right), `auc.<head>`, `ece.<head>`. A metric that cannot be
    computed has no row; why not stands in `absent`.

    Raises:
        ConfigurationError: no head gives the target metric.
        DataContractError: scores and rows do not belong together, or the holdout is empty.
    """
    num_examples = _check_rows(rows)
    _check_scores(challenger, num_examples, "challenger")
    _check_scores(baseline, num_examples, "baseline")
    target, users, masks = target_metric(config, heads), HoldoutUsers.of(rows), segment_masks(rows)
    metrics = ratio_metrics(rows, challenger, baseline, heads, target)
    found = bootstrap_metrics(rows, metrics, masks, users, config)
    table, target_error = found.table, found.target_error
    group, confidence = users.request_group, config.confidence
    table += pooled_metrics(rows, challenger, baseline, heads, masks, group, confidence)
    comparison = Comparison(
        holdout_digest=challenger.holdout_digest,
        baseline_holdout_digest=baseline.holdout_digest,
        holdout=models.holdout,
        baseline_kind=models.baseline_kind,
        baseline_name=models.baseline_name,
        challenger_model=models.challenger,
        baseline_model=models.champion,
        num_users=users.num_users,
        num_requests=len(rows.user_id),
        num_examples=num_examples,
        segment_users={name: int(users.count(mask)) for name, mask in masks.items()},
        metrics=tuple(row for row in table if isinstance(row, MetricComparison)),
        absent=_absent(table, target.name, target_error),
        target_metric=target.name,
        smallest_detectable_change=None
        if target_error is None
        else smallest_detectable_change(target_error, config.confidence),
        bootstrap_seed=config.bootstrap_seed,
        are_scores_identical=bool(np.array_equal(challenger.ranking_score, baseline.ranking_score)),
        reliability=reliability(rows, challenger, "challenger", heads)
        + reliability(rows, baseline, "baseline", heads),
        heads=head_facts(rows, challenger, heads),
        differences=models.differences,
        seen=models.seen,
    )
    return comparison, found.influences


def _absent(
    table: list[MetricComparison | AbsentMetric], target: str, target_error: float | None
) -> tuple[AbsentMetric, ...]:
    """Return what could not be computed, the smallest detectable change included."""
    missing = [row for row in table if isinstance(row, AbsentMetric)]
    if target_error is None:
        missing.append(_without_detectable_change(target, missing))
    return tuple(missing)


def _check_rows(rows: ExampleRows) -> int:
    """Return the number of examples; refuse a holdout that has none."""
    if len(rows.request_index) == 0:
        raise DataContractError(
            "the holdout has no examples, expected at least one request; check "
            "snapshot.holdout_days and that the event log reaches as_of"
        )
    return len(rows.request_index)


def _check_scores(scores: SplitScores, num_examples: int, side: str) -> None:
    """Refuse scores that do not belong to these rows."""
    for name, values in {"ranking score": scores.ranking_score, **scores.probabilities}.items():
        if values.shape != (num_examples,):
            raise DataContractError(
                f"{side}: {name!r} has shape {values.shape}, expected ({num_examples},), one per "
                f"holdout example; score both sides on the rows that are compared"
            )


@dataclass(frozen=True)
class Bootstrapped:
    """What the draws of users say of every metric in every segment."""

    table: list[MetricComparison | AbsentMetric]
    target_error: float | None  # standard error of the target's relative change over all users
    influences: Influences


def bootstrap_metrics(
    rows: ExampleRows,
    metrics: list[RatioMetric],
    masks: Mapping[str, Mask],
    users: HoldoutUsers,
    config: ModelGateConfig,
) -> "Bootstrapped":
    """Bootstrap every metric in every segment on the same draws of users."""
    request_group = users.request_group

    def per_group(values: FloatArray | None, mask: Mask) -> FloatArray:
        if values is None:
            return np.zeros(users.num_groups)
        sums = np.bincount(request_group[mask], values[mask], minlength=users.num_groups)
        return sums.astype(np.float64)

    table: list[MetricComparison | AbsentMetric] = []
    keys, columns = [], []
    judged = {name: (mask, users.per_group(mask)) for name, mask in masks.items() if mask.any()}
    for metric in (_per_request(metric, rows) for metric in metrics):
        for segment in masks:
            if segment not in judged:
                table.append(undefined(metric.name, segment, "challenger", EMPTY_SEGMENT))
                continue
            mask, num_users = judged[segment]
            divisor = num_users
            if metric.denominator is not None:
                divisor = per_group(metric.denominator, mask)
            keys.append((metric, segment))
            columns.append(
                (per_group(metric.challenger, mask), per_group(metric.baseline, mask), divisor)
            )
    sums = UserSums(*(np.stack(side, axis=1) for side in zip(*columns, strict=True)))
    estimates = paired_bootstrap(
        sums, config.num_resamples, config.confidence, config.bootstrap_seed
    )
    target_error = None
    columns_of: dict[Key, FloatArray] = {}
    for k, ((metric, segment), estimate) in enumerate(zip(keys, estimates, strict=True)):
        table += _rows_of(metric, segment, sums, k, estimate)
        if (metric.name, segment) == (config.target_metric, "all"):
            target_error = estimate.relative_standard_error
        if (metric.name, segment) in deciding(config) and metric.baseline is not None:
            column = influence(sums.challenger[:, k], sums.baseline[:, k])
            columns_of |= {} if column is None else {(metric.name, segment): column}
    table.sort(key=lambda row: list(masks).index(row.segment))
    return Bootstrapped(table, target_error, Influences(users.groups, columns_of))


def _per_request(metric: RatioMetric, rows: ExampleRows) -> RatioMetric:
    """Return the metric with its values summed per request, (M,)."""
    if metric.is_per_request:
        return metric

    def summed(values: FloatArray) -> FloatArray:
        sums = np.bincount(rows.request_index, weights=values, minlength=len(rows.user_id))
        return sums.astype(np.float64)

    return RatioMetric(
        name=metric.name,
        challenger=summed(metric.challenger),
        baseline=None if metric.baseline is None else summed(metric.baseline),
        denominator=None if metric.denominator is None else summed(metric.denominator),
        is_per_request=True,
    )


def _rows_of(
    metric: RatioMetric, segment: str, sums: UserSums, k: int, estimate: RatioEstimate
) -> list[MetricComparison | AbsentMetric]:
    """Return the k-th metric's line of the comparison, and what could not be computed of it."""
    name, columns = metric.name, (sums.challenger, sums.baseline, sums.denominators)
    level, other, divisor = (float(column[:, k].sum()) for column in columns)
    if divisor == 0:
        return [undefined(name, segment, "challenger", "No example has the action.")]
    if not np.isfinite(level):
        return [not_finite(name, segment, "challenger")]
    has_baseline = metric.baseline is not None and bool(np.isfinite(other))
    row = MetricComparison(
        metric=name,
        segment=segment,
        challenger=level / divisor,
        baseline=other / divisor if has_baseline else None,
        relative_change=estimate.relative_change if has_baseline else None,
        difference=estimate.difference if has_baseline else None,
        challenger_interval=estimate.challenger,
        baseline_interval=estimate.baseline if has_baseline else None,
    )
    if metric.baseline is None or has_baseline:
        return [row]
    return [row, not_finite(name, segment, "baseline")]


def _without_detectable_change(target: str, missing: list[AbsentMetric]) -> AbsentMetric:
    """Return why the smallest detectable change is not known."""
    causes = (row.reason for row in missing if (row.metric, row.segment) == (target, "all"))
    zero = f"The baseline's {target} is zero in at least one resample of the users."
    return undefined("smallest_detectable_change", "all", "baseline", next(causes, zero))
