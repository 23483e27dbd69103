"""The gate's self-test: it judges models whose right verdict is known, on this cycle's rows.

A verdict counts only after this test: the statistics must give what is known otherwise
(`interval_checks`), a model compared with itself must show no difference, and models with a planted
fault must be rejected (`planted`). Not for the challenger's verdict, which takes the self-test into
account (`validation.model_gate.verdict`).
"""

from dataclasses import replace

import numpy as np

from pipelines.contracts.config import Head, Limit, ModelGateConfig
from pipelines.contracts.judgement import BaselineKind, Comparison, Decision, SelfTest
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.comparison import ComparedModels, compare
from validation.model_gate.holdout_metrics import segment_masks
from validation.model_gate.self_test.interval_checks import SelfTestFailedError, check_intervals
from validation.model_gate.self_test.planted import (
    describe,
    planted_models,
    shuffle_within_requests,
)
from validation.model_gate.target_metric import target_metric
from validation.model_gate.verdict import decide_on_comparison


def run_self_test(
    rows: ExampleRows,
    challenger: SplitScores,
    baseline: SplitScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> SelfTest:
    """Judge models whose right verdict is known, on this cycle's rows and scores.

    1. The challenger against itself: no metric may differ, not even by a rounding.
    2. The intervals of the challenger against the baseline: see `interval_checks`.
    3. The worst ranking (the target's actions last) as a challenger to the real one: REJECT.
    4. Models with one planted fault each: REJECT where the holdout is sure of the fault.
    5. Labels shuffled within requests: the challenger must not be surely better than its own
       shuffled scores, or labels leak into the measure.
    6. The challenger's scores shuffled within requests, likewise: REJECT. If this one is not
       rejected, the gate is not broken, but as far as this holdout can tell the challenger ranks no
       better than chance: a doubt, which stands in the way of a promotion.

    Raises:
        SelfTestFailedError: one of 1 to 5 came out wrong.
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
    found += check_intervals(rows, challenger, baseline, heads, config)
    found.append(_judge_the_worst(rows, challenger, models, heads, config))
    found += _judge_plants(rows, challenger, models, heads, config)
    found.append(_judge_shuffled_labels(rows, challenger, models, heads, config))
    shuffled = shuffle_within_requests(rows, challenger.ranking_score, config.bootstrap_seed)
    decision, change = _judge_ranking(rows, shuffled, challenger, models, heads, config)
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
        raise SelfTestFailedError(
            f"the model gate's self-test failed: the challenger against itself differs in "
            f"{sorted(differing | changed)}, expected no difference at all; fix "
            f"validation/model_gate/comparison.py before any model is judged"
        )


def _judge_the_worst(
    rows: ExampleRows,
    challenger: SplitScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> str:
    target_head = target_metric(config, heads).head.name
    worst = -np.asarray(rows.labels[target_head], dtype=np.float64)
    decision, change = _judge_ranking(rows, worst, challenger, models, heads, config)
    if decision is not Decision.REJECT:
        raise SelfTestFailedError(
            f"the model gate's self-test failed: the worst possible ranking got "
            f"{decision} ({change}), expected REJECT; either the gate is broken or the "
            f"holdout's requests have too few candidates to tell any ranking from another"
        )
    return f"The worst possible ranking: REJECT ({change})."


def _judge_plants(
    rows: ExampleRows,
    challenger: SplitScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> list[str]:
    masks = segment_masks(rows)
    segments = tuple(name for name in config.required_segments if masks[name].any())
    # What makes a comparison void is no fault of a planted model.
    config = config.model_copy(update={"min_users": 2, "required_segments": segments})
    found = []
    for plant in planted_models(rows, challenger, heads, config):
        comparison = compare(plant.rows, plant.scores, challenger, _planted(models), heads, config)
        verdict = decide_on_comparison(comparison, config, heads)
        decision = verdict.decision
        # INCONCLUSIVE is no failure: a threshold that is missing makes every comparison void.
        is_missed = decision is Decision.PROMOTE or (
            decision is Decision.REJECT and not any(plant.says in r for r in verdict.reasons)
        )
        if is_missed and plant.is_visible(comparison):
            raise SelfTestFailedError(
                f"the model gate's self-test failed: {describe(plant, decision, comparison)} "
                f"Expected REJECT because of '{plant.says.strip()}'; fix "
                f"validation/model_gate/limits.py or verdict.py before any model is judged"
            )
        found.append(describe(plant, decision, comparison))
    return found


def _judge_shuffled_labels(
    rows: ExampleRows,
    challenger: SplitScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> str:
    """Shuffle the labels within requests: what is left of the challenger's lead is a leak."""
    lottery = config.bootstrap_seed + 1
    labels = {
        head: shuffle_within_requests(rows, label, lottery) for head, label in rows.labels.items()
    }
    blind = replace(rows, labels=labels)
    # A lead that one comparison in a thousand shows by chance: the test runs for years.
    careful = config.model_copy(update={"confidence": 0.999})
    shuffled = shuffle_within_requests(rows, challenger.ranking_score, config.bootstrap_seed)
    baseline = SplitScores(shuffled, {}, challenger.holdout_digest)
    ranking = SplitScores(challenger.ranking_score, {}, challenger.holdout_digest)
    comparison = compare(blind, ranking, baseline, _planted(models), heads, careful)
    change = comparison.target.relative_change if comparison.target is not None else None
    if change is not None and change.low > 0:
        raise SelfTestFailedError(
            f"the model gate's self-test failed: with labels shuffled within requests the "
            f"challenger is still better than chance ({change.low:+.1%} to {change.high:+.1%}), "
            f"expected no difference; something but the ranking enters the measure: fix "
            f"validation/model_gate/ranking_metrics.py before any model is judged"
        )
    text = "no interval" if change is None else f"{change.low:+.1%} to {change.high:+.1%}"
    return f"Labels shuffled within requests: no lead is left ({text})."


def _planted(models: ComparedModels) -> ComparedModels:
    """Return who is compared in a self-test: a planted model against the challenger."""
    planted = models.challenger.model_copy(update={"name": "planted", "bundle_digest": "planted"})
    return ComparedModels(models.holdout, BaselineKind.CHAMPION, planted, models.challenger)


def _judge_ranking(
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
