"""The facts of the model gate: both sides scored on one holdout, compared, and the gate tested.

Not for the verdict (`validation.model_gate.verdict`). Historic metrics of the champion are never
used, because they were taken on another holdout.
"""

from pathlib import Path

import numpy as np

from pipelines.contracts.artifacts import ModelRef, Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.judgement import BaselineKind, Comparison, SelfTest
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from training.bundle.score_split import SplitScores, score_split
from training.data.example_rows import ExampleRows, load_rows
from validation.model_gate.comparison import ComparedModels, compare
from validation.model_gate.self_test import run_self_test

POPULARITY_FEATURE = "pin_popularity"


def gather_facts(
    snapshot: Snapshot,
    snapshot_dir: Path,
    challenger: ModelRef,
    challenger_bundle_dir: Path,
    champion: ModelRef | None,
    champion_bundle_dir: Path | None,
    config: RunConfig,
) -> tuple[Comparison, SelfTest]:
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
        The comparison, and what the gate found when it tested itself on the same rows.

    Raises:
        ConfigurationError: champion and champion bundle do not come together, or no head gives the
            target metric.
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
    ours = score_split(challenger_bundle_dir, snapshot, snapshot_dir, SPLIT_HOLDOUT, heads)
    if champion_bundle_dir is None:
        kind, theirs = BaselineKind.POPULARITY, popularity_scores(rows, snapshot.digest)
    else:
        kind = BaselineKind.CHAMPION
        theirs = score_split(champion_bundle_dir, snapshot, snapshot_dir, SPLIT_HOLDOUT, heads)
    models = ComparedModels(snapshot.holdout, kind, challenger, champion)
    comparison = compare(rows, ours, theirs, models, heads, config.model_gate)
    return comparison, run_self_test(rows, ours, models, heads, config.model_gate)


def popularity_scores(rows: ExampleRows, snapshot_digest: str) -> SplitScores:
    """Return the first cycle's baseline: candidates by trailing actions, no probabilities."""
    ranking = np.asarray(rows.numeric[POPULARITY_FEATURE], dtype=np.float64)
    return SplitScores(ranking, {}, snapshot_digest)
