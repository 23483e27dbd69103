"""The facts of the model gate: both sides scored on one holdout, compared, and the gate tested.

Not for the verdict (`validation.model_gate.verdict`). Historic metrics of the champion are never
used, because they were taken on another holdout.
"""

from dataclasses import replace

import numpy as np

from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import BaselineKind, Comparison, SelfTest
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from training.bundle.score_split import SplitScores, score_split
from training.data.example_rows import ExampleRows, load_rows
from validation.model_gate.comparison import ComparedModels, compare
from validation.model_gate.self_test import run_self_test
from validation.model_gate.sides import Side, what_differs, what_was_seen

POPULARITY_FEATURE = "pin_popularity"


def gather_facts(
    challenger: Side, champion: Side | None, config: RunConfig
) -> tuple[Comparison, SelfTest]:
    """Compare the challenger with the champion, or with popularity in the first cycle.

    Args:
        challenger: Who is judged.
        champion: Who serves; None in the first cycle.
        config: The run's configuration.

    Returns:
        The comparison, and what the gate found when it tested itself on the same rows.

    Raises:
        ConfigurationError: no head gives the target metric.
        DataContractError: a bundle cannot score its snapshot, the holdout is empty, or the two
            sides' snapshots hold other requests.
        HomefeedError: the gate's self-test failed; no verdict of it can be trusted.
    """
    snapshot, heads = challenger.snapshot, config.features.heads
    rows = load_rows(snapshot, challenger.snapshot_dir, SPLIT_HOLDOUT)
    shared = snapshot.features.head_names
    if champion is not None:
        shared = tuple(n for n in shared if n in champion.snapshot.features.head_names)
    ours = _score(challenger, shared)
    models = ComparedModels(snapshot.holdout, BaselineKind.POPULARITY, challenger.model, None)
    seen = _seen(challenger, config)
    if champion is None:
        theirs = popularity_scores(rows, ours.holdout_digest)
    else:
        theirs = _score(champion, shared)
        _require_same_rows(ours, theirs, challenger, champion)
        models = replace(
            models,
            baseline_kind=BaselineKind.CHAMPION,
            champion=champion.model,
            differences=what_differs(challenger.bundle_config(), champion.bundle_config()),
        )
        seen += _seen(champion, config)
    comparison = compare(rows, ours, theirs, replace(models, seen=seen), heads, config.model_gate)
    return comparison, run_self_test(rows, ours, theirs, models, heads, config.model_gate)


def _score(side: Side, label_heads: tuple[str, ...]) -> SplitScores:
    return score_split(
        side.bundle_dir, side.snapshot, side.snapshot_dir, SPLIT_HOLDOUT, label_heads
    )


def _seen(side: Side, config: RunConfig) -> tuple[str, ...]:
    label, holdout = side.model.label, side.snapshot.holdout
    return what_was_seen(label, side.bundle_config(), holdout, config.snapshot)


def _require_same_rows(
    ours: SplitScores, theirs: SplitScores, challenger: Side, champion: Side
) -> None:
    if ours.holdout_digest != theirs.holdout_digest:
        raise DataContractError(
            f"snapshots {challenger.snapshot.digest[:12]} and {champion.snapshot.digest[:12]} hold "
            f"other holdout rows ({len(ours.ranking_score):,} and {len(theirs.ranking_score):,}; "
            f"digests {ours.holdout_digest[:12]} and {theirs.holdout_digest[:12]}); expected the "
            f"same requests, pins and labels; the event log changed between the two builds: start "
            f"a new cycle"
        )


def popularity_scores(rows: ExampleRows, holdout_digest: str) -> SplitScores:
    """Return the first cycle's baseline: candidates by trailing actions, no probabilities."""
    ranking = np.asarray(rows.numeric[POPULARITY_FEATURE], dtype=np.float64)
    return SplitScores(ranking, {}, holdout_digest)
