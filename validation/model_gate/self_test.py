"""The gate's self-test: it judges models whose right verdict is known, on this cycle's rows.

A verdict counts only after this test: a model compared with itself must show no difference, and
models that are bad by construction must be rejected. Not for the challenger's verdict, which takes
the self-test into account (`validation.model_gate.verdict`).
"""

import numpy as np

from pipelines.contracts.config import Head, Limit, ModelGateConfig
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import BaselineKind, Comparison, Decision, SelfTest
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.comparison import ComparedModels, compare
from validation.model_gate.target_metric import target_metric
from validation.model_gate.verdict import decide_on_comparison


def run_self_test(
    rows: ExampleRows,
    challenger: SplitScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> SelfTest:
    """Judge models whose right verdict is known, on this cycle's rows and scores.

    1. The challenger against itself: no metric may differ, not even by a rounding.
    2. The worst ranking (the target's actions last) as a challenger to the real one: REJECT.
    3. The challenger's scores shuffled within requests, likewise: REJECT. If this one is not
       rejected, the gate is not broken, but as far as this holdout can tell the challenger ranks no
       better than chance: a doubt, which stands in the way of a promotion.

    Raises:
        HomefeedError: test 1 or 2 came out wrong.
    """
    if not np.all(np.isfinite(challenger.ranking_score)):
        return SelfTest(
            doubts=("Self-test: not possible, the challenger's scores are not finite.",)
        )
    same = compare(rows, challenger, challenger, _planted(models), heads, config)
    _require_no_difference(same)
    if same.target is None or same.target.relative_change is None:
        return SelfTest(
            doubts=("Self-test: not possible, the challenger's target metric is zero.",)
        )
    found = [f"The challenger against itself: no difference in {len(same.metrics)} numbers."]
    target_head = target_metric(config, heads).head.name
    worst = -np.asarray(rows.labels[target_head], dtype=np.float64)
    decision, change = _judge_planted(rows, worst, challenger, models, heads, config)
    if decision is not Decision.REJECT:
        raise HomefeedError(
            f"the model gate's self-test failed: the worst possible ranking got "
            f"{decision} ({change}), expected REJECT; either the gate is broken or the "
            f"holdout's requests have too few candidates to tell any ranking from another"
        )
    found.append(f"The worst possible ranking: REJECT ({change}).")
    shuffled = shuffle_within_requests(rows, challenger.ranking_score, config.bootstrap_seed)
    decision, change = _judge_planted(rows, shuffled, challenger, models, heads, config)
    if decision is not Decision.REJECT:
        doubt = (
            f"Self-test: the challenger's own scores, shuffled within requests, got "
            f"{decision} ({change}), not REJECT: on this holdout the challenger cannot "
            f"be told from chance."
        )
        return SelfTest(findings=tuple(found), doubts=(doubt,))
    found.append(f"The challenger's scores, shuffled within requests: REJECT ({change}).")
    return SelfTest(findings=tuple(found))


def _require_no_difference(same: Comparison) -> None:
    """Refuse a gate that sees differences between a model and itself."""
    differing = {row.metric for row in same.metrics if row.challenger != row.baseline}
    changed = {
        row.metric
        for row in same.metrics
        if (change := row.relative_change) is not None and (change.low, change.high) != (0.0, 0.0)
    }
    if differing or changed:
        raise HomefeedError(
            f"the model gate's self-test failed: the challenger against itself differs in "
            f"{sorted(differing | changed)}, expected no difference at all; fix "
            f"validation/model_gate/comparison.py before any model is judged"
        )


def shuffle_within_requests(rows: ExampleRows, scores: np.ndarray, seed: int) -> np.ndarray:
    """Return the scores (N,), permuted at random among the candidates of each request."""
    request = np.asarray(rows.request_index)
    lottery = np.random.default_rng(seed).random(len(scores))
    shuffled = np.empty_like(scores)
    # Both orders group by request. Within a request the first is by lot, the second as it was.
    shuffled[np.lexsort((lottery, request))] = scores[np.argsort(request, kind="stable")]
    return shuffled


def _planted(models: ComparedModels) -> ComparedModels:
    """Return who is compared in a self-test: a planted model against the challenger."""
    planted = models.challenger.model_copy(update={"name": "planted", "bundle_digest": "planted"})
    return ComparedModels(models.holdout, BaselineKind.CHAMPION, planted, models.challenger)


def _judge_planted(
    rows: ExampleRows,
    ranking: np.ndarray,
    challenger: SplitScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> tuple[Decision, str]:
    """Return the decision on a planted ranking by the target metric alone, and its interval.

    Floors, guardrails and segments are left out: a rejection by them would prove nothing about the
    statistics, which are what is tested here.
    """
    planted = SplitScores(ranking, {}, challenger.holdout_digest)
    baseline = SplitScores(challenger.ranking_score, {}, challenger.holdout_digest)
    alone = config.model_copy(
        update={
            "floors": (Limit(metric=config.target_metric, minimum=0.0),),
            "guardrails": (),
            "min_users": 2,
            "required_segments": (),
        }
    )
    wanted = tuple(head for head in heads if head.is_wanted)
    comparison = compare(rows, planted, baseline, _planted(models), wanted, alone)
    change = comparison.target.relative_change if comparison.target is not None else None
    text = "no interval" if change is None else f"{change.low:+.1%} to {change.high:+.1%}"
    return decide_on_comparison(comparison, alone, wanted).decision, text
