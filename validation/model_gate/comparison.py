"""Comparison of two models on the same holdout rows: facts, by metric and segment.

Not for permission (`validation.model_gate.verdict`), for making scores
(`training.bundle.score_split`), nor for the definition of a top 3
(`validation.model_gate.ranking_metrics`). The offline numbers have one limit: both models are read
on candidates that the model serving at the time chose to show, so a challenger that would have
chosen differently is judged on the other model's list.

Letters: N examples, M requests, G groups of users.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.config import Head, ModelGateConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.reasons import (
    AbsenceKind,
    AbsentMetric,
    BaselineKind,
    HeadFacts,
    Interval,
    MetricComparison,
    Reason,
    ReliabilityBin,
)
from pipelines.contracts.time import Window
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.bootstrap import (
    FloatArray,
    RatioEstimate,
    UserSums,
    paired_bootstrap,
    smallest_detectable_change,
    user_groups,
)
from validation.model_gate.pooling import Influences, Key, deciding, influence
from validation.model_gate.ranking_metrics import (
    area_under_curve,
    expected_calibration_error,
    top_k_hits,
)
from validation.model_gate.target_metric import (
    TOP_K,
    TargetMetric,
    hits_name,
    target_metric,
    volume_name,
)

Mask = NDArray[np.bool_]
Side = Literal["challenger", "baseline"]
Row = MetricComparison | AbsentMetric
NUM_RELIABILITY_BINS = 10
"""As many as people read at a glance; bins hold equal numbers of examples, not equal widths."""
_LOWEST_PROBABILITY = 1e-7  # float32 rounds nearer values to 0, whose log loss would be infinite


@dataclass(frozen=True)
class ComparedModels:
    """Who is compared, on what."""

    holdout: Window
    baseline_kind: BaselineKind
    challenger: ModelRef
    champion: ModelRef | None
    differences: tuple[Reason, ...] = ()  # where the two recipes differ
    seen: tuple[Reason, ...] = ()  # why the holdout was no holdout for a side
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
    num_examples = len(rows.request_index)
    _check_rows(num_examples, {"challenger": challenger, "baseline": baseline})
    target, users, masks = target_metric(config, heads), HoldoutUsers.of(rows), segment_masks(rows)
    metrics = ratio_metrics(rows, challenger, baseline, heads, target)
    found = bootstrap_metrics(rows, metrics, masks, users, config)
    table = found.table + pooled_metrics(rows, challenger, baseline, heads, masks, users, config)
    error = found.target_error
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
        absent=tuple(row for row in table if isinstance(row, AbsentMetric)),
        target_metric=target.name,
        smallest_detectable_change=None
        if error is None
        else smallest_detectable_change(error, config.confidence),
        bootstrap_seed=config.bootstrap_seed,
        are_scores_identical=bool(np.array_equal(challenger.ranking_score, baseline.ranking_score)),
        reliability=(
            *reliability(rows, challenger, "challenger", heads),
            *reliability(rows, baseline, "baseline", heads),
        ),
        heads=tuple(_head_facts(rows, challenger, heads)),
        differences=models.differences,
        seen=models.seen,
    )
    return comparison, found.influences


def _check_rows(num_examples: int, sides: Mapping[str, SplitScores]) -> None:
    """Refuse a holdout without examples, and scores that do not belong to its rows."""
    if num_examples == 0:
        raise DataContractError(
            "the holdout has no examples, expected at least one request; check "
            "snapshot.holdout_days and that the event log reaches as_of"
        )
    for side, scores in sides.items():
        for name, values in {"ranking score": scores.ranking_score, **scores.probabilities}.items():
            if values.shape != (num_examples,):
                raise DataContractError(
                    f"{side}: {name!r} has shape {values.shape}, expected ({num_examples},), one "
                    f"per holdout example; score both sides on the rows that are compared"
                )


@dataclass(frozen=True)
class Bootstrapped:
    """What the draws of users say of every metric in every segment."""

    table: list[Row]
    target_error: float | None  # standard error of the target's relative change over all users
    influences: Influences


def bootstrap_metrics(
    rows: ExampleRows,
    metrics: list[RatioMetric],
    masks: Mapping[str, Mask],
    users: HoldoutUsers,
    config: ModelGateConfig,
) -> Bootstrapped:
    """Bootstrap every metric in every segment on the same draws of users."""
    request_group = users.request_group

    def per_group(values: FloatArray | None, mask: Mask) -> FloatArray:
        if values is None:
            return np.zeros(users.num_groups)
        sums = np.bincount(request_group[mask], values[mask], minlength=users.num_groups)
        return sums.astype(np.float64)

    table: list[Row] = []
    keys, columns = [], []
    judged = {name: (mask, users.per_group(mask)) for name, mask in masks.items() if mask.any()}
    for metric in (_per_request(metric, rows) for metric in metrics):
        for segment in masks:
            if segment not in judged:
                table.append(_absent(metric.name, segment, "challenger", "empty_segment"))
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

    return replace(
        metric,
        challenger=summed(metric.challenger),
        baseline=None if metric.baseline is None else summed(metric.baseline),
        denominator=None if metric.denominator is None else summed(metric.denominator),
        is_per_request=True,
    )


def _rows_of(
    metric: RatioMetric, segment: str, sums: UserSums, k: int, estimate: RatioEstimate
) -> list[Row]:
    """Return the k-th metric's line of the comparison, and what could not be computed of it."""
    name, columns = metric.name, (sums.challenger, sums.baseline, sums.denominators)
    level, other, divisor = (float(column[:, k].sum()) for column in columns)
    if divisor == 0:
        return [_absent(name, segment, "challenger", "no_action")]
    if not np.isfinite(level):
        return [_absent(name, segment, "challenger", "not_finite")]
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
    return [row, _absent(name, segment, "baseline", "not_finite")]


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
        label = rows.labels[head.name]
        ours = hits_per_request(rows, challenger.ranking_score, label)
        theirs = hits_per_request(rows, baseline.ranking_score, label)
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


def hits_per_request(rows: ExampleRows, score: FloatArray, label: np.ndarray) -> FloatArray:
    """Return labels in the top 3 per request (M,); NaN throughout if a score is not finite."""
    if not np.all(np.isfinite(score)):
        return np.full(len(rows.user_id), np.nan)  # no order exists, so no top 3
    return np.asarray(top_k_hits(rows, score, label, k=TOP_K), dtype=np.float64)


def _log_losses(probability: FloatArray, label: FloatArray) -> FloatArray:
    """Return -log p(label) per example, in nats."""
    clipped = np.clip(probability, _LOWEST_PROBABILITY, 1 - _LOWEST_PROBABILITY)
    return -(label * np.log(clipped) + (1 - label) * np.log1p(-clipped))


def _absent(metric: str, segment: str, side: Side, kind: str, num: int = 0) -> AbsentMetric:
    """Return the record of a number that could not be computed; `kind` is an `AbsenceKind`."""
    why = AbsenceKind(kind)
    return AbsentMetric(metric=metric, segment=segment, side=side, kind=why, num=num)


def _head_facts(
    rows: ExampleRows, scores: SplitScores, heads: tuple[Head, ...]
) -> Iterator[HeadFacts]:
    """Yield of each head with probabilities whether they are finite and differ at all."""
    for head in heads:
        probability = scores.probabilities.get(head.name)
        if probability is not None:
            is_finite = bool(np.isfinite(probability).all())
            spread = float(np.ptp(probability)) if is_finite and len(probability) else None
            num_positives = int(np.sum(rows.labels[head.name], dtype=np.int64))
            yield HeadFacts(head=head.name, num_positives=num_positives, spread=spread)


def pooled_metrics(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    heads: tuple[Head, ...],
    masks: Mapping[str, Mask],
    users: HoldoutUsers,
    config: ModelGateConfig,
) -> list[Row]:
    """Return AUC and ECE, which are not ratios of sums over users.

    AUC has an interval from its influence per group of users; ECE has none.
    """
    found: list[Row] = []
    for head, (segment, mask) in product(heads, masks.items()):
        ours, theirs = (s.probabilities.get(head.name) for s in (challenger, baseline))
        if ours is None:
            continue
        chosen = mask[rows.request_index]
        label = rows.labels[head.name][chosen]
        group = users.request_group[rows.request_index[chosen]]
        for name in ("auc", "ece"):
            cell = _Cell(f"{name}.{head.name}", segment, label, group, config.confidence)
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
                    challenger=level[0],
                    baseline=None if other is None else other[0],
                    relative_change=None,
                    challenger_interval=level[1],
                    baseline_interval=None if other is None else other[1],
                )
            )
    return found


@dataclass(frozen=True)
class _Cell:
    """One pooled metric in one segment: all that both sides share."""

    metric: str
    segment: str
    label: np.ndarray  # of the segment's examples
    group: NDArray[np.intp]  # of the segment's examples
    confidence: float

    def level(
        self, probability: np.ndarray, side: Side
    ) -> tuple[float, Interval | None] | AbsentMetric:
        """Return the metric on one side with its interval, or why there is none."""
        num = len(self.label)
        if num == 0:
            return _absent(self.metric, self.segment, side, "empty_segment")
        if not np.all(np.isfinite(probability)):
            return _absent(self.metric, self.segment, side, "not_finite")
        if self.metric.startswith("ece."):
            if num < NUM_RELIABILITY_BINS:
                few = NUM_RELIABILITY_BINS
                return _absent(self.metric, self.segment, side, "few_examples", few)
            return expected_calibration_error(probability, self.label), None
        if self.label.min() == self.label.max():
            return _absent(self.metric, self.segment, side, "one_label", num)
        area, influence = area_under_curve(probability, self.label)
        error = float(np.sqrt(np.square(np.bincount(self.group, weights=influence)).sum()))
        reach = NormalDist().inv_cdf((1 + self.confidence) / 2) * error
        low, high = max(area - reach, 0.0), min(area + reach, 1.0)
        return area, Interval(value=area, low=low, high=high, confidence=self.confidence)


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
