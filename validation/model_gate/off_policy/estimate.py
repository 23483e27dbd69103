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
    replay,
    slate_snips,
    slate_weights,
)
from validation.model_gate.ranking_metrics import is_in_top
from validation.model_gate.target_metric import TOP_K, target_metric

CLIP = 20.0
"""Largest weight of one request in the doubly robust estimate."""

Pair = tuple[Parts, Parts]


def estimate(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> tuple[OffPolicyEstimate, ...]:
    """Return one estimate per estimator; nothing where the holdout has no exploration requests.

    A number that cannot be estimated is None with the reason, also where a side's scores are not
    finite: these estimates decide nothing, so they stop nothing.

    Raises:
        ConfigurationError: no head gives the target metric.
    """
    if not rows.is_exploration.any():
        return ()
    head = target_metric(config, heads).head.name
    logged, inside = _logged(rows, head), _inside(rows)
    sides = (challenger, baseline)
    if not all(np.isfinite(side.ranking_score).all() for side in sides):
        reason = "A side's scores hold NaN or infinity."
        return tuple(_missing(name, logged, reason) for name in _NAMES)
    ours, theirs = (_choice(rows, side) for side in sides)
    groups, group_of = user_groups(rows.user_id[rows.is_exploration])

    def row(name: str, pair: Pair, note: str = "") -> OffPolicyEstimate:
        mine, other = pair
        return OffPolicyEstimate(
            estimator=name,
            challenger=mine.value,
            baseline=other.value,
            relative_change=_change(pair, group_of, len(groups), config),
            num_requests=logged.num_requests,
            effective_size=mine.effective_size,
            note=note,
        )

    weights = slate_weights(logged, rows.propensity[inside].astype(np.float64))
    predicted, whose = _predicted(rows, sides, head)
    first, robust, slate = _NAMES
    found = [row(first, (replay(logged, ours), replay(logged, theirs)))]
    if predicted is None:
        found.append(_missing(robust, logged, whose))
    else:
        pair = (
            doubly_robust(logged, ours, predicted, CLIP),
            doubly_robust(logged, theirs, predicted, CLIP),
        )
        found.append(row(robust, pair, whose))
    if not weights.any():
        found.append(_missing(slate, logged, "No request has a propensity for all candidates."))
    else:
        pair = (slate_snips(logged, ours, weights), slate_snips(logged, theirs, weights))
        found.append(row(slate, pair, _on_weights(weights)))
    return tuple(found)


_NAMES = ("replay, first place", "doubly robust, first place", f"slate SNIPS, top {TOP_K}")


def _missing(name: str, logged: Logged, reason: str) -> OffPolicyEstimate:
    return OffPolicyEstimate(
        estimator=name,
        challenger=None,
        baseline=None,
        relative_change=None,
        num_requests=logged.num_requests,
        effective_size=0,
        note=reason,
    )


def _on_weights(weights: NDArray[np.float64]) -> str:
    """Return what has to be said of a slate estimate."""
    used = weights[weights > 0]
    said = ""
    if np.ptp(used) == 0:
        said = (
            f"All chances are equal: this is the exploration segment's volume in the top {TOP_K}."
        )
    left_out = len(weights) - len(used)
    return f"{said} {left_out:,} requests lack a propensity.".strip() if left_out else said


def _inside(rows: ExampleRows) -> NDArray[np.bool_]:
    """Return which candidates (N,) belong to exploration requests."""
    return np.asarray(rows.is_exploration[rows.request_index], dtype=bool)


def _logged(rows: ExampleRows, head: str) -> Logged:
    inside = _inside(rows)
    number = np.cumsum(rows.is_exploration) - 1  # of each request among the exploring ones
    request = number[rows.request_index[inside]]
    num_requests = int(rows.is_exploration.sum())
    position = rows.position[inside]
    in_front = position == position.min()
    # A first place that two candidates share was not logged, whatever the column says.
    is_single = np.bincount(request, in_front, minlength=num_requests) == 1
    return Logged(
        request=request,
        num_requests=num_requests,
        is_first=in_front & is_single[request],
        reward=rows.labels[head][inside].astype(np.float64),
    )


def _predicted(
    rows: ExampleRows, sides: tuple[SplitScores, SplitScores], head: str
) -> tuple[NDArray[np.float64] | None, str]:
    """Return what is expected of each candidate, the same for both sides, and whose it is."""
    found = [side.probabilities[head] for side in sides if head in side.probabilities]
    found = [values for values in found if np.isfinite(values).all()]
    if not found:
        return None, f"No side gives probabilities of '{head}'."
    mean = np.mean(found, axis=0)[_inside(rows)]
    whose = "" if len(found) == len(sides) else "Predictions are one side's own."
    return np.asarray(mean, dtype=np.float64), whose


def _choice(rows: ExampleRows, side: SplitScores) -> Choice:
    inside = _inside(rows)
    return Choice(
        is_best=is_in_top(rows, side.ranking_score, 1)[inside],
        is_top=is_in_top(rows, side.ranking_score, TOP_K)[inside],
    )


def _change(
    pair: Pair, group_of: NDArray[np.intp], num_groups: int, config: ModelGateConfig
) -> Interval | None:
    """Return the relative change with its interval over users; None where a draw has no value."""
    mine, other = (side.value for side in pair)
    if not mine or not other or num_groups < 2:
        return None
    columns = np.stack(
        [
            np.bincount(group_of, part, minlength=num_groups)
            for side in pair
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
    return Interval(
        value=mine / other - 1, low=float(low), high=float(high), confidence=config.confidence
    )
