"""A shard: the values that pass from step to step of the kernel, in their order, and its files.

All values are frozen. A comment such as [requests] says what an array has one element of. Not for
computing: each value is made by the step that its docstring names. Not for reading the files:
`pipelines.contracts.snapshot_files`. Tested in tests/pipelines/snapshot/test_kernel.py.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.artifacts import EventCounts, FileDigest, ShardStats
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import digest_files
from pipelines.contracts.schemas import (
    NEVER_MS,
    PIN_TIME,
    SHARD_FILES,
    SPLIT_HOLDOUT,
    SPLIT_TRAINING,
    label_column,
)
from pipelines.event_log.event_index import Bools, EventIndex, Ints, Places
from pipelines.snapshot.pin_counts import Counts
from pipelines.snapshot.plan import SnapshotPlan, WindowCounts


@dataclass(frozen=True)
class ShardRows:
    """A shard's rows of the event log, as dealt out by `spill`: in any order, None without rows."""

    impressions: pa.Table | None
    actions: pa.Table | None
    users: pa.Table | None


@dataclass(frozen=True)
class PinIndex:
    """The pins of the whole snapshot and what was counted about each over all users."""

    pin_ids: Ints  # sorted; a pin's position is its pin_row
    popularity: dict[int, Counts]  # [pins, days with requests] by trailing window, days
    first_seen: Ints  # [pins, days with requests] when the log first knew of each, ms
    table: pa.Table  # the snapshot's pins
    numbers: dict[str, npt.NDArray[np.float64]]  # the pins' number columns as logged, by name

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings of pins and of users alike."""
        return int(self.table.schema.field("embedding").type.list_size)

    @property
    def num_cold(self) -> int:
        """How many of the pins had no embedding before as_of."""
        if PIN_TIME.name not in self.table.column_names:
            return 0
        return int((np.asarray(self.table[PIN_TIME.name]) == NEVER_MS).sum())

    @property
    def num_bytes(self) -> int:
        """Memory that the counts take, without the pins' table, which lies in a file."""
        counts = (*self.popularity.values(), *self.numbers.values(), self.first_seen)
        return self.pin_ids.nbytes + sum(each.nbytes for each in counts)

    @cached_property
    def places(self) -> Places:
        """Finds the rows of pins."""
        return Places(self.pin_ids)


@dataclass(frozen=True)
class Requests:
    """A shard's requests by (user_id, impressed_at, request_id)."""

    request_id: pa.Array
    user_id: Ints
    impressed_at: Ints  # the earliest of the request's impressions
    first_example: Ints
    num_examples: Ints


@dataclass(frozen=True)
class Examples:
    """A shard's impressions by (request, position, pin_id), each pin once in a request."""

    rows: pa.Table  # what was spilled
    request: Ints  # row of the request
    pin_id: Ints
    impressed_at: Ints


@dataclass(frozen=True)
class Actions:
    """Actions by (user_id, known_at, acted_at, request_id, pin_id, action_type_id)."""

    user_id: Ints
    pin_id: Ints
    type_id: Ints
    acted_at: Ints
    known_at: Ints
    names_request: Bools
    request: Ints  # row of the request that is named; -1: none, or none of this user's here

    def where(self, mask: Bools) -> "Actions":
        """Return some of the actions, in the same order."""
        return Actions(**{name: values[mask] for name, values in vars(self).items()})


@dataclass(frozen=True)
class OrderedRows:
    """Made by `order_rows`: a shard's rows in their one order."""

    requests: Requests
    examples: Examples
    actions: Actions  # of users with requests
    num_duplicate_impressions: int


@dataclass(frozen=True)
class Pairs:
    """Which examples and actions are of one user and one pin: each such pair has a number."""

    shown: EventIndex  # the examples by pair and time; a pair's number is its rank there
    of_example: Ints  # [examples]
    of_action: Ints  # [actions] -1 where the user was never shown the pin

    @property
    def num_pairs(self) -> int:
        """Return how many pairs there are."""
        return int(self.shown.ranks[-1]) + 1 if len(self.shown.ranks) else 0


@dataclass(frozen=True)
class Pointers:
    """Made by `point`: the timeline, and the rows that requests and examples point to."""

    timeline: Actions
    timeline_pin_row: Ints  # [timeline]
    timeline_start: Ints  # [requests] first timeline row of the user
    timeline_end: Ints  # [requests] one past the newest action known before the request
    example_pin_row: Ints  # [examples]
    pairs: Pairs
    is_in_timeline: Bools  # [actions]


@dataclass(frozen=True)
class Unnamed:
    """Made by `find_unnamed`: the actions without a request, on a pin their user was shown.

    Each row of `rows` is the place of an action among the shard's. The others say where, among the
    examples of its user and pin by time (`Pairs.shown`), those begin that were shown less than a
    label window before it, those after it, and those a label window or more after it.
    """

    rows: Ints
    within: Ints
    later: Ints
    beyond: Ints


@dataclass(frozen=True)
class UserRows:
    """Made by `pick_user_rows`: the user rows in use, by (user_id, as_of)."""

    table: pa.Table
    user_row: Ints  # [requests]
    spilled_row: Ints  # [requests] the row among those that were spilled; -1 for a newcomer


@dataclass(frozen=True)
class ShardTables:
    """Made by `build_shard`: a shard's files, and what was counted on the way."""

    timeline: pa.Table
    requests: pa.Table
    examples: pa.Table
    users: pa.Table
    num_duplicate_impressions: int
    event_counts: EventCounts


@dataclass(frozen=True)
class ShardSummary:
    """Made by `write_shard`: what was counted in one shard."""

    stats: ShardStats
    num_duplicate_impressions: int
    num_positives: WindowCounts  # of the main head
    event_counts: EventCounts
    files: tuple[FileDigest, ...]  # with paths within the snapshot, sorted


def write_shard(folder: Path, name: str, built: ShardTables, plan: SnapshotPlan) -> ShardSummary:
    """Write a shard's files into an empty folder that is there, and return what was counted.

    Raises:
        ConfigurationError: a table is too large for one batch.
    """
    for each in SHARD_FILES:
        write_arrow(folder / f"{each}.arrow", getattr(built, each))
    stats = ShardStats(
        name=name,
        num_users=len(np.unique(np.asarray(built.requests["user_id"]))),
        num_actions=len(built.timeline),
        num_requests=len(built.requests),
        num_examples=len(built.examples),
    )
    label = np.asarray(built.examples[label_column(plan.features.main_head.name)])
    splits, num_examples = (np.asarray(built.requests[n]) for n in ("split", "num_examples"))
    split = np.repeat(splits, num_examples)
    num_positives = WindowCounts(
        training=int(label[split == SPLIT_TRAINING].sum()),
        holdout=int(label[split == SPLIT_HOLDOUT].sum()),
    )
    return ShardSummary(
        stats,
        built.num_duplicate_impressions,
        num_positives,
        built.event_counts,
        # What was just written need not come from far.
        tuple(
            each.model_copy(update={"path": f"{name}/{each.path}"}) for each in digest_files(folder)
        ),
    )


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write an Arrow IPC file: uncompressed, one record batch, the same bytes for equal tables.

    Raises:
        ConfigurationError: the table is too large for one batch.
    """
    batches = table.combine_chunks().to_batches()
    if len(batches) > 1:
        raise ConfigurationError(
            f"{path.name} does not fit one record batch (more than 2 GiB of text in a column); "
            f"expected less; raise snapshot.num_shards in the recipe"
        )
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_batch(
            batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
        )
