"""Model gate: score both sides on the identical holdout, compare, decide, and test the gate itself.

Not for publishing or promoting. Historic metrics of the champion are never used: they were taken
on another holdout. The gate believes itself only after this cycle's self-test: a model against
itself shows no difference, and models that are bad by construction are rejected.
"""

from pathlib import Path

import numpy as np

from pipelines.contracts.artifacts import (
    BaselineKind,
    Comparison,
    Decision,
    ModelRef,
    Snapshot,
    Verdict,
)
from pipelines.contracts.config import Head, Limit, ModelGateConfig, RunConfig
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from training.bundle.split_scores import ExampleRows, load_rows, ranking_score, score
from validation.model_gate.comparison import ComparedModels, compare
from validation.model_gate.holdout_metrics import SideScores, target_metric_name
from validation.model_gate.verdict import decide

POPULARITY_FEATURE = "pin_popularity"


def judge(
    snapshot: Snapshot,
    snapshot_dir: Path,
    challenger: ModelRef,
    challenger_bundle_dir: Path,
    champion: ModelRef | None,
    champion_bundle_dir: Path | None,
    config: RunConfig,
) -> tuple[Comparison, Verdict]:
    """Compare the challenger with the champion, or with popularity in the first cycle.

    Args:
        snapshot: Its holdout is scored by both sides.
        snapshot_dir: Local folder with the snapshot's files.
        challenger: Who is judged.
        challenger_bundle_dir: Local folder with the challenger's bundle.
        champion: Who serves; None in the first cycle.
        champion_bundle_dir: Local folder with the champion's bundle; None with `champion`.
        config: The run's configuration.

    Returns:
        The facts and the verdict.

    Raises:
        ConfigurationError: champion and champion bundle do not come together.
        DataContractError: a bundle cannot score this snapshot, or the holdout is empty.
        HomefeedError: the gate's self-test failed; no verdict of it can be trusted.
    """
    if (champion is None) != (champion_bundle_dir is None):
        raise ConfigurationError(
            f"champion is {champion and champion.label} but its bundle folder is "
            f"{champion_bundle_dir}; give both, or neither in the first cycle"
        )
    heads = config.features.heads
    rows = load_rows(snapshot, snapshot_dir, SPLIT_HOLDOUT)
    challenger_scores = _model_scores(challenger_bundle_dir, snapshot, snapshot_dir, heads)
    if champion_bundle_dir is None:
        kind, baseline_scores = BaselineKind.POPULARITY, popularity_scores(rows, snapshot.digest)
    else:
        kind = BaselineKind.CHAMPION
        baseline_scores = _model_scores(champion_bundle_dir, snapshot, snapshot_dir, heads)
    models = ComparedModels(snapshot.holdout, kind, challenger, champion)
    return judge_scores(rows, challenger_scores, baseline_scores, models, heads, config.model_gate)


def judge_scores(
    rows: ExampleRows,
    challenger: SideScores,
    baseline: SideScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> tuple[Comparison, Verdict]:
    """Compare two sides that were scored already, decide, and self-test the gate on these rows."""
    comparison = compare(rows, challenger, baseline, models, heads, config)
    verdict = decide(comparison, config, heads)
    found, doubts = self_test(rows, challenger, models, heads, config)
    if doubts and verdict.decision is Decision.PROMOTE:
        verdict = Verdict(decision=Decision.INCONCLUSIVE, reasons=(*doubts, *verdict.reasons))
    return comparison.model_copy(update={"self_test": (*found, *doubts)}), verdict


def popularity_scores(rows: ExampleRows, holdout_digest: str) -> SideScores:
    """Return the first cycle's baseline: candidates by trailing actions, no probabilities."""
    ranking = np.asarray(rows.numeric[POPULARITY_FEATURE], dtype=np.float64)
    return SideScores(ranking_score=ranking, probabilities={}, holdout_digest=holdout_digest)


def _model_scores(
    bundle_dir: Path, snapshot: Snapshot, snapshot_dir: Path, heads: tuple[Head, ...]
) -> SideScores:
    """Score the holdout with one bundle, by the one scorer that both sides share."""
    probabilities = {
        head: np.asarray(values, dtype=np.float64)
        for head, values in score(bundle_dir, snapshot, snapshot_dir, SPLIT_HOLDOUT).items()
    }
    return SideScores(
        ranking_score=np.asarray(ranking_score(probabilities, heads), dtype=np.float64),
        probabilities=probabilities,
        holdout_digest=snapshot.digest,
    )


def self_test(
    rows: ExampleRows,
    challenger: SideScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Judge models whose right verdict is known, on this cycle's rows and scores.

    1. The challenger against itself: no metric may differ, not by a rounding.
    2. The worst ranking (the target's actions last) as a challenger to the real one: REJECT.
    3. The challenger's scores shuffled within requests, likewise: REJECT. If this one is not
       rejected, the gate is not broken, but the challenger ranks no better than chance as far as
       this holdout can tell: a doubt, which stands in the way of a promotion.

    Returns:
        What was found, and doubts, as sentences.

    Raises:
        HomefeedError: test 1 or 2 came out wrong.
    """
    if not np.all(np.isfinite(challenger.ranking_score)):
        return (), ("Self-test: not possible, the challenger's scores are not finite.",)
    worst = -np.asarray(rows.labels[heads[0].name], dtype=np.float64)
    shuffled = shuffle_within_requests(rows, challenger.ranking_score, config.bootstrap_seed)
    same = compare(rows, challenger, challenger, _planted(models), heads, config)
    differing = [row.metric for row in same.metrics if not _is_equal(row.challenger, row.baseline)]
    changed = [
        row.metric
        for row in same.metrics
        if row.relative_change is not None
        and (row.relative_change.low, row.relative_change.high) != (0.0, 0.0)
    ]
    target = same.find(target_metric_name(heads))
    if differing or changed:
        raise HomefeedError(
            f"the model gate's self-test failed: the challenger against itself differs in "
            f"{sorted({*differing, *changed})}, expected no difference at all; fix "
            f"validation/model_gate/comparison.py before any model is judged"
        )
    if target is None or target.relative_change is None:
        return (), ("Self-test: not possible, the challenger's target metric is zero.",)
    found = [f"The challenger against itself: no difference in {len(same.metrics)} numbers."]
    worst_verdict, worst_change = _judge_planted(rows, worst, challenger, models, heads, config)
    if worst_verdict is not Decision.REJECT:
        raise HomefeedError(
            f"the model gate's self-test failed: the worst possible ranking got "
            f"{worst_verdict} ({worst_change}), expected REJECT; either the gate is broken or the "
            f"holdout's requests have too few candidates to tell any ranking from another"
        )
    found.append(f"The worst possible ranking: REJECT ({worst_change}).")
    shuffled_verdict, change = _judge_planted(rows, shuffled, challenger, models, heads, config)
    if shuffled_verdict is not Decision.REJECT:
        return tuple(found), (
            f"Self-test: the challenger's own scores, shuffled within requests, got "
            f"{shuffled_verdict} ({change}), not REJECT: on this holdout the challenger cannot "
            f"be told from chance.",
        )
    found.append(f"The challenger's scores, shuffled within requests: REJECT ({change}).")
    return tuple(found), ()


def shuffle_within_requests(rows: ExampleRows, scores: np.ndarray, seed: int) -> np.ndarray:
    """Return the scores (N,), permuted at random among the candidates of each request."""
    request = np.asarray(rows.request_index)
    lottery = np.random.default_rng(seed).random(len(scores))
    shuffled = np.empty_like(scores)
    # Both orders group by request; within it one is by lot and the other as it was.
    shuffled[np.lexsort((lottery, request))] = scores[np.argsort(request, kind="stable")]
    return shuffled


def _planted(models: ComparedModels) -> ComparedModels:
    """Return who is compared in a self-test: a planted model against the challenger."""
    planted = models.challenger.model_copy(update={"name": "planted", "bundle_digest": "planted"})
    return ComparedModels(models.holdout, BaselineKind.CHAMPION, planted, models.challenger)


def _judge_planted(
    rows: ExampleRows,
    ranking: np.ndarray,
    challenger: SideScores,
    models: ComparedModels,
    heads: tuple[Head, ...],
    config: ModelGateConfig,
) -> tuple[Decision, str]:
    """Return the verdict on a planted ranking, by the interval of the target metric alone.

    Floors and guardrails are out of the way: a rejection by them would prove nothing about the
    statistics, which is what is tested here.
    """
    planted = SideScores(ranking, {}, challenger.holdout_digest)
    baseline = SideScores(challenger.ranking_score, {}, challenger.holdout_digest)
    target = target_metric_name(heads)
    alone = config.model_copy(
        update={
            "target_metric": target,
            "floors": (Limit(metric=target, minimum=0.0),),
            "guardrails": (),
            "min_users": 2,
            "required_segments": (),
        }
    )
    wanted = tuple(head for head in heads if head.is_wanted)
    comparison = compare(rows, planted, baseline, _planted(models), wanted, alone)
    row = comparison.find(target)
    change = row.relative_change if row is not None else None
    text = "no interval" if change is None else f"{change.low:+.1%} to {change.high:+.1%}"
    return decide(comparison, alone, wanted).decision, text


def _is_equal(ours: float, theirs: float | None) -> bool:
    """Return whether two levels are the same number; two NaN are."""
    return theirs is not None and (ours == theirs or (np.isnan(ours) and np.isnan(theirs)))
