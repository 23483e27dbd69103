"""Both sides of a comparison, estimated from the holdout's exploration requests.

Ordinary requests show candidates that the serving model chose, so that a ranking which would have
chosen others is judged on the wrong list. Exploration requests show candidates drawn at random.
Not for the estimators themselves (`estimators`), nor for the verdict, which does not use them:
exploration is a few requests of a hundred, and the intervals are wide.
"""

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.config import Head, ModelGateConfig
from pipelines.contracts.judgement import Interval, OffPolicyEstimate
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.bootstrap import resampled_sums, user_groups
from validation.model_gate.off_policy.estimators import (
    Choice,
    Logged,
    Parts,
    doubly_robust,
    effective_size,
    even_weights,
    replay,
    slate_snips,
)
from validation.model_gate.ranking_metrics import is_in_top
from validation.model_gate.target_metric import TOP_K, target_metric

CLIP = 10.0
"""Largest weight of one candidate in the doubly robust estimate."""
NO_CHANCES = "The event log has no propensity for these requests."


def estimate(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> tuple[OffPolicyEstimate, ...]:
    """Return one estimate per estimator; nothing where the holdout has no exploration requests.

    Raises:
        ConfigurationError: no head gives the target metric.
        MetricUndefinedError: a score is not finite.
    """
    if not rows.is_exploration.any():
        return ()
    head = target_metric(config, heads).head.name
    logged = _logged(rows, head)
    predicted = _predicted(rows, challenger, baseline, head)
    ours, theirs = (_choice(rows, side, predicted) for side in (challenger, baseline))
    groups, group_of = user_groups(rows.user_id[rows.is_exploration])

    def row(name: str, mine: Parts | None, other: Parts | None, size: float) -> OffPolicyEstimate:
        change = _change(mine, other, group_of, len(groups), config)
        return OffPolicyEstimate(
            estimator=name,
            challenger=mine.value if mine else None,
            baseline=other.value if other else None,
            relative_change=change,
            num_requests=logged.num_requests,
            effective_size=size,
            note="" if mine is not None else NO_CHANCES,
        )

    agrees = float((logged.is_first & ours.is_best).sum())
    weights = logged.weight[ours.is_top] if logged.weight is not None else np.zeros(0)
    size = effective_size(weights)
    return (
        row("replay, first place", replay(logged, ours), replay(logged, theirs), agrees),
        row(
            f"slate SNIPS, top {TOP_K}",
            slate_snips(logged, ours, TOP_K),
            slate_snips(logged, theirs, TOP_K),
            size,
        ),
        row(
            f"doubly robust, top {TOP_K}",
            doubly_robust(logged, ours, CLIP),
            doubly_robust(logged, theirs, CLIP),
            size,
        ),
    )


def _rows_of_exploration(rows: ExampleRows) -> NDArray[np.bool_]:
    return np.asarray(rows.is_exploration[rows.request_index], dtype=bool)


def _logged(rows: ExampleRows, head: str) -> Logged:
    inside = _rows_of_exploration(rows)
    number = np.cumsum(rows.is_exploration) - 1  # of each request among the exploring ones
    request = number[rows.request_index[inside]]
    num_requests = int(rows.is_exploration.sum())
    position = rows.position[inside].astype(np.int64)
    first = np.full(num_requests, np.iinfo(np.int64).max)
    np.minimum.at(first, request, position)
    return Logged(
        request=request,
        num_requests=num_requests,
        is_first=position == first[request],
        reward=rows.labels[head][inside].astype(np.float64),
        weight=even_weights(request, num_requests, rows.propensity[inside].astype(np.float64)),
    )


def _predicted(
    rows: ExampleRows, challenger: SplitScores, baseline: SplitScores, head: str
) -> NDArray[np.float64] | None:
    """Return the mean of both sides' probabilities, so that neither side is its own judge."""
    found = [side.probabilities[head] for side in (challenger, baseline) if side.probabilities]
    if not found:
        return None
    return np.asarray(np.mean(found, axis=0)[_rows_of_exploration(rows)], dtype=np.float64)


def _choice(rows: ExampleRows, side: SplitScores, predicted: NDArray[np.float64] | None) -> Choice:
    inside = _rows_of_exploration(rows)
    return Choice(
        is_best=is_in_top(rows, side.ranking_score, 1)[inside],
        is_top=is_in_top(rows, side.ranking_score, TOP_K)[inside],
        predicted=predicted,
    )


def _change(
    mine: Parts | None,
    other: Parts | None,
    group_of: NDArray[np.intp],
    num_groups: int,
    config: ModelGateConfig,
) -> Interval | None:
    """Return the relative change with its interval over users; None where a draw has no value."""
    if mine is None or other is None or not mine.value or not other.value:
        return None
    columns = np.stack(
        [
            np.bincount(group_of, part, minlength=num_groups)
            for side in (mine, other)
            for part in (side.numerator, side.denominator)
        ],
        axis=1,
    ).astype(np.float64)
    drawn = resampled_sums(columns, config.num_resamples, config.bootstrap_seed)
    if (drawn[:, 1:] <= 0).any():
        return None
    changes = (drawn[:, 0] / drawn[:, 1]) / (drawn[:, 2] / drawn[:, 3]) - 1
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(changes, [tail, 1 - tail])
    value = mine.value / other.value - 1
    return Interval(value=value, low=float(low), high=float(high), confidence=config.confidence)
