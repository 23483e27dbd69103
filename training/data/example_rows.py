"""The rows of one split of a snapshot that scores are held against: users, features, labels.

Not for batches (`training.data.reader`) nor for scores (`training.bundle.score_split`).

Letters: M requests, N examples (candidates of all requests).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.hashing import mix
from pipelines.contracts.schemas import label_column, numeric_column
from training.data.reader import SnapshotReader

_DRAW_SALT = 419


@dataclass(frozen=True)
class ExampleRows:
    """The examples of one split: shards in order, requests in the shard's order."""

    request_index: np.ndarray  # int64 (N,), row among the M requests, ascending
    user_id: np.ndarray  # int64 (M,)
    is_core: np.ndarray  # bool (M,)
    request_id: np.ndarray  # str (M,)
    first_example: np.ndarray  # int64 (M + 1,), request m has examples [first[m], first[m + 1])
    pin_row: np.ndarray  # int64 (N,), row of the snapshot's pins
    numeric: Mapping[str, np.ndarray]  # every number held, flags too -> float32 or int8 (N,)
    labels: Mapping[str, np.ndarray]  # head name -> int8 (N,)
    position: np.ndarray  # int16 (N,), where the candidate was shown
    is_exploration: np.ndarray  # bool (M,), the candidates were drawn at random
    propensity: np.ndarray  # float32 (N,), logged chance of being a candidate; 0 where not logged


def load_rows(
    snapshot: Snapshot, snapshot_dir: Path, split: int, max_examples: int | None = None
) -> ExampleRows:
    """Return the examples of a split (`SPLIT_TRAINING` or `SPLIT_HOLDOUT`).

    Args:
        snapshot: the snapshot.
        snapshot_dir: its local folder.
        split: which of its two.
        max_examples: where there are more, whole requests are drawn, the same ones each time.
    """
    reader = SnapshotReader(snapshot, Path(snapshot_dir), snapshot.features, max_actions=1)
    index = reader.index(split)
    if max_examples is not None and index.num_examples_M.sum() > max_examples:
        order = np.argsort(mix(np.arange(len(index)), _DRAW_SALT), kind="stable")
        reached = np.cumsum(index.num_examples_M[order])
        num_kept = np.searchsorted(reached, max_examples, side="right")
        index = index.take(np.sort(order[:num_kept]))
    counts_M = index.num_examples_M
    request_N = np.repeat(np.arange(len(index)), counts_M)
    explored = reader.example_column(index, "is_exploration")
    num_explored_M = np.bincount(request_N, weights=explored, minlength=len(counts_M))
    return ExampleRows(
        request_index=request_N,
        user_id=index.user_id_M,
        is_core=reader.request_column(index, "is_core").astype(bool),
        request_id=reader.request_column(index, "request_id"),
        first_example=np.concatenate([[0], np.cumsum(counts_M)]),
        pin_row=reader.example_column(index, "pin_row").astype(np.int64),
        numeric={
            name: reader.example_column(index, numeric_column(name))
            for feature in snapshot.features.numeric_held
            for name in feature.inputs
        },
        labels={
            n: reader.example_column(index, label_column(n)) for n in snapshot.features.head_names
        },
        position=reader.example_column(index, "position"),
        is_exploration=(num_explored_M == counts_M) & (counts_M > 0),
        propensity=reader.example_column(index, "propensity"),
    )
