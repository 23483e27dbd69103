"""Does the gate measure what it says it measures? Its intervals, checked on this cycle's own rows.

What the bootstrap gives is held against answers that are known otherwise: a bias that is put in
must come out, the width must be that of the linearised error, and intervals must cover the truth as
often as they claim. Scaled intervals, lost pairing and swapped sides are found this way. Not for
models whose verdict is known (`validation.model_gate.self_test.run`).

Letters: G groups of users, D draws.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.config import Head, ModelGateConfig
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Interval, MetricComparison
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.bootstrap import UserSums, paired_bootstrap
from validation.model_gate.comparison import HoldoutUsers, bootstrap_metrics
from validation.model_gate.holdout_metrics import RatioMetric, ratio_metrics, segment_masks
from validation.model_gate.target_metric import target_metric

PLANTED_BIAS = 0.01
_NUM_DRAWS, _DRAW_RESAMPLES = 200, 400
_BAND = 0.999  # Of the number of draws whose interval covers the truth.
_WIDEST = 1.25
"""How far the bootstrap's error may be from the linearised one, either way. Chance among 2,000
resamples is 2 %, and the tail of few, unequal users is the rest."""
_FEWEST = 50
"""Groups of users on which the two sides differ; with fewer, an interval's width is mostly luck."""


class SelfTestFailedError(HomefeedError):
    """The gate's own statistics are wrong; no verdict of it can be trusted."""


@dataclass(frozen=True)
class _Sums:
    """The target metric of both sides per group of users, (G,)."""

    challenger: NDArray[np.float64]
    baseline: NDArray[np.float64]
    denominator: NDArray[np.float64]


def check_intervals(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> tuple[str, ...]:
    """Return what was found in sentences; nothing where the target metric has no interval.

    Raises:
        SelfTestFailedError: the estimate does not follow a planted bias, or the intervals are too
            narrow or too wide.
    """
    target = target_metric(config, heads)
    metrics = ratio_metrics(rows, challenger, baseline, heads, target)
    [metric] = [m for m in metrics if m.name == target.name]
    users = HoldoutUsers.of(rows)
    change = _change(rows, metric, users, config)
    if change is None:
        return ()
    found = [_check_bias(rows, metric, users, config, change)]
    sums = _sum_by_group(rows, metric, users)
    num_different = int(np.count_nonzero(sums.challenger != sums.baseline))
    if num_different < _FEWEST:
        return (*found, f"The two sides differ for {num_different} users: too few for the rest.")
    return (*found, _check_width(sums, change), _check_coverage(sums, config))


def _change(
    rows: ExampleRows, metric: RatioMetric, users: HoldoutUsers, config: ModelGateConfig
) -> Interval | None:
    """Return the relative change of one metric over all users, as the gate computes it."""
    everyone = {"all": segment_masks(rows)["all"]}
    table = bootstrap_metrics(rows, [metric], everyone, users, config).table
    return next((r.relative_change for r in table if isinstance(r, MetricComparison)), None)


def _check_bias(
    rows: ExampleRows,
    metric: RatioMetric,
    users: HoldoutUsers,
    config: ModelGateConfig,
    change: Interval,
) -> str:
    """Put a bias into the challenger: it must come out, with its sign, and nothing besides."""
    biased = replace(metric, challenger=metric.challenger * (1 + PLANTED_BIAS))
    found = _change(rows, biased, users, config)
    expected = (1 + PLANTED_BIAS) * (1 + change.value) - 1
    if found is None or not math.isclose(found.value, expected, abs_tol=1e-9):
        raise SelfTestFailedError(
            f"the model gate's self-test failed: the challenger's {metric.name} was raised by "
            f"{PLANTED_BIAS:.0%}, and the change came out as "
            f"{'nothing' if found is None else f'{found.value:+.4%}'}, expected {expected:+.4%}; "
            f"the sides are swapped or the estimate is biased: fix "
            f"validation/model_gate/comparison.py before any model is judged"
        )
    return f"A bias of {PLANTED_BIAS:.0%} in the challenger moved the change by exactly that."


def _sum_by_group(rows: ExampleRows, metric: RatioMetric, users: HoldoutUsers) -> _Sums:
    """Return the metric's sums per group, added up here and not by the code under test."""
    group = users.request_group
    columns = []
    for values in (metric.challenger, metric.baseline, metric.denominator):
        total = np.zeros(users.num_groups)
        if values is not None:
            np.add.at(total, group, values)
        columns.append(total)
    if metric.denominator is None:
        columns[2] = np.bincount(users.user_group, minlength=users.num_groups).astype(np.float64)
    return _Sums(*columns)


def _linear_error(sums: _Sums) -> float:
    """Return the standard error of the relative change, linearised (the delta method)."""
    change = sums.challenger.sum() / sums.baseline.sum() - 1
    residuals = sums.challenger - (1 + change) * sums.baseline
    num_groups = len(residuals)
    variance = float(np.square(residuals).sum()) * num_groups / (num_groups - 1)
    return math.sqrt(variance) / float(sums.baseline.sum())


def _check_width(sums: _Sums, change: Interval) -> str:
    """Hold the interval's width against the linearised error: too narrow, too wide, or unpaired."""
    expected = _linear_error(sums)
    found = (change.high - change.low) / (2 * _normal_quantile((1 + change.confidence) / 2))
    if not expected / _WIDEST <= found <= expected * _WIDEST:
        raise SelfTestFailedError(
            f"the model gate's self-test failed: its interval implies a standard error of "
            f"{found:.4%}, the linearised one is {expected:.4%}; expected a ratio from "
            f"{1 / _WIDEST:g} to {_WIDEST:g}; the intervals are scaled or the pairing of the two "
            f"sides is lost: fix validation/model_gate/bootstrap.py before any model is judged"
        )
    return f"The interval's standard error is {found / expected:.2f} times the linearised one."


def _check_coverage(sums: _Sums, config: ModelGateConfig) -> str:
    """Count how often the interval covers the truth where there is no difference.

    In each draw, users are drawn with replacement, and each user's two sides are swapped or not by
    lot, so that no side is better. The interval covers zero in so many of the draws as it claims.
    """
    from scipy.stats import binom

    rng = np.random.default_rng(config.bootstrap_seed)
    num_groups = len(sums.challenger)
    drawn = rng.integers(0, num_groups, (num_groups, _NUM_DRAWS))
    is_swapped = rng.random(drawn.shape) < 0.5
    one, other = sums.challenger[drawn], sums.baseline[drawn]
    planted = UserSums(
        np.where(is_swapped, other, one),
        np.where(is_swapped, one, other),
        sums.denominator[drawn],
    )
    estimates = paired_bootstrap(planted, _DRAW_RESAMPLES, config.confidence, config.bootstrap_seed)
    changes = [e.relative_change for e in estimates]
    covered = sum(change is not None and change.low <= 0 <= change.high for change in changes)
    fewest, most = (int(end) for end in binom.interval(_BAND, _NUM_DRAWS, config.confidence))
    if not fewest <= covered <= most:
        raise SelfTestFailedError(
            f"the model gate's self-test failed: of {_NUM_DRAWS} comparisons without a difference "
            f"{covered} intervals cover zero, expected {fewest} to {most}; fix "
            f"validation/model_gate/bootstrap.py before any model is judged"
        )
    return (
        f"Of {_NUM_DRAWS} comparisons without a difference, {covered} intervals cover zero "
        f"({fewest} to {most} expected)."
    )


def _normal_quantile(share: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(share)
