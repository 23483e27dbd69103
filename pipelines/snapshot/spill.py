"""First pass over the event log: read each file once, check it, and deal its rows out by shard.

The pass also counts what the whole snapshot needs before any shard can be built: which pins are
referenced, how often each was acted upon per day, and when each first appeared on each day; for the
latter it also reads three columns of the days before training. Its memory is bounded by one file.
On several machines, `pipelines.snapshot.spark` runs it with a sink of its own. Tested in
tests/pipelines/snapshot/test_purity.py.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, USER_ROWS, USERS
from pipelines.event_log import checks
from pipelines.event_log.categories import append_codes, extra_columns
from pipelines.event_log.embeddings import FoundWidth, check_one_width, embedding_matrix
from pipelines.event_log.event_index import Ints
from pipelines.event_log.first_seen import FirstSeen
from pipelines.event_log.log_files import EventLog, LogFile, day_of
from pipelines.event_log.numbers import append_numbers
from pipelines.event_log.popularity import ActionCounts
from pipelines.event_log.reader import EventFilter, is_before, read_events, read_rows
from pipelines.snapshot.plan import SnapshotPlan, WindowCounts, shard_name, shard_of

FILES_PER_TASK = 16
BYTES_PER_TASK = 64 << 20


@dataclass(frozen=True)
class SpillTask:
    """A few files of the event log for one worker."""

    number: int
    event_log: EventLog
    files: tuple[LogFile, ...]
    plan: SnapshotPlan
    folder: Path  # rows go to <folder>/<shard>/<table>-<number>.arrow


def _no_pins() -> Ints:
    return np.array([], dtype=np.int64)


@dataclass(frozen=True)
class SpillSummary:
    """What one task found, or all tasks together."""

    pin_ids: Ints = field(default_factory=_no_pins)  # referenced pins, sorted
    wanted_actions: ActionCounts = field(default_factory=lambda: ActionCounts.concatenate([]))
    first_seen: FirstSeen = field(default_factory=lambda: FirstSeen.merge([]))
    num_impressions: WindowCounts = WindowCounts(0, 0)
    num_immature_impressions: int = 0
    user_widths: tuple[FoundWidth, ...] = ()  # of the users' embeddings, one per file


class ShardSink(Protocol):
    """Takes a task's rows; an engine's own way to bring them to their shards."""

    def check_width(self, width: FoundWidth) -> None:
        """Refuse a file of users whose embeddings are of another width than an earlier file's."""

    def add(self, rows: pa.Table) -> None:
        """Take rows of the task's table, which have a column `user_id`."""


def make_tasks(event_log: EventLog, plan: SnapshotPlan, folder: Path) -> list[SpillTask]:
    """Return the tasks that read all that a snapshot needs; a task's files are of one table."""
    groups = [group for files in files_read(event_log, plan) for group in _grouped(files)]
    return [SpillTask(n, event_log, group, plan, folder) for n, group in enumerate(groups)]


def files_read(event_log: EventLog, plan: SnapshotPlan) -> tuple[tuple[LogFile, ...], ...]:
    """Return the files whose rows a snapshot may hold, by table; the pins are not dealt out."""
    return (
        event_log.files_between("impressions", plan.first_seen_start_ms, plan.as_of_ms),
        event_log.files_between("actions", plan.actions_start_ms, plan.as_of_ms),
        event_log.files_of("users"),
    )


def run_task(task: SpillTask) -> SpillSummary:
    """Read, check and deal out one task's files.

    Raises:
        DataContractError: a file breaks the contract; the message names it.
        TransientStorageError: the storage failed.
    """
    with contextlib.ExitStack() as open_files:
        return deal_out(task, _ShardFiles(task, open_files))


def deal_out(task: SpillTask, shards: ShardSink) -> SpillSummary:
    """Read and check one task's files, and hand their rows to whoever deals them out.

    Raises:
        DataContractError: a file breaks the contract; the message names it.
        TransientStorageError: the storage failed.
    """
    return merge_summaries([_READERS[file.table](task, file, shards) for file in task.files])


def merge_summaries(parts: list[SpillSummary]) -> SpillSummary:
    """Return what all tasks found together."""
    return SpillSummary(
        pin_ids=np.unique(np.concatenate([_no_pins(), *(part.pin_ids for part in parts)])),
        wanted_actions=ActionCounts.concatenate([part.wanted_actions for part in parts]),
        first_seen=FirstSeen.merge([part.first_seen for part in parts]),
        num_impressions=WindowCounts(
            training=sum(part.num_impressions.training for part in parts),
            holdout=sum(part.num_impressions.holdout for part in parts),
        ),
        num_immature_impressions=sum(part.num_immature_impressions for part in parts),
        user_widths=tuple(width for part in parts for width in part.user_widths),
    )


def read_spilled(folder: Path, shard: int, table: str) -> pa.Table | None:
    """Return a shard's rows of one table in no particular order; None if it has none."""
    found = sorted((folder / shard_name(shard)).glob(f"{table}-*.arrow"))
    if not found:
        return None
    return pa.concat_tables(pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in found)


class DealtRows(ABC):
    """A sink that splits a task's rows by shard; what becomes of a shard's rows is left open."""

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards
        self._first_width: FoundWidth | None = None

    @abstractmethod
    def put(self, shard: int, rows: pa.Table) -> None:
        """Take rows of one shard."""

    def check_width(self, width: FoundWidth) -> None:
        """Refuse a file of users whose embeddings are of another width than an earlier file's.

        The widths of different tasks meet only where the pins are read.
        """
        self._first_width = self._first_width or width
        check_one_width(
            [self._first_width, width],
            "all users' embeddings lie in one space, which is that of the pins",
            "embed the users of the one file anew, in the width of the recipe's "
            "snapshot.embedding_version",
        )

    def add(self, rows: pa.Table) -> None:
        """Deal rows out by the shard of their user."""
        if len(rows) == 0:
            return
        shards = shard_of(np.asarray(rows["user_id"]), self._num_shards)
        order = np.argsort(shards, kind="stable")
        rows = rows.take(pa.array(order)).combine_chunks()
        found, starts = np.unique(shards[order], return_index=True)
        ends = [*starts[1:], len(rows)]
        for shard, start, end in zip(found.tolist(), starts.tolist(), ends, strict=True):
            self.put(shard, rows.slice(start, end - start))


class _ShardFiles(DealtRows):
    """The Arrow files that a task deals its rows out to, one per shard; a stack closes them."""

    def __init__(self, task: SpillTask, open_files: contextlib.ExitStack) -> None:
        super().__init__(task.plan.config.num_shards)
        self._task, self._open_files = task, open_files
        self._writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}

    def put(self, shard: int, rows: pa.Table) -> None:
        """Write rows to the shard's file."""
        self._writer(shard, rows.schema).write_table(rows)

    def _writer(self, shard: int, schema: pa.Schema) -> pa.ipc.RecordBatchFileWriter:
        if shard not in self._writers:
            table = self._task.files[0].table
            path = self._task.folder / shard_name(shard) / f"{table}-{self._task.number:06d}.arrow"
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = pa.ipc.new_file(str(path), schema)
            self._writers[shard] = self._open_files.enter_context(writer)
        return self._writers[shard]


def _spill_impressions(task: SpillTask, file: LogFile, shards: ShardSink) -> SpillSummary:
    plan = task.plan
    features = plan.features.categorical_of("impressions")
    numbers = plan.number_columns("impressions")
    wanted = EventFilter(
        as_of_ms=plan.as_of_ms,
        start_ms=plan.first_seen_start_ms,
        end_ms=plan.as_of_ms,
        extra_columns=extra_columns(IMPRESSIONS, features),
        number_columns=numbers,
    )
    if file.day is not None and file.day < day_of(plan.training.start_ms):
        return SpillSummary(first_seen=first_shown(task.event_log, file, plan))
    rows = read_events(task.event_log, file, wanted)
    when = np.asarray(rows["impressed_at"])
    in_training = (when >= plan.training.start_ms) & (when < plan.training.end_ms)
    in_holdout = (when >= plan.holdout.start_ms) & (when < plan.holdout.end_ms)
    kept = rows.filter(pa.array(in_training | in_holdout))
    columns = ("request_id", "user_id", "pin_id", "impressed_at", "known_at", "position")
    shown = kept.select([*columns, "is_exploration", "propensity"])
    # The snapshot has no nulls: 0, which the checks of the log refuse, says that none was logged.
    place = shown.schema.names.index("propensity")
    field = pa.field("propensity", pa.float32(), nullable=False)
    shown = shown.set_column(place, field, pc.fill_null(shown["propensity"], 0.0))
    coded = append_codes(shown, kept, features)
    shards.add(append_numbers(file.path, coded, kept, numbers))
    return SpillSummary(
        first_seen=_first_seen(rows),
        pin_ids=np.unique(np.asarray(kept["pin_id"])),
        num_impressions=WindowCounts(int(in_training.sum()), int(in_holdout.sum())),
        num_immature_impressions=int((when >= plan.holdout.end_ms).sum()),
    )


def _spill_actions(task: SpillTask, file: LogFile, shards: ShardSink) -> SpillSummary:
    plan = task.plan
    wanted = EventFilter(
        as_of_ms=plan.as_of_ms,
        start_ms=plan.actions_start_ms,
        end_ms=plan.as_of_ms,
        action_types=(*plan.features.action_types, *plan.passed_over),
    )
    rows = read_events(task.event_log, file, wanted)
    vocabulary = pa.array(plan.features.action_types, pa.string())
    if plan.passed_over:
        rows = rows.filter(pc.is_in(rows["action_type"], value_set=vocabulary))
    pin_id, acted_at = np.asarray(rows["pin_id"]), np.asarray(rows["acted_at"])
    wanted_types = pa.array(plan.wanted_action_types, pa.string())
    is_wanted = np.asarray(pc.is_in(rows["action_type"], value_set=wanted_types))
    type_ids = pc.add(pc.index_in(rows["action_type"], value_set=vocabulary), 1).cast(pa.int8())
    index = ACTIONS.names.index("action_type")
    type_field = pa.field("action_type_id", pa.int8(), nullable=False)
    shards.add(rows.set_column(index, type_field, type_ids))
    known_at = np.asarray(rows["known_at"])
    is_late = acted_at >= plan.first_seen_start_ms
    return SpillSummary(
        first_seen=FirstSeen.of(pin_id[is_late], acted_at[is_late], known_at[is_late]),
        pin_ids=np.unique(pin_id[acted_at >= plan.history_start_ms]),
        wanted_actions=ActionCounts.of(pin_id[is_wanted], acted_at[is_wanted], known_at[is_wanted]),
    )


def _spill_users(task: SpillTask, file: LogFile, shards: ShardSink) -> SpillSummary:
    plan = task.plan
    features = plan.features.categorical_of("users")
    is_known = is_before("as_of", plan.as_of_ms)
    numbers = plan.number_columns("users")
    rows = read_rows(task.event_log, file, extra_columns(USERS, features), is_known, numbers)
    checks.check_plausible_ms(file.path, "as_of", rows["as_of"])
    embeddings = embedding_matrix(file.path, "user_id", rows)
    if len(rows) == 0:
        return SpillSummary()
    width = FoundWidth(file.path, f"user_id={rows['user_id'][0]}", embeddings.shape[1])
    shards.check_width(width)
    kept = rows.select(["user_id", "as_of"]).append_column(
        USER_ROWS.field("embedding").with_type(pa.list_(pa.float32(), embeddings.shape[1])),
        to_list_column(embeddings),
    )
    coded = append_codes(kept, rows, features)
    shards.add(append_numbers(file.path, coded, rows, numbers))
    return SpillSummary(user_widths=(width,))


def first_shown(event_log: EventLog, file: LogFile, plan: SnapshotPlan) -> FirstSeen:
    """Return when pins were first shown to anybody, as a file of impressions tells."""
    wanted = EventFilter(
        as_of_ms=plan.as_of_ms,
        start_ms=plan.first_seen_start_ms,
        end_ms=plan.as_of_ms,
        columns=("pin_id", "impressed_at", "known_at"),
    )
    return _first_seen(read_events(event_log, file, wanted))


def _first_seen(rows: pa.Table) -> FirstSeen:
    names = ("pin_id", "impressed_at", "known_at")
    return FirstSeen.of(*(np.asarray(rows[name]) for name in names))


_READERS = {"impressions": _spill_impressions, "actions": _spill_actions, "users": _spill_users}


def _grouped(files: tuple[LogFile, ...]) -> Iterator[tuple[LogFile, ...]]:
    """Yield runs of files of at most FILES_PER_TASK files and about BYTES_PER_TASK bytes."""
    group: list[LogFile] = []
    num_bytes = 0
    for file in files:
        if group and (len(group) == FILES_PER_TASK or num_bytes + file.num_bytes > BYTES_PER_TASK):
            yield tuple(group)
            group, num_bytes = [], 0
        group.append(file)
        num_bytes += file.num_bytes
    if group:
        yield tuple(group)
