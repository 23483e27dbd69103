"""Rows of one table, kept on disk in sorted runs until all have come, and read back by key.

A run is as many rows as came together before MAX_BYTES were full, sorted by the key and written as
an Arrow file that is mapped into memory. So a range of keys is a slice of each run, whatever the
order in which rows came. Not for what is done with them: `pipelines.sources.writer.assemble`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.sources.writer.batches import MAX_BYTES

Ints = npt.NDArray[np.int64]


class KeyRange(NamedTuple):
    """Keys from `first` to `last`, both included, so that the largest int64 is one of them."""

    first: int
    last: int


class Mark(NamedTuple):
    """What `Runs` held at some time."""

    waiting: list[pa.Table]
    num_waiting: int
    waiting_bytes: int
    num_runs: int
    columns: list[str]
    num_rows: int
    num_bytes: int


class Runs:
    """The runs of one table.

    Args:
        folder: where they go; it is made when it is needed.
        key: the column that they are sorted by, int64.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self._key = key
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._runs: list[Path] = []
        self._columns: list[str] = []
        self.num_rows = 0
        self.num_bytes = 0
        """Of the values alone, so that it does not depend on how the rows were given."""

    def add(self, rows: pa.Table) -> None:
        """Add rows in any order; their columns are those of the rows before, in any order too."""
        if len(rows) == 0:
            return
        self._columns = self._columns or rows.column_names
        self._waiting.append(rows.select(self._columns))
        self.num_rows += len(rows)
        self.num_bytes += _content_bytes(rows)
        self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= MAX_BYTES:
            self.settle()

    def mark(self) -> Mark:
        """Return what is held now, for `return_to`. Waiting rows stay in memory as long as it."""
        return Mark(
            self._waiting,  # `settle` begins another list
            len(self._waiting),
            self._waiting_bytes,
            len(self._runs),
            self._columns,
            self.num_rows,
            self.num_bytes,
        )

    def return_to(self, mark: Mark) -> None:
        """Forget the rows that were added since a mark."""
        for path in self._runs[mark.num_runs :]:
            path.unlink(missing_ok=True)
        del self._runs[mark.num_runs :]
        self._waiting, self._waiting_bytes = mark.waiting, mark.waiting_bytes
        del self._waiting[mark.num_waiting :]
        self._columns, self.num_rows, self.num_bytes = mark.columns, mark.num_rows, mark.num_bytes

    def settle(self) -> None:
        """Write what waits, so that it can be read."""
        if not self._waiting:
            return
        rows = pa.concat_tables(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        order = np.argsort(np.asarray(rows[self._key]), kind="stable")
        rows = rows.take(pa.array(order)).combine_chunks()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"run-{len(self._runs):06d}.arrow"
        with pa.ipc.new_file(str(path), rows.schema) as sink:
            sink.write_table(rows)
        self._runs.append(path)

    def discard(self) -> None:
        """Forget all rows, and free their place on the disk."""
        for path in self._runs:
            path.unlink(missing_ok=True)
        self._runs, self._waiting, self._waiting_bytes = [], [], 0
        self.num_rows = self.num_bytes = 0

    def num_nulls(self, column: str) -> int:
        """Return how many settled rows have no value there."""
        return sum(rows[column].null_count for rows, _ in self._opened())

    def days(self, day_ms: int) -> list[int]:
        """Return the days (since the epoch) that keys in milliseconds fall on, sorted."""
        found: set[int] = set()
        for _, keys in self._opened():
            found.update(np.unique(keys // day_ms).tolist())
        return sorted(found)

    def whole(self) -> KeyRange | None:
        """Return the range of all keys; None without rows."""
        if not self._runs:
            return None
        ends = [(int(keys[0]), int(keys[-1])) for _, keys in self._opened()]
        return KeyRange(min(low for low, _ in ends), max(high for _, high in ends))

    def slices(self, keys: KeyRange, max_rows: int) -> Iterator[KeyRange]:
        """Yield ranges in order that have rows, each at most `max_rows` where it can be halved.

        The ranges depend on the rows alone, and not on how they were given.
        """
        count = sum(end - start for start, end in self._bounds_of(keys))
        if count == 0:
            return
        if count <= max_rows or keys.first == keys.last:
            yield keys
            return
        middle = (keys.first + keys.last) // 2
        yield from self.slices(KeyRange(keys.first, middle), max_rows)
        yield from self.slices(KeyRange(middle + 1, keys.last), max_rows)

    def read(self, keys: KeyRange) -> pa.Table:
        """Return the rows of a range, run after run, each by key and then as they were given."""
        return pa.concat_tables(
            rows.slice(start, end - start)
            for rows, found in self._opened()
            for start, end in [_bounds(found, keys)]
        )

    def _bounds_of(self, keys: KeyRange) -> list[tuple[int, int]]:
        return [_bounds(found, keys) for _, found in self._opened()]

    def _opened(self) -> Iterator[tuple[pa.Table, Ints]]:
        """Yield each run's rows and keys, mapped anew, so that nothing stays in memory."""
        for path in self._runs:
            with pa.memory_map(str(path)) as source:
                rows = pa.ipc.open_file(source).read_all()
            yield rows, np.asarray(rows[self._key])


def _content_bytes(rows: pa.Table) -> int:
    return sum(_bytes_of(column) for column in rows.columns)


def _bytes_of(column: pa.ChunkedArray) -> int:
    """Return the bytes of a column's values, without what depends on its chunks."""
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and pa.types.is_primitive(kind.value_type):
        return len(column) * kind.list_size * kind.value_type.bit_width // 8
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return 4 * len(column) + _bytes_of(pc.list_flatten(column))
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return 4 * len(column) + (pc.sum(pc.binary_length(column)).as_py() or 0)
    if pa.types.is_primitive(kind):
        return len(column) * kind.bit_width // 8
    return int(column.nbytes)


def _bounds(found: Ints, keys: KeyRange) -> tuple[int, int]:
    """Return the first row of a range, and the one after its last."""
    first = np.searchsorted(found, keys.first, side="left")
    return int(first), int(np.searchsorted(found, keys.last, side="right"))
