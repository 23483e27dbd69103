"""The rows of shards between the two passes: in memory as long as they fit, otherwise in files.

Not for what the rows are (`spill`) nor for what is made of them (`kernel`). On several machines, an
engine's own sink takes this module's place. Tested in tests/pipelines/snapshot/test_rows.py.
"""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from pipelines.event_log.event_index import runs_of
from pipelines.event_log.rules import FoundWidth, check_one_width
from pipelines.snapshot.plan import shard_name, shard_of
from pipelines.snapshot.shard import ShardRows

_TABLES = ("impressions", "actions", "users")


class ShardSink(Protocol):
    """Takes a task's rows; an engine's own way to bring them to their shards."""

    def check_width(self, width: FoundWidth) -> None:
        """Refuse a file of users whose embeddings are of another width than an earlier file's."""

    def add(self, rows: pa.Table) -> None:
        """Take rows of the task's table, which have a column `user_id`."""


class HeldRows:
    """The rows of all shards, in memory up to a number of bytes; what is more lies in files."""

    def __init__(self, folder: Path, num_shards: int, memory_bytes: int) -> None:
        self.folder, self.num_shards = folder, num_shards
        self._left_bytes = memory_bytes
        self._parts: dict[tuple[int, str], list[pa.Table]] = defaultdict(list)
        self._bytes_of: dict[int, int] = defaultdict(int)
        self._lock = threading.Lock()

    def keep(self, shard: int, table: str, rows: pa.Table) -> bool:
        """Keep rows in memory, unless there is no room left for them."""
        with self._lock:
            self._bytes_of[shard] += rows.nbytes
            if rows.nbytes > self._left_bytes:
                return False
            self._left_bytes -= rows.nbytes
            self._parts[shard, table].append(rows)
        return True

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
        for table in _TABLES:
            with self._lock:
                parts = self._parts.pop((shard, table), [])
            spilled = read_spilled(self.folder, shard, table)
            parts += [] if spilled is None else [spilled]
            found[table] = pa.concat_tables(parts) if parts else None
        return ShardRows(**found)


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
        order, starts = runs_of(shards)
        rows = rows.take(pa.array(order)).combine_chunks()
        ends = [*starts[1:], len(rows)]
        found = shards[order[starts]]
        for shard, start, end in zip(found.tolist(), starts.tolist(), ends, strict=True):
            self.put(shard, rows.slice(start, end - start))


class RowsToHold(DealtRows):
    """Brings a task's rows to memory, or to one Arrow file for each shard."""

    def __init__(
        self, held: HeldRows, table: str, number: int, open_files: contextlib.ExitStack
    ) -> None:
        """Take rows of one task.

        Args:
            held: the rows of all tasks.
            table: of the event log.
            number: of the task, for the names of its files.
            open_files: closes the files.
        """
        super().__init__(held.num_shards)
        self._held, self._table, self._open_files = held, table, open_files
        self._name = f"{table}-{number:06d}.arrow"
        self._writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}

    def put(self, shard: int, rows: pa.Table) -> None:
        """Keep rows, or write them to the shard's file."""
        if not self._held.keep(shard, self._table, rows):
            self._writer(shard, rows.schema).write_table(rows)

    def _writer(self, shard: int, schema: pa.Schema) -> pa.ipc.RecordBatchFileWriter:
        if shard not in self._writers:
            path = self._held.folder / shard_name(shard) / self._name
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = pa.ipc.new_file(str(path), schema)
            self._writers[shard] = self._open_files.enter_context(writer)
        return self._writers[shard]
