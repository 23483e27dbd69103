"""Opens a snapshot's shards, lists their requests, and gathers some requests' rows into a batch.

A shard keeps each user's actions once and examples that point into them; the last actions of a
request are gathered here, when a batch is made. `load_rows` gives what scores are held against. Not
for the order of requests: that is `training.data.data_module`. Tested in
tests/training/data/test_batches.py.

Letters: M requests of the index, N examples of all of them, R requests of a batch, C candidates,
S actions per request, E embedding, G categorical features, N numeric inputs of a batch, H heads.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.hashing import mix
from pipelines.contracts.schemas import (
    PIN_TIME,
    PINS_FILE,
    categorical_column,
    is_known_late,
    label_column,
    numeric_column,
)
from pipelines.contracts.snapshot_files import open_table
from training.data.batches import Batch

_DRAW_SALT = 419


@dataclass(frozen=True)
class RequestIndex:
    """The requests of one split, shards in order, small enough to stay in memory."""

    shard_M: np.ndarray  # int32
    row_M: np.ndarray  # int64, row in the shard's requests
    user_id_M: np.ndarray  # int64
    num_examples_M: np.ndarray  # int64
    first_example_M: np.ndarray  # int64, in the shard's examples
    num_actions_M: np.ndarray  # int64, at most max_actions

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.row_M)

    def take(self, rows: np.ndarray) -> "RequestIndex":
        """Return the index of some of its requests, in the order given."""
        return RequestIndex(**{name: values[rows] for name, values in vars(self).items()})


class ColumnReader:
    """One Arrow file's columns as arrays, without a copy where Arrow's layout allows it."""

    def __init__(self, snapshot_dir: Path, relative: str) -> None:
        self._table = open_table(snapshot_dir, relative)
        self._columns: dict[str, np.ndarray] = {}

    def __contains__(self, name: str) -> bool:
        """Return whether the file has a column."""
        return name in self._table.column_names

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column, [rows] or [rows, width] for a fixed-size list."""
        if name not in self._columns:
            self._columns[name] = to_numpy(self._table.column(name))
        return self._columns[name]


class SnapshotReader:
    """Batches and whole-split columns of one snapshot, for one set of features."""

    def __init__(
        self, snapshot: Snapshot, snapshot_dir: Path, features: FeatureConfig, max_actions: int
    ) -> None:
        self.features = features
        self.max_actions = max_actions
        self.pins = ColumnReader(snapshot_dir, PINS_FILE)
        self.requests, self.examples, self.timelines, self.users = (
            [ColumnReader(snapshot_dir, f"{shard.name}/{kind}.arrow") for shard in snapshot.shards]
            for kind in ("requests", "examples", "timeline", "users")
        )

    def index(self, split: int) -> RequestIndex:
        """Return the requests of a split (`SPLIT_TRAINING` or `SPLIT_HOLDOUT`)."""
        parts = []
        for shard, requests in enumerate(self.requests):
            rows = np.flatnonzero(requests["split"] == split)
            num_known = requests["timeline_end"][rows] - requests["timeline_start"][rows]
            parts.append(
                RequestIndex(
                    shard_M=np.full(len(rows), shard, dtype=np.int32),
                    row_M=rows,
                    user_id_M=requests["user_id"][rows],
                    num_examples_M=requests["num_examples"][rows].astype(np.int64),
                    first_example_M=requests["first_example"][rows],
                    num_actions_M=np.minimum(num_known, self.max_actions),
                )
            )
        names = vars(parts[0])
        return RequestIndex(**{n: np.concatenate([vars(p)[n] for p in parts]) for n in names})

    def example_column(self, index: RequestIndex, name: str) -> np.ndarray:
        """Return a column of `examples` for all candidates of some requests, in their order."""
        rows = ragged_ranges(index.first_example_M, index.num_examples_M)
        shard_of = np.repeat(index.shard_M, index.num_examples_M)
        return self._take(self.examples, name, shard_of, rows)

    def request_column(self, index: RequestIndex, name: str) -> np.ndarray:
        """Return a column of `requests`, one value per request."""
        return self._take(self.requests, name, index.shard_M, index.row_M)

    def user_column(self, index: RequestIndex, name: str) -> np.ndarray:
        """Return a column of `users`, one value per request."""
        rows_R = self.request_column(index, "user_row")
        return self._take(self.users, name, index.shard_M, rows_R)

    def labels(self, index: RequestIndex) -> np.ndarray:
        """Return int8 labels, [C, H], of all candidates of some requests."""
        columns = [self.example_column(index, label_column(n)) for n in self.features.head_names]
        return np.stack(columns, axis=1)

    def make_batch(
        self,
        index: RequestIndex,
        *,
        is_kept_C: np.ndarray | None = None,
        window_fraction_R: np.ndarray | None = None,
        user_weights_R: np.ndarray | None = None,
        num_global_candidates: int | None = None,
    ) -> Batch:
        """Gather the batch of some requests.

        Args:
            index: the batch's requests, grouped by shard (any order within).
            is_kept_C: bool per candidate of these requests; all if not given.
            window_fraction_R: see `Batch`; 0 if not given.
            user_weights_R: see `Batch`; 1 if not given.
            num_global_candidates: candidates over all ranks; this batch's own if not given.
        """
        keep = slice(None) if is_kept_C is None else is_kept_C
        pin_rows_C = self.example_column(index, "pin_row")[keep].astype(np.int64)
        request_of_C = np.repeat(np.arange(len(index)), index.num_examples_M)[keep]
        numeric_CN = np.zeros((len(pin_rows_C), len(self.features.numeric_inputs)))
        for n, name in enumerate(self.features.numeric_inputs):
            numeric_CN[:, n] = self.example_column(index, numeric_column(name))[keep]
        window_R = np.zeros(len(index)) if window_fraction_R is None else window_fraction_R
        weights_R = np.ones(len(index)) if user_weights_R is None else user_weights_R
        num_global = len(pin_rows_C) if num_global_candidates is None else num_global_candidates
        is_unknown_C = self._is_unknown(index, pin_rows_C, request_of_C)
        codes_CG = np.zeros((len(pin_rows_C), len(self.features.categorical)), dtype=np.int64)
        for g, feature in enumerate(self.features.categorical):
            column = categorical_column(feature.name)
            if feature.table == "pins":  # 0, as of an unknown value, where it came too late
                codes_CG[:, g] = self.pins[column][pin_rows_C] * ~is_unknown_C
            elif feature.table == "users":
                codes_CG[:, g] = self.user_column(index, column)[request_of_C]
            else:
                codes_CG[:, g] = self.example_column(index, column)[keep]
        batch = Batch(
            **self._sequences(index),
            users_RE=_floats(self.user_column(index, "embedding")),
            request_of_C=torch.from_numpy(request_of_C),
            candidate_pin_keys_C=torch.from_numpy(pin_rows_C),
            candidate_pins_CE=_floats(self._pin_embeddings(pin_rows_C, is_unknown_C)),
            categorical_CG=torch.from_numpy(codes_CG),
            numeric_CN=_floats(numeric_CN),
            labels_CH=_floats(self.labels(index)[keep]),
            user_weights_R=_floats(weights_R),
            window_fraction_R=_floats(window_R),
            num_global_candidates=torch.tensor(float(num_global)),
        )
        # torch aligns its memory to 64 bytes, numpy need not, and MKL promises the same bits from
        # run to run only where memory is aligned.
        return Batch(*(tensor.clone() for tensor in batch))

    def _sequences(self, index: RequestIndex) -> dict[str, torch.Tensor]:
        """Return the four action tensors, padded to the batch's longest sequence."""
        longest = max(1, int(index.num_actions_M.max(initial=0)))
        steps_S = np.arange(longest)
        is_action_RS = steps_S < index.num_actions_M[:, None]
        newest_R = self.request_column(index, "timeline_end") - 1
        rows_RS = np.where(is_action_RS, newest_R[:, None] - steps_S, 0)
        shards_RS = np.broadcast_to(index.shard_M[:, None], rows_RS.shape)[is_action_RS]
        shape, rows = rows_RS.shape, rows_RS[is_action_RS]

        def gather(name: str, padding: int) -> np.ndarray:
            filled_RS = np.full(shape, padding, dtype=np.int64)
            filled_RS[is_action_RS] = self._take(self.timelines, name, shards_RS, rows)
            return filled_RS

        pin_rows_RS = gather("pin_row", -1)
        pins_RSE = np.zeros((*shape, self.pins["embedding"].shape[1]), dtype=np.float32)
        pin_rows = pin_rows_RS[is_action_RS]
        is_unknown = self._is_unknown(index, pin_rows, np.nonzero(is_action_RS)[0])
        pins_RSE[is_action_RS] = self._pin_embeddings(pin_rows, is_unknown)
        ages_RS = self.request_column(index, "impressed_at")[:, None] - gather("acted_at", 0)
        ages_RS[~is_action_RS] = 0
        return {
            "action_types_RS": torch.from_numpy(gather("action_type_id", 0)),
            "action_pin_keys_RS": torch.from_numpy(pin_rows_RS),
            "action_pins_RSE": torch.from_numpy(pins_RSE),
            "action_ages_ms_RS": torch.from_numpy(ages_RS),
        }

    def _pin_embeddings(self, pin_rows: np.ndarray, is_unknown: np.ndarray) -> np.ndarray:
        """Return embeddings of pins, [len(pin_rows), E]; zero where they are unknown."""
        embeddings = self.pins["embedding"][pin_rows]
        return np.where(is_unknown[:, None], 0, embeddings) if is_unknown.any() else embeddings

    def _is_unknown(
        self, index: RequestIndex, pin_rows: np.ndarray, request_of: np.ndarray
    ) -> np.ndarray:
        """Return where a request could not know a pin's row; nowhere if pins have no time.

        Args:
            index: the batch's requests.
            pin_rows: rows of the snapshot's pins.
            request_of: for each of them, which of the batch's requests it is for.
        """
        if PIN_TIME.name not in self.pins:
            return np.zeros(len(pin_rows), dtype=bool)
        impressed_at_R = self.request_column(index, "impressed_at")
        return is_known_late(self.pins[PIN_TIME.name][pin_rows], impressed_at_R[request_of])

    def _take(
        self, readers: list[ColumnReader], name: str, shard_of: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Return rows of a column that lies in many shards; `shard_of` must be grouped."""
        if len(shard_of) == 0:
            return readers[0][name][:0]
        starts = np.flatnonzero(np.diff(shard_of, prepend=-1))
        ends = np.append(starts[1:], len(shard_of))
        parts = [
            readers[shard_of[start]][name][rows[start:end]]
            for start, end in zip(starts, ends, strict=True)
        ]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


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


def chunks(index: RequestIndex, batch_size: int) -> Iterator[RequestIndex]:
    """Yield runs of whole requests of about `batch_size` candidates, in order, none empty."""
    ends = np.cumsum(index.num_examples_M)
    group_M = (ends - index.num_examples_M) // batch_size
    starts = np.flatnonzero(np.diff(group_M, prepend=-1))
    for start, end in itertools.pairwise([*starts, len(group_M)]):
        yield index.take(np.arange(start, end))


def ragged_ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return start, start + 1, ... for each (start, count), one after another, int64."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _floats(values: np.ndarray) -> torch.Tensor:
    """Return a float32 tensor; a copy, because a tensor must not write into a mapped file."""
    return torch.from_numpy(np.array(values, dtype=np.float32))
