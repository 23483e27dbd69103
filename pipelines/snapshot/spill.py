"""First pass over the event log: read each file once, check it, and deal its rows out by shard.

The pass also counts what the whole snapshot needs before any shard can be built: which pins are
referenced, how often each was acted upon per day, and when each first appeared on each day; for the
latter it also reads three columns of the days before training. Its memory is bounded by one file
and what `HeldRows` may hold until the second pass. On several machines, `pipelines.snapshot.spark`
runs it with a sink of its own.
"""

import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, USER_ROWS, USERS
from pipelines.event_log.event_index import Ints, distinct, runs_of
from pipelines.event_log.log_files import EventLog, LogFile, day_of
from pipelines.event_log.reader import (
    Before,
    EventFilter,
    append_codes,
    append_numbers,
    extra_columns,
    positions,
    read_events,
    read_rows,
)
from pipelines.event_log.rules import FoundWidth, embedding_matrix, require_none, time_problems
from pipelines.snapshot.pin_counts import ActionCounts, FirstSeen, Run
from pipelines.snapshot.plan import SnapshotPlan, WindowCounts, shard_name, shard_of
from pipelines.snapshot.shard import ShardRows

FILES_PER_TASK = 32
BYTES_PER_TASK = 16 << 20
ROWS_WORTH_A_MERGE = 6_000_000
MEMORY_PER_BYTE = 30
"""Bytes of memory that a task takes for each byte of its files: columns that Parquet has packed
eightfold, and three times that while they are checked, counted and dealt out."""


@dataclass(frozen=True)
class SpillTask:
    """A few files of the event log for one worker."""

    number: int  # in the order in which they are begun
    place: int  # among all tasks by table and day
    event_log: EventLog
    files: tuple[LogFile, ...]
    plan: SnapshotPlan


def _none() -> Ints:
    return np.array([], dtype=np.int64)


@dataclass(frozen=True)
class SpillSummary:
    """What one task found, or all tasks together."""

    pin_ids: Ints = field(default_factory=_none)  # of the referenced pins, sorted
    # In parts, of which several may hold the same pins and days.
    wanted_actions: tuple[ActionCounts, ...] = ()
    first_seen: tuple[FirstSeen, ...] = ()
    num_impressions: WindowCounts = WindowCounts(0, 0)
    num_immature_impressions: int = 0
    user_widths: tuple[FoundWidth, ...] = ()  # of the users' embeddings, one per file


Found = tuple[pa.Table | None, SpillSummary]
"""Rows to deal out, and what was counted in them."""
Put = Callable[[int, str, pa.Table], object]
"""Takes rows of one shard, of a table of the event log."""


def make_tasks(event_log: EventLog, plan: SnapshotPlan) -> list[SpillTask]:
    """Return the tasks that read all that a snapshot needs; a task's files are of one table.

    The largest come first, so that no worker begins one when the others have nothing left to do.
    """
    groups: list[list[LogFile]] = []
    for files in files_read(event_log, plan):
        num_bytes = BYTES_PER_TASK + 1  # each table begins a task
        for file in files:
            num_bytes += file.num_bytes
            if num_bytes > BYTES_PER_TASK or len(groups[-1]) == FILES_PER_TASK:
                groups.append([])
                num_bytes = file.num_bytes
            groups[-1].append(file)
    sizes = [-sum(file.num_bytes for file in group) for group in groups]
    return [
        SpillTask(number, place, event_log, tuple(groups[place]), plan)
        for number, place in enumerate(sorted(range(len(groups)), key=sizes.__getitem__))
    ]


def files_read(event_log: EventLog, plan: SnapshotPlan) -> tuple[tuple[LogFile, ...], ...]:
    """Return the files whose rows a snapshot may hold, by table; the pins are not dealt out."""
    return (
        event_log.files_between("impressions", plan.first_seen_start_ms, plan.as_of_ms),
        event_log.files_between("actions", plan.actions_start_ms, plan.as_of_ms),
        event_log.files_of("users"),
    )


def deal_out(task: SpillTask, put: Put, together: int = 1) -> SpillSummary:
    """Read and check one task's files, and deal their rows out by the shard of their user.

    Args:
        task: What is read.
        put: Takes the rows of a shard.
        together: So many shards, one after another, are put as one.

    Raises:
        DataContractError: a file breaks the contract; the message names it.
        TransientStorageError: the storage failed.
    """
    table = task.files[0].table
    # Embeddings have a width in each file of users. Of impressions from before the training window,
    # nothing but when pins were first shown is read.
    at_once: list[tuple[LogFile, ...]] = [(file,) for file in task.files]
    if table != "users":
        early = tuple(file for file in task.files if _is_early(file, task.plan))
        at_once = [early, tuple(file for file in task.files if file not in early)]
    summaries, reader = [], _READERS[table]
    for files in filter(None, at_once):
        read: Iterable[Found]
        try:
            read = [reader(task, files)]
        except DataContractError:
            if len(files) == 1:
                raise
            # One by one, files of other types are read, and the message names the one at fault.
            read = (reader(task, (file,)) for file in files)
        for rows, found in read:
            summaries.append(found)
            if rows is not None:
                deal_rows(table, rows, task.plan, put, together)
    return merge_summaries(summaries)


def deal_rows(table: str, rows: pa.Table, plan: SnapshotPlan, put: Put, together: int = 1) -> None:
    """Deal rows of a table out by the shard of their user; see `deal_out`."""
    if len(rows) == 0:
        return
    shards = shard_of(np.asarray(rows["user_id"]), plan.config.num_shards) // together
    order, starts = runs_of(shards)
    taken = rows.take(pa.array(order)).combine_chunks()
    ends = [*starts[1:], len(taken)]
    for shard, start, end in zip(shards[order[starts]], starts, ends, strict=True):
        put(int(shard), table, taken.slice(start, end - start))


def _is_early(file: LogFile, plan: SnapshotPlan) -> bool:
    """Return whether a file's impressions are all from before the training window."""
    start = day_of(plan.training.start_ms)
    return file.table == "impressions" and file.day is not None and file.day < start


def _read_impressions(task: SpillTask, files: tuple[LogFile, ...]) -> Found:
    plan = task.plan
    window = EventFilter(plan.as_of_ms, plan.first_seen_start_ms, plan.as_of_ms)
    if _is_early(files[0], plan):
        wanted = replace(window, columns=("pin_id", "impressed_at", "known_at"))
        seen = _first_seen(read_events(task.event_log, files, wanted))
        return None, SpillSummary(first_seen=(seen,))
    features = plan.features.categorical_of("impressions")
    numbers = plan.number_columns("impressions")
    wanted = replace(
        window,
        extra_columns=extra_columns(IMPRESSIONS, features),
        number_columns=numbers,
        are_texts_coded=True,
    )
    rows = read_events(task.event_log, files, wanted)
    when = np.asarray(rows["impressed_at"])
    in_training = (when >= plan.training.start_ms) & (when < plan.training.end_ms)
    in_holdout = (when >= plan.holdout.start_ms) & (when < plan.holdout.end_ms)
    is_kept = in_training | in_holdout
    kept = rows if is_kept.all() else rows.filter(pa.array(is_kept))

    columns = ("request_id", "user_id", "pin_id", "impressed_at", "known_at", "position")
    shown = kept.select([*columns, "is_exploration", "propensity"])
    # The snapshot has no nulls: 0, which the checks of the log refuse, says that none was logged.
    place = shown.schema.names.index("propensity")
    field = pa.field("propensity", pa.float32(), nullable=False)
    shown = shown.set_column(place, field, pc.fill_null(shown["propensity"], 0.0))
    coded = append_codes(shown, kept, features)
    return append_numbers(files[0].path, coded, kept, numbers), SpillSummary(
        first_seen=(_first_seen(rows),),
        pin_ids=distinct(np.asarray(kept["pin_id"])),
        num_impressions=WindowCounts(int(in_training.sum()), int(in_holdout.sum())),
        num_immature_impressions=int((when >= plan.holdout.end_ms).sum()),
    )


def _read_actions(task: SpillTask, files: tuple[LogFile, ...]) -> Found:
    plan = task.plan
    wanted = EventFilter(
        as_of_ms=plan.as_of_ms,
        start_ms=plan.actions_start_ms,
        end_ms=plan.as_of_ms,
        action_types=(*plan.features.action_types, *plan.passed_over),
        are_texts_coded=True,
    )
    rows = read_events(task.event_log, files, wanted)
    places = positions(rows["action_type"], plan.features.action_types)
    if plan.passed_over:
        rows, places = rows.filter(pa.array(places >= 0)), places[places >= 0]
    type_id = pa.array(places + 1).cast(pa.int8())
    pin_id, acted_at, known_at = (
        np.asarray(rows[name]) for name in ("pin_id", "acted_at", "known_at")
    )
    popular = [plan.action_type_ids[name] for name in plan.wanted_action_types]
    is_popular = np.isin(np.asarray(type_id), popular)
    is_late = acted_at >= plan.first_seen_start_ms
    found = SpillSummary(
        first_seen=(FirstSeen.of(pin_id[is_late], acted_at[is_late], known_at[is_late]),),
        pin_ids=distinct(pin_id[acted_at >= plan.history_start_ms]),
        wanted_actions=(
            ActionCounts.of(pin_id[is_popular], acted_at[is_popular], known_at[is_popular]),
        ),
    )
    place = ACTIONS.names.index("action_type")
    type_field = pa.field("action_type_id", pa.int8(), nullable=False)
    return rows.set_column(place, type_field, type_id), found


def _read_users(task: SpillTask, files: tuple[LogFile, ...]) -> Found:
    plan, (file,) = task.plan, files
    features = plan.features.categorical_of("users")
    extra, is_known = extra_columns(USERS, features), Before("as_of", plan.as_of_ms)
    numbers = plan.number_columns("users")
    rows, _ = read_rows(task.event_log, [file], is_known, extra, numbers, are_texts_coded=True)
    require_none(time_problems(file.path, "as_of", rows))
    embeddings = embedding_matrix(file.path, rows)
    if len(rows) == 0:
        return None, SpillSummary()
    width = FoundWidth(file.path, f"user_id={rows['user_id'][0]}", embeddings.shape[1])
    kept = rows.select(["user_id", "as_of"]).append_column(
        USER_ROWS.field("embedding").with_type(pa.list_(pa.float32(), embeddings.shape[1])),
        to_list_column(embeddings),
    )
    coded = append_codes(kept, rows, features)
    coded = append_numbers(file.path, coded, rows, numbers)
    return coded, SpillSummary(user_widths=(width,))


def _first_seen(rows: pa.Table) -> FirstSeen:
    names = ("pin_id", "impressed_at", "known_at")
    return FirstSeen.of(*(np.asarray(rows[name]) for name in names))


_READERS = {"impressions": _read_impressions, "actions": _read_actions, "users": _read_users}


class HeldRows:
    """The rows of all shards, in memory up to a number of bytes; what is more lies in files."""

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self._folder, self._left_bytes, self._num_files = folder, memory_bytes, 0
        self._parts: dict[tuple[int, str], list[pa.Table]] = defaultdict(list)
        self._bytes_of: dict[int, int] = defaultdict(int)
        self._lock = threading.Lock()

    def keep(self, shard: int, table: str, rows: pa.Table) -> bool:
        """Keep rows in memory, or in a file where there is no room; return whether there was."""
        with self._lock:
            self._bytes_of[shard] += rows.nbytes
            if rows.nbytes <= self._left_bytes:
                self._left_bytes -= rows.nbytes
                self._parts[shard, table].append(rows)
                return True
            self._num_files += 1
            path = self._folder / shard_name(shard) / f"{table}-{self._num_files:06d}.arrow"
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(path), rows.schema) as writer:
            writer.write_table(rows)
        return False

    @property
    def kept_bytes(self) -> int:
        """The bytes of all rows that are held in memory."""
        return sum(part.nbytes for parts in self._parts.values() for part in parts)

    @property
    def most_bytes(self) -> int:
        """The bytes of the largest shard's rows."""
        return max(self._bytes_of.values(), default=0)

    def take(self, shard: int) -> ShardRows:
        """Return a shard's rows in no particular order, which are held no longer."""
        found = {}
        for table in _READERS:
            with self._lock:
                parts = self._parts.pop((shard, table), [])
            spilled = sorted((self._folder / shard_name(shard)).glob(f"{table}-*.arrow"))
            parts += [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in spilled]
            found[table] = pa.concat_tables(parts) if parts else None
        return ShardRows(**found)


def merge_as_they_come(parts: Iterable[SpillSummary], run: Run = map) -> SpillSummary:
    """Do what `merge_summaries` does, and hold half as much again as the distinct counts, at most.

    The same pins and days occur in many parts. A few million rows may wait to be merged: whoever
    counts by pin and day takes them in parts.

    Args:
        parts: what each task found.
        run: calls a function for each of some values, one after another or side by side.
    """

    def num_rows(found: SpillSummary) -> int:
        pins = [part.pin_id for part in found.first_seen]
        return sum(map(len, [*pins, *(part.pin_id for part in found.wanted_actions)]))

    waiting: list[SpillSummary] = [SpillSummary()]
    for part in parts:
        waiting.append(part)
        if sum(map(num_rows, waiting[1:])) > max(num_rows(waiting[0]) // 2, ROWS_WORTH_A_MERGE):
            found = merge_summaries(waiting)
            merges = (
                functools.partial(ActionCounts.merge, found.wanted_actions, run),
                functools.partial(FirstSeen.merge, found.first_seen, run),
            )
            wanted_actions, first_seen = run(lambda merge: merge(), merges)
            waiting = [replace(found, wanted_actions=(wanted_actions,), first_seen=(first_seen,))]
    return merge_summaries(waiting)


def merge_summaries(parts: Sequence[SpillSummary]) -> SpillSummary:
    """Return what all tasks found together."""
    if len(parts) == 1:
        return parts[0]
    return SpillSummary(
        pin_ids=distinct(np.concatenate([_none(), *(part.pin_ids for part in parts)])),
        wanted_actions=tuple(each for part in parts for each in part.wanted_actions),
        first_seen=tuple(each for part in parts for each in part.first_seen),
        num_impressions=WindowCounts(
            training=sum(part.num_impressions.training for part in parts),
            holdout=sum(part.num_impressions.holdout for part in parts),
        ),
        num_immature_impressions=sum(part.num_immature_impressions for part in parts),
        user_widths=tuple(width for part in parts for width in part.user_widths),
    )
