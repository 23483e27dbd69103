"""Models with a planted fault, and what the policy must say of each, on this cycle's own rows.

A planted model is the challenger with one fault, judged against the challenger itself. What must
come out is written beside each. Where the holdout is too small to see the fault, nothing can be
asked of the gate, and that is said. Not for the statistics: those are
`validation.model_gate.self_test.interval_checks`. Tested in
tests/validation/model_gate/test_self_test.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipelines.contracts.config import Head, ModelGateConfig
from pipelines.contracts.judgement import Comparison, Decision, Interval
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.holdout_metrics import segment_masks
from validation.model_gate.limits import Place, place
from validation.model_gate.ranking_metrics import top_k_hits
from validation.model_gate.target_metric import TOP_K, hits_name, target_metric

_FAULTY_CALIBRATION = 2.0
_FAULTY_SEGMENT = 0.3
"""Share of a segment's target metric that a planted model loses."""


@dataclass(frozen=True)
class Bound:
    """What makes a planted fault visible: an interval that lies wholly beyond a bound."""

    metric: str
    segment: str = "all"
    of_level: bool = False  # The challenger's level; else the relative change.
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Plant:
    """One faulty model. Where its bound is surely broken, the decision must be REJECT."""

    name: str
    rows: ExampleRows
    scores: SplitScores
    bound: Bound
    says: str  # Words of the reason that must be among the verdict's.

    def is_visible(self, comparison: Comparison) -> bool:
        """Return whether this holdout is sure of the fault."""
        row = comparison.find(self.bound.metric, self.bound.segment)
        interval: Interval | None = None
        if row is not None:
            interval = row.challenger_interval if self.bound.of_level else row.relative_change
        if interval is None:
            return False
        return place(interval, self.bound.minimum, self.bound.maximum) is Place.BEYOND


def planted_models(
    rows: ExampleRows, challenger: SplitScores, heads: tuple[Head, ...], config: ModelGateConfig
) -> Iterator[Plant]:
    """Yield the challenger with one fault after another.

    - **The probabilities of the target's head times 2**: out of calibration, REJECT where the
      ratio is surely above its floor's maximum, or above what is allowed to every head.
    - **A segment 30 % worse**, for each required segment: a loss beyond its margin, REJECT.
    - **An unwanted action first**, for each guarded head: its guardrail breaks, REJECT.
    - **Scores rounded to tenths**: ties cost order; a loss beyond the margin is REJECT.
    """
    target = target_metric(config, heads)
    name = target.head.name
    if name in challenger.probabilities:
        yield _miscalibrated(name, rows, challenger, config)
    ranking = challenger.ranking_score
    for segment in config.required_segments:
        yield Plant(
            f"Segment {segment} {_FAULTY_SEGMENT:.0%} worse",
            rows,
            replace(
                challenger,
                ranking_score=_worse_in(
                    rows, ranking, segment_masks(rows)[segment], rows.labels[name], config
                ),
            ),
            Bound(target.name, segment, minimum=-config.segment_margin),
            f"In segment {segment} ",
        )
    rails = {rail.metric: rail.max_increase for rail in config.guardrails}
    for head in heads:
        limit = rails.get(hits_name(head.name))
        if not head.is_wanted and limit is not None and head.name in challenger.probabilities:
            yield Plant(
                f"Candidates that will get a '{head.name}' first",
                rows,
                replace(challenger, ranking_score=challenger.probabilities[head.name]),
                Bound(hits_name(head.name), maximum=limit),
                f"{hits_name(head.name)} changed",
            )
    low, high = float(ranking.min()), float(ranking.max())
    if high > low:
        tenths = np.round((ranking - low) / (high - low), 1)
        yield Plant(
            "Scores rounded to tenths of their range",
            rows,
            replace(challenger, ranking_score=tenths),
            Bound(target.name, minimum=-config.margin),
            f"{target.name} is",
        )


def _miscalibrated(
    head: str, rows: ExampleRows, challenger: SplitScores, config: ModelGateConfig
) -> Plant:
    """Return the challenger with the probabilities of a head doubled."""
    metric = f"calibration_ratio.{head}"
    highest = [f.maximum for f in config.floors if f.metric == metric and f.maximum is not None]
    doubled = np.minimum(challenger.probabilities[head] * _FAULTY_CALIBRATION, 1.0)
    return Plant(
        f"The probabilities of '{head}' times {_FAULTY_CALIBRATION:g}",
        rows,
        # The ranking is the same; its scores differ, or both sides would pass for one model.
        SplitScores(
            challenger.ranking_score * _FAULTY_CALIBRATION,
            {**challenger.probabilities, head: doubled},
            challenger.holdout_digest,
        ),
        Bound(metric, "all", True, None, min([*highest, config.max_head_calibration])),
        "calibration",
    )


def _worse_in(
    rows: ExampleRows,
    ranking: np.ndarray,
    segment: np.ndarray,
    label: np.ndarray,
    config: ModelGateConfig,
) -> np.ndarray:
    """Return the ranking (N,) with as many of a segment's requests shuffled as lose the share.

    Where a ranking by chance loses less than that, the whole segment is ranked by chance.
    """
    chance = shuffle_within_requests(rows, ranking, config.bootstrap_seed)
    had, left = (top_k_hits(rows, scores, label, k=TOP_K) for scores in (ranking, chance))
    requests = np.flatnonzero(segment)
    order = np.random.default_rng(config.bootstrap_seed).permutation(requests)
    lost = np.cumsum((had - left)[order])
    enough = np.flatnonzero(lost >= _FAULTY_SEGMENT * had[requests].sum())
    is_shuffled = np.zeros(len(segment), dtype=bool)
    is_shuffled[order[: enough[0] + 1] if len(enough) else order] = True
    return np.where(is_shuffled[rows.request_index], chance, ranking)


def describe(plant: Plant, decision: Decision, comparison: Comparison) -> str:
    """Return what came out, in a sentence."""
    row = comparison.find(plant.bound.metric, plant.bound.segment)
    interval = None
    if row is not None:
        interval = row.challenger_interval if plant.bound.of_level else row.relative_change
    if interval is None or (decision is not Decision.REJECT and not plant.is_visible(comparison)):
        return f"{plant.name}: {decision}; on this holdout no bound is surely broken."
    numbers = (
        f"{interval.low:.2f} to {interval.high:.2f}"
        if plant.bound.of_level
        else f"{interval.low:+.1%} to {interval.high:+.1%}"
    )
    return f"{plant.name}: {decision} ({plant.bound.metric} {numbers})."


def shuffle_within_requests(rows: ExampleRows, scores: np.ndarray, seed: int) -> np.ndarray:
    """Return the scores (N,), permuted at random among the candidates of each request."""
    request = np.asarray(rows.request_index)
    lottery = np.random.default_rng(seed).random(len(scores))
    shuffled = np.empty_like(scores)
    # Both orders group by request. Within a request the first is by lot, the second as it was.
    shuffled[np.lexsort((lottery, request))] = scores[np.argsort(request, kind="stable")]
    return shuffled
