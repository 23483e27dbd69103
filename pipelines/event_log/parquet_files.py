"""Opens the event log's Parquet files and reads rows of them, from a disk or from a store.

A damaged file, which no retry helps, is told from failing storage. Not for what the rows must be
(`reader`, `rules`), nor for which files there are (`log_files`). Tested in
tests/pipelines/event_log/test_reader.py.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.time import LATEST_MS
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.places import store_errors
from pipelines.plain_text import shortened
from pipelines.storage import open_filesystem, translated_errors

Parts = list[list[pa.RecordBatch]]
"""Rows of some files, by file."""

CODED_TEXT = pa.dictionary(pa.int32(), pa.string())

_BATCH_ROWS = 1 << 17
"""Rows of a file on a disk that are looked at together."""

_BYTES_OF_REPEATED, _FEW_BYTES = 4, 64 << 10
"""A column of text that takes as many bytes a row at most, or that is small, has few texts."""


def is_before(time_column: str, end_ms: int) -> ds.Expression:
    """Return a filter for the rows whose time is before an instant.

    Null and absurd times pass it on purpose: the checks that follow must refuse them, and a filter
    that dropped them would hide them.
    """
    time_ms = ds.field(time_column)
    return (time_ms < end_ms) | time_ms.is_null() | (time_ms >= LATEST_MS)


class Wanted(Protocol):
    """Which rows are wanted, of a scan and of rows that are in memory."""

    @property
    def expression(self) -> ds.Expression:
        """The filter for a scan."""

    def of(self, parts: Iterable[Iterable[pa.RecordBatch]]) -> Parts:
        """Return the wanted rows of some files; where all are, nothing is copied."""


@dataclass(frozen=True)
class Before:
    """The rows whose time is before an instant, as `is_before` says."""

    time_column: str
    end_ms: int

    @property
    def expression(self) -> ds.Expression:
        """The filter for a scan."""
        return is_before(self.time_column, self.end_ms)

    def of(self, parts: Iterable[Iterable[pa.RecordBatch]]) -> Parts:
        """Return the rows that pass. Mostly all do, so all files' are looked at once together."""
        found = [list(part) for part in parts]
        batches = [batch for part in found for batch in part]
        if not batches or not pc.any(self._are_late(pa.Table.from_batches(batches))).as_py():
            return found
        return [[self._early(batch) for batch in part] for part in found]

    def _are_late(self, rows: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
        return pc.greater_equal(rows[self.time_column], self.end_ms)

    def _early(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        is_absurd = pc.greater_equal(rows[self.time_column], LATEST_MS)
        is_early = pc.or_(pc.invert(self._are_late(rows)), is_absurd)
        return rows.filter(pc.fill_null(is_early, True))


@dataclass(frozen=True)
class Among:
    """The rows whose id is one of some. A null passes too, so that the checks can refuse it."""

    column: str
    ids: pa.Array

    @property
    def expression(self) -> ds.Expression:
        """The filter for a scan."""
        return ds.field(self.column).isin(self.ids) | ds.field(self.column).is_null()

    def of(self, parts: Iterable[Iterable[pa.RecordBatch]]) -> Parts:
        """Return the rows that pass, batch by batch, because far more may not."""
        return [[self._some(batch) for batch in part] for part in parts]

    def _some(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        found = pc.is_in(rows[self.column], value_set=self.ids)
        is_wanted = pc.or_(found, pc.is_null(rows[self.column]))
        return rows if pc.all(is_wanted).as_py() else rows.filter(is_wanted)


class OpenFiles(Protocol):
    """Files of one table whose columns are of the same types."""

    schema: pa.Schema

    def read(self, names: list[str], wanted: Wanted) -> Parts:
        """Return the wanted rows.

        Args:
            names: of columns, in the files' order; among them is all that `wanted` looks at.
            wanted: which rows.
        """


class _OnDisk:
    """Files of a disk, read by the thread that asks, because other threads read other files.

    A scanner reads ahead in threads of its own. That pays where a store answers late; on a disk
    these threads take the cores from the other readers. One file is open at a time.
    """

    def __init__(self, files: Sequence[LogFile], coded: Sequence[str]) -> None:
        self._files = files
        with _open_on_disk(files[0].path, ()) as first:
            _check_each_once(files[0], first.schema_arrow)
            self._coded = _repeated(first.metadata, coded)
        with _open_on_disk(files[0].path, self._coded) as first:
            self.schema = first.schema_arrow

    def read(self, names: list[str], wanted: Wanted) -> Parts:
        return wanted.of(self._rows(file, names) for file in self._files)

    def _rows(self, file: LogFile, names: list[str]) -> Iterator[pa.RecordBatch]:
        with _open_on_disk(file.path, self._coded) as opened:
            _check_same_columns(file, opened.schema_arrow, self._files[0].path, self.schema)
            yield from opened.iter_batches(_BATCH_ROWS, columns=names, use_threads=False)


def _open_on_disk(path: str, coded: Sequence[str]) -> pq.ParquetFile:
    # Fetching bytes before they are needed, in other threads, pays where a store answers late.
    try:
        return pq.ParquetFile(path, pre_buffer=False, read_dictionary=list(coded))
    except KeyError:  # One of them is missing, which whoever checks the columns tells.
        return pq.ParquetFile(path, pre_buffer=False)


def _repeated(metadata: pq.FileMetaData, names: Sequence[str]) -> list[str]:
    """Return the columns that take a few bytes a row, because few texts are repeated in them.

    The others would take more as dictionaries: each batch of rows has one of its own.
    """
    sizes: dict[str, int] = {}
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            size = sizes.get(column.path_in_schema, 0) + column.total_uncompressed_size
            sizes[column.path_in_schema] = size
    most = _BYTES_OF_REPEATED * metadata.num_rows + _FEW_BYTES
    return [name for name in names if sizes.get(name, most + 1) <= most]


def _check_each_once(file: LogFile, found: pa.Schema) -> None:
    for name in found.names:
        if found.names.count(name) > 1:
            raise DataContractError(
                f"{file.table}: {file.path} has the column {name!r} {found.names.count(name)} "
                f"times; expected each column once; write the file again without the others"
            )


class _InStore:
    """Files of a store, which a scanner asks for before they are needed."""

    def __init__(self, files: Sequence[LogFile], filesystem: fs.FileSystem) -> None:
        paths = [file.path for file in files]
        self._dataset = ds.dataset(paths, format="parquet", filesystem=filesystem)
        self.schema = self._dataset.schema
        found = {each.path: each for each in self._dataset.get_fragments()}
        self._fragments = [found[path] for path in paths]
        if len(files) > 1:
            for file, each in zip(files, self._fragments, strict=True):
                _check_same_columns(file, each.physical_schema, paths[0], self.schema)

    def read(self, names: list[str], wanted: Wanted) -> Parts:
        parts: dict[str, list[pa.RecordBatch]] = {each.path: [] for each in self._fragments}
        scanner = self._dataset.scanner(columns=names, filter=wanted.expression, use_threads=False)
        for part in scanner.scan_batches():
            parts[part.fragment.path].append(part.record_batch)
        return list(parts.values())


def _check_same_columns(file: LogFile, found: pa.Schema, first: str, expected: pa.Schema) -> None:
    if not found.equals(expected):
        raise DataContractError(
            f"{file.table}: {file.path} has other columns than {first}; expected the same of files "
            f"that are read together; read them one by one"
        )


@contextlib.contextmanager
def open_together(
    event_log: EventLog, files: Sequence[LogFile], coded: Sequence[str] = ()
) -> Iterator[OpenFiles]:
    """Open files whose columns are of the same types, as long as their rows are read.

    Args:
        event_log: the log.
        files: some of one table.
        coded: columns of text that may come as CODED_TEXT. Parquet stores them so, and a column in
            which a few texts are repeated takes half the time.

    Raises:
        DataContractError: one is not a readable Parquet file, or they differ in their columns.
        TransientStorageError: the storage failed.
    """
    filesystem, _ = open_filesystem(event_log.uri)
    with _damage_told_from_failure(filesystem, files[0]):
        if filesystem.type_name == "local":
            yield _OnDisk(files, coded)
        else:
            yield _InStore(files, filesystem)


def open_file(event_log: EventLog, file: LogFile) -> ds.FileSystemDataset:
    """Open one Parquet file.

    Raises:
        DataContractError: it is not a readable Parquet file.
        TransientStorageError: the storage failed.
    """
    filesystem, _ = open_filesystem(event_log.uri)
    with _damage_told_from_failure(filesystem, file):
        return ds.dataset(file.path, format="parquet", filesystem=filesystem)


def read_file(
    dataset: ds.FileSystemDataset,
    file: LogFile,
    columns: Sequence[str],
    wanted: ds.Expression | None,
) -> pa.Table:
    """Read columns of an opened file, in this thread alone, because a worker has one core.

    Raises:
        DataContractError: its pages are damaged.
        TransientStorageError: the storage failed.
    """
    with _damage_told_from_failure(dataset.filesystem, file):
        return dataset.to_table(columns=list(columns), filter=wanted, use_threads=False)


def iterate_batches(
    dataset: ds.FileSystemDataset,
    file: LogFile,
    columns: Sequence[str],
    num_rows: int,
    wanted: ds.Expression | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield an opened file's rows in their order, in batches, with few of them in memory at a time.

    Args:
        dataset: The opened file.
        file: What it is, for a message.
        columns: What is read.
        num_rows: Rows of a batch, at most.
        wanted: Which rows; None takes all.

    Raises:
        DataContractError: its pages are damaged.
        TransientStorageError: the storage failed.
    """
    options = ds.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True)
    with _damage_told_from_failure(dataset.filesystem, file):
        yield from dataset.scanner(
            columns=list(columns),
            filter=wanted,
            batch_size=num_rows,
            batch_readahead=1,
            fragment_readahead=1,
            fragment_scan_options=options,
            use_threads=False,
        ).to_batches()


def count_rows(dataset: ds.FileSystemDataset, file: LogFile, wanted: ds.Expression) -> int:
    """Return how many rows of an opened file are wanted.

    Raises:
        DataContractError: its pages are damaged.
        TransientStorageError: the storage failed.
    """
    with _damage_told_from_failure(dataset.filesystem, file):
        return int(dataset.count_rows(filter=wanted))


@contextlib.contextmanager
def _damage_told_from_failure(filesystem: fs.FileSystem, file: LogFile) -> Iterator[None]:
    """Raise for a damaged file, which no retry helps, another error than for failing storage.

    Arrow reports both as the same OSError without a number. Where its words do not say that it was
    the store, the bytes are read: those of a damaged file can be read to their end, and those of
    failing storage cannot.
    """
    place = f"s3://{file.path}" if filesystem.type_name == "s3" else file.path
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        is_told = isinstance(error, OSError) and store_errors.is_from_store(error)
        if isinstance(error, pa.ArrowInvalid) or (error.errno is None and not is_told):
            with (
                translated_errors(place, "reading"),
                filesystem.open_input_stream(file.path) as stream,
            ):
                while stream.read(1 << 20):
                    pass
            reason = shortened(" ".join(str(error).split()), 300)
            raise DataContractError(
                f"{file.table}: {file.path} is not a readable Parquet file ({reason}); "
                f"write the file again or remove it"
            ) from error
        with translated_errors(place, "reading"):
            raise
