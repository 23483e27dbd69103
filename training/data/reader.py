"""Opens a snapshot's shards, lists their requests, and gathers some requests' rows into a batch.

A shard keeps each user's actions once and examples that point into them; the last actions of a
request are gathered here, when a batch is made. `load_rows` gives what scores are held against. Not
for the order of requests: that is `training.data.data_module`. Tested in
tests/training/data/test_batches.py.

Letters: M requests of the index, N examples of all of them, R requests of a batch, C candidates,
S actions per request, E embedding, G categorical features, N numeric inputs of a batch, H heads.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.artifacts import ShardStats, Snapshot
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
from pipelines.contracts.time import DAY_MS
from training.data.batches import Batch, for_scoring

_DRAW_SALT, _SAMPLE_SALT = 419, 421


@dataclass(frozen=True)
class RequestIndex:
    """The requests of one split, shards in order, small enough to stay in memory."""

    shard_M: np.ndarray  # int32
    row_M: np.ndarray  # int64, row in the shard's requests
    user_id_M: np.ndarray  # int64
    num_examples_M: np.ndarray  # int64
    first_example_M: np.ndarray  # int64, in the shard's examples
    num_actions_M: np.ndarray  # int64, at most max_actions
    end_M: np.ndarray  # int64, in the shard's timeline, the row after the newest action

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.row_M)

    def take(self, rows: np.ndarray) -> "RequestIndex":
        """Return the index of some of its requests, in the order given."""
        return RequestIndex(**{name: values[rows] for name, values in vars(self).items()})

    def of_users(self, num_users: int | None) -> "RequestIndex":
        """Return the requests of so many users, as `is_drawn` says; None: of all."""
        if num_users is None:
            return self
        return self.take(np.flatnonzero(is_drawn(self.user_id_M, num_users)))


def is_drawn(user_id_M: np.ndarray, num_users: int) -> np.ndarray:
    """Return which requests are those of so many users, whose ids have the lowest hashes.

    They are the same users whatever the shards and their order, and a larger sample holds a smaller
    one.
    """
    hashes_M = mix(user_id_M, _SAMPLE_SALT)
    return np.isin(hashes_M, np.unique(hashes_M)[:num_users])


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
    """Batches and whole-split columns of the shards of a snapshot, for one set of features."""

    def __init__(
        self,
        shards: Iterable[ShardStats],
        snapshot_dir: Path,
        features: FeatureConfig,
        max_actions: int,
    ) -> None:
        self.features = features
        self.max_actions = max_actions
        self.pins = ColumnReader(snapshot_dir, PINS_FILE)
        names = [shard.name for shard in shards]
        self.requests, self.examples, self.timelines, self.users = (
            [ColumnReader(snapshot_dir, f"{name}/{kind}.arrow") for name in names]
            for kind in ("requests", "examples", "timeline", "users")
        )

    def index(self, *splits: int) -> RequestIndex:
        """Return the requests of some splits (`SPLIT_TRAINING` or `SPLIT_HOLDOUT`)."""
        rows = [np.flatnonzero(np.isin(each["split"], splits)) for each in self.requests]
        sizes, row_M = [len(of_shard) for of_shard in rows], np.concatenate(rows)
        shard_M = np.repeat(np.arange(len(rows), dtype=np.int32), sizes)
        user_M, first_M, num_M, start_M, end_M = (
            self._take(self.requests, name, shard_M, row_M)
            for name in (
                *("user_id", "first_example", "num_examples"),
                *("timeline_start", "timeline_end"),
            )
        )
        num_actions_M = np.minimum(end_M - start_M, self.max_actions)
        num_M = num_M.astype(np.int64)
        return RequestIndex(shard_M, row_M, user_M, num_M, first_M, num_actions_M, end_M)

    def frozen(self, index: RequestIndex, until_ms: int) -> RequestIndex:
        """Return an index whose users have done nothing since an instant, as far as is known.

        Args:
            index: Requests.
            until_ms: Actions of this instant and later are not seen, ms since the epoch.
        """
        start_M = self.request_column(index, "timeline_start")
        seen_M = np.zeros(len(index), dtype=np.int64)
        for shard in np.unique(index.shard_M):
            before = np.cumsum(self.timelines[shard]["acted_at"] < until_ms)
            before, of_shard = np.concatenate([[0], before]), index.shard_M == shard
            seen_M[of_shard] = before[index.end_M[of_shard]] - before[start_M[of_shard]]
        num_actions_M = np.minimum(seen_M, self.max_actions)
        return replace(index, num_actions_M=num_actions_M, end_M=start_M + seen_M)

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

    def make_batch(self, index: RequestIndex, is_kept_C: np.ndarray | None = None) -> Batch:
        """Gather the batch of some requests, with user weights of 1 and nothing hidden.

        Args:
            index: the batch's requests, grouped by shard (any order within).
            is_kept_C: bool per candidate of these requests; all if not given.
        """
        keep = slice(None) if is_kept_C is None else is_kept_C
        pin_rows_C = self.example_column(index, "pin_row")[keep].astype(np.int64)
        request_of_C = np.repeat(np.arange(len(index)), index.num_examples_M)[keep]
        asked_at_R = self.request_column(index, "impressed_at")
        pins_CE, is_known_C = self.pins_at(pin_rows_C, asked_at_R[request_of_C])
        numeric_CN = np.zeros((len(pin_rows_C), len(self.features.numeric_inputs)))
        for n, name in enumerate(self.features.numeric_inputs):
            numeric_CN[:, n] = self.example_column(index, numeric_column(name))[keep]
        codes_CG = np.zeros((len(pin_rows_C), len(self.features.categorical)), dtype=np.int64)
        for g, feature in enumerate(self.features.categorical):
            column = categorical_column(feature.name)
            if feature.table == "pins":  # 0, as of an unknown value, where it came too late
                codes_CG[:, g] = self.pins[column][pin_rows_C] * is_known_C
            elif feature.table == "users":
                codes_CG[:, g] = self.user_column(index, column)[request_of_C]
            else:
                codes_CG[:, g] = self.example_column(index, column)[keep]
        labels_CH = _floats(self.labels(index)[keep])
        inputs = {
            **self.sequences(index, asked_at_R),
            "users_RE": _floats(self.user_column(index, "embedding")),
            "request_of_C": torch.from_numpy(request_of_C),
            "candidate_pin_keys_C": torch.from_numpy(pin_rows_C),
            "candidate_pins_CE": _floats(pins_CE),
            "categorical_CG": torch.from_numpy(codes_CG),
            "numeric_CN": _floats(numeric_CN),
        }
        batch = for_scoring(inputs, labels_CH.shape[1])._replace(labels_CH=labels_CH)
        # torch aligns its memory to 64 bytes, numpy need not, and MKL promises the same bits from
        # run to run only where memory is aligned.
        return Batch(*(tensor.clone() for tensor in batch))

    def sequences(self, index: RequestIndex, asked_at_R: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the four action tensors, padded to the batch's longest sequence.

        Args:
            index: the batch's requests.
            asked_at_R: since when ages count, int64 ms since the epoch.
        """
        steps_S = np.arange(max(1, int(index.num_actions_M.max(initial=0))))
        is_action_RS = steps_S < index.num_actions_M[:, None]
        request_of, step = np.nonzero(is_action_RS)
        shard_of = index.shard_M[request_of]
        rows = index.end_M[request_of] - 1 - step
        pin_rows, types, acted_at = (
            self._take(self.timelines, name, shard_of, rows)
            for name in ("pin_row", "action_type_id", "acted_at")
        )
        asked_at = asked_at_R[request_of]

        def padded(values: np.ndarray, padding: int = 0) -> torch.Tensor:
            found = np.full((*is_action_RS.shape, *values.shape[1:]), padding, values.dtype)
            found[is_action_RS] = values
            return torch.from_numpy(found)

        return {
            "action_types_RS": padded(types.astype(np.int64)),
            "action_pin_keys_RS": padded(pin_rows.astype(np.int64), -1),
            "action_pins_RSE": padded(self.pins_at(pin_rows, asked_at)[0]),
            "action_ages_ms_RS": padded(asked_at - acted_at),
        }

    def pins_at(self, pin_rows: np.ndarray, asked_at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return embeddings of pins, zero where unknown, and where a request could know the pin.

        Args:
            pin_rows: rows of the snapshot's pins.
            asked_at: for each of them, when it is asked for, int64 ms since the epoch.
        """
        embeddings, is_known = self.pins["embedding"][pin_rows], np.ones(len(pin_rows), dtype=bool)
        if PIN_TIME.name in self.pins:
            is_known = ~is_known_late(self.pins[PIN_TIME.name][pin_rows], asked_at)
            embeddings[~is_known] = 0
        return embeddings, is_known

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
    day: np.ndarray  # int64 (M,), days of 24 hours since the holdout's start
    is_core: np.ndarray  # bool (M,)
    request_id: np.ndarray  # str (M,)
    first_example: np.ndarray  # int64 (M + 1,), request m has examples [first[m], first[m + 1])
    pin_row: np.ndarray  # int64 (N,), row of the snapshot's pins
    pin_ids: np.ndarray  # int64 (pins,), of the snapshot's pins
    numeric: Mapping[str, np.ndarray]  # every number held, flags too -> float32 or int8 (N,)
    labels: Mapping[str, np.ndarray]  # head name -> int8 (N,)
    position: np.ndarray  # int16 (N,), where the candidate was shown
    is_exploration: np.ndarray  # bool (M,), the candidates were drawn at random
    propensity: np.ndarray  # float32 (N,), logged chance of being a candidate; 0 where not logged
    num_users_in_all: int | None = None  # Of the split, where only some users' rows are here.


def load_rows(
    snapshot: Snapshot,
    snapshot_dir: Path,
    split: int,
    max_examples: int | None = None,
    num_users: int | None = None,
) -> ExampleRows:
    """Return the examples of a split (`SPLIT_TRAINING` or `SPLIT_HOLDOUT`).

    Args:
        snapshot: the snapshot.
        snapshot_dir: its local folder.
        split: which of its two.
        max_examples: where there are more, whole requests are drawn, the same ones each time.
        num_users: as `RequestIndex.of_users` takes it.
    """
    reader = SnapshotReader(snapshot.shards, Path(snapshot_dir), snapshot.features, max_actions=1)
    whole = reader.index(split)
    index = whole.of_users(num_users)
    is_whole = len(index) == len(whole)
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
        day=(reader.request_column(index, "impressed_at") - snapshot.holdout.start_ms) // DAY_MS,
        is_core=reader.request_column(index, "is_core").astype(bool),
        request_id=reader.request_column(index, "request_id"),
        first_example=np.concatenate([[0], np.cumsum(counts_M)]),
        pin_row=reader.example_column(index, "pin_row").astype(np.int64),
        pin_ids=reader.pins["pin_id"],
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
        num_users_in_all=None if is_whole else len(np.unique(whole.user_id_M)),
    )


def pins_shown(snapshot: Snapshot, snapshot_dir: Path, split: int) -> np.ndarray:
    """Return which rows of the pins' table all requests of a split show, int64, ascending."""
    reader = SnapshotReader(snapshot.shards, snapshot_dir, snapshot.features, max_actions=1)
    is_shown = np.zeros(len(reader.pins["pin_id"]), dtype=bool)
    for requests in chunks(reader.index(split), 2**20):
        is_shown[reader.example_column(requests, "pin_row")] = True
    return np.flatnonzero(is_shown)


def pin_vectors(snapshot: Snapshot, snapshot_dir: Path) -> np.ndarray:
    """Return the embeddings of the pins' table, (pins, E), not copied where Arrow allows it."""
    reader = SnapshotReader((), Path(snapshot_dir), snapshot.features, max_actions=1)
    return reader.pins["embedding"]


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
