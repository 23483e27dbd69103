"""Score a whole split of a snapshot with a bundle, and the rows that the scores belong to.

The same batches as in training, so the same numbers. Not for judging them (`validation`).

Letters: M requests, N examples (candidates of all requests).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import Head
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import NUMERIC_FEATURES, label_column, numeric_column
from training.bundle.files import load_bundle
from training.bundle.scorer import Scorer
from training.data.reader import SnapshotReader, chunks


@dataclass(frozen=True)
class ExampleRows:
    """The examples of one split: shards in order, requests in the shard's order."""

    request_index: np.ndarray  # int64 (N,), row among the M requests, ascending
    user_id: np.ndarray  # int64 (M,)
    is_core: np.ndarray  # bool (M,)
    request_id: np.ndarray  # str (M,)
    first_example: np.ndarray  # int64 (M + 1,), request m has examples [first[m], first[m + 1])
    pin_row: np.ndarray  # int64 (N,), row of the snapshot's pins
    position: np.ndarray  # int64 (N,), where the candidate was shown
    numeric: Mapping[str, np.ndarray]  # feature name -> float32 (N,), all of NUMERIC_FEATURES
    labels: Mapping[str, np.ndarray]  # head name -> int8 (N,)


def load_rows(snapshot: Snapshot, snapshot_dir: Path, split: int) -> ExampleRows:
    """Return the examples of a split (`SPLIT_TRAINING` or `SPLIT_HOLDOUT`)."""
    reader = SnapshotReader(snapshot, Path(snapshot_dir), snapshot.features, max_actions=1)
    index = reader.index(split)
    counts_M = index.num_examples_M
    return ExampleRows(
        request_index=np.repeat(np.arange(len(index)), counts_M),
        user_id=index.user_id_M,
        is_core=reader.request_column(index, "is_core").astype(bool),
        request_id=reader.request_column(index, "request_id"),
        first_example=np.concatenate([[0], np.cumsum(counts_M)]),
        pin_row=reader.example_column(index, "pin_row").astype(np.int64),
        position=reader.example_column(index, "position").astype(np.int64),
        numeric={n: reader.example_column(index, numeric_column(n)) for n in NUMERIC_FEATURES},
        labels={
            n: reader.example_column(index, label_column(n)) for n in snapshot.features.head_names
        },
    )


def score(
    bundle_dir: Path, snapshot: Snapshot, snapshot_dir: Path, split: int, batch_size: int = 2048
) -> dict[str, np.ndarray]:
    """Return calibrated probabilities per head, float64 (N,), aligned with `load_rows`.

    Args:
        bundle_dir: the bundle's folder.
        snapshot: the snapshot to score.
        snapshot_dir: its local folder.
        split: `SPLIT_TRAINING` or `SPLIT_HOLDOUT`.
        batch_size: candidates at a time; changes memory and speed, not the scores.

    Raises:
        DataContractError: the bundle is damaged or does not fit the snapshot.
    """
    scorer = load_bundle(Path(bundle_dir))
    return score_with(scorer, snapshot, Path(snapshot_dir), split, batch_size)


def score_with(
    scorer: Scorer, snapshot: Snapshot, snapshot_dir: Path, split: int, batch_size: int = 2048
) -> dict[str, np.ndarray]:
    """Return what `score` does, with a bundle that is loaded already.

    Raises:
        DataContractError: the bundle does not fit the snapshot.
    """
    scorer.check_fits(snapshot)
    config = scorer.config
    # The snapshot's heads, because a batch carries labels; the bundle's for the scores.
    features = config.features.model_copy(update={"heads": snapshot.features.heads})
    reader = SnapshotReader(snapshot, snapshot_dir, features, config.model.max_actions)
    parts = [
        scorer.probabilities(reader.make_batch(requests))
        for requests in chunks(reader.index(split), batch_size)
    ]
    names = config.features.head_names
    scores_NH = np.concatenate(parts) if parts else np.zeros((0, len(names)))
    return {name: np.ascontiguousarray(scores_NH[:, h]) for h, name in enumerate(names)}


def ranking_score(probabilities: Mapping[str, np.ndarray], heads: tuple[Head, ...]) -> np.ndarray:
    """Return sum over heads of utility_weight * probability, float64 (N,); the highest goes first.

    Raises:
        DataContractError: a head with a weight has no probabilities.
    """
    missing = [h.name for h in heads if h.utility_weight != 0 and h.name not in probabilities]
    if missing:
        raise DataContractError(
            f"no probabilities for heads {missing}, found {sorted(probabilities)}; the bundle was "
            f"trained with other heads; compare models of one recipe"
        )
    weighted = [h.utility_weight * probabilities[h.name] for h in heads if h.utility_weight != 0]
    if not weighted:
        raise DataContractError(
            f"every head of {[h.name for h in heads]} has utility_weight 0, so nothing orders the "
            f"candidates; give features.heads at least one weight"
        )
    return np.sum(weighted, axis=0)
