"""Read the event log: Parquet files at any pyarrow filesystem URI, only rows known before as_of.

Where its files lie is in `log_files`. The day of a partition is the day on which its rows
*happened*; their `known_at` may be days later. So the time of the event alone decides which
partitions are read, and `known_at` decides which of their rows are kept. Not for the meaning of
rows (`pipelines.snapshot`) nor for making an event log (`pipelines.sources`).
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_TIME, contract_of
from pipelines.contracts.time import DAY_MS
from pipelines.event_log import checks
from pipelines.event_log.cross_rules import pin_times_in_some
from pipelines.event_log.findings import Finding
from pipelines.event_log.log_files import EVENT_TIME_COLUMNS, EventLog, LogFile, day_of
from pipelines.places import store_errors
from pipelines.plain_text import shortened
from pipelines.storage import open_filesystem, translated_errors

log = logging.getLogger(__name__)

FUTURE_DAYS_CHECKED = 7
"""Partitions this many days past as_of are searched for rows that claim to be known already."""


@dataclass(frozen=True)
class EventFilter:
    """Which rows of impressions or actions are wanted, and which of their columns."""

    as_of_ms: int  # wanted rows have known_at < as_of_ms
    start_ms: int  # and start_ms <= the event's time < end_ms
    end_ms: int
    extra_columns: tuple[str, ...] = ()  # features that the recipe declares beyond the schema
    number_columns: tuple[str, ...] = ()  # those of them that are numbers
    columns: tuple[str, ...] = ()  # of the schema; all where none is named
    action_types: tuple[str, ...] = ()  # the vocabulary that every action must be in


@dataclass(frozen=True)
class ReadEvents:
    """Checked rows of some files, by file in the files' order."""

    rows: pa.Table
    num_known: tuple[int, ...]  # of each file's rows, those known before as_of, whenever they were
    num_stored: tuple[int, ...]  # rows in each file


def read_events(event_log: EventLog, files: Sequence[LogFile], wanted: EventFilter) -> pa.Table:
    """Read the wanted rows of impressions or actions from some files of a table, and check them.

    Many small files are read and checked as one, which takes a fraction of the time. A message
    then names the first of them: whoever is told that something is wrong reads them one by one.

    Returns:
        The schema's columns, or those of them that are wanted, then the extra ones.

    Raises:
        DataContractError: a file breaks the contract, or several have columns of different types;
            the message names the file where it is the only one.
    """
    return read_and_count(event_log, files, wanted).rows


def read_and_count(
    event_log: EventLog, files: Sequence[LogFile], wanted: EventFilter
) -> ReadEvents:
    """Do what `read_events` does, and say how many rows of each file are known.

    Raises:
        DataContractError: see `read_events`.
    """
    path, table = files[0].path, files[0].table
    time_column = EVENT_TIME_COLUMNS[table]
    dataset = _open_files(event_log, files)
    is_known, before = is_before("known_at", wanted.as_of_ms), _Before("known_at", wanted.as_of_ms)
    scan = _Scan(wanted.extra_columns, is_known, wanted.number_columns, wanted.columns, before)
    rows, num_rows = scan.read(dataset, files)
    checks.check_times(path, rows, time_column)
    _check_days(rows[time_column], files, num_rows)
    if table == "actions":
        checks.check_vocabulary(path, rows, wanted.action_types)
    elif "propensity" in rows.column_names:
        checks.check_propensities(path, rows)
    when = np.asarray(rows[time_column])
    is_wanted = (when >= wanted.start_ms) & (when < wanted.end_ms)
    rows = rows if is_wanted.all() else rows.filter(pa.array(is_wanted))
    stored = {each.path: each.metadata.num_rows for each in dataset.get_fragments()}
    return ReadEvents(rows, tuple(num_rows), tuple(stored[file.path] for file in files))


def _check_days(times: pa.ChunkedArray, files: Sequence[LogFile], num_rows: Sequence[int]) -> None:
    """Check that each file's rows lie in the day of its partition."""
    low_high, start = np.asarray(times), 0
    for file, count in zip(files, num_rows, strict=True):
        assert file.day is not None  # `_day_of_path` lists no event without its day
        of_file = low_high[start : start + count]
        if count and not day_of(int(of_file.min())) == file.day == day_of(int(of_file.max())):
            name = EVENT_TIME_COLUMNS[file.table]
            checks.check_day(file.path, pa.table({name: of_file}), name, file.day)
        start += count


def is_before(time_column: str, end_ms: int) -> ds.Expression:
    """Return a filter for the rows whose time is before an instant.

    Null and absurd times pass it on purpose: the checks that follow must refuse them, and a filter
    that dropped them would hide them.
    """
    time_ms = ds.field(time_column)
    return (time_ms < end_ms) | time_ms.is_null() | (time_ms >= checks.LATEST_PLAUSIBLE_MS)


@dataclass(frozen=True)
class _Before:
    """The filter of `is_before`, also for rows that are in memory."""

    time_column: str
    end_ms: int

    def of(self, rows: pa.Table) -> pa.Table:
        """Return the rows that pass; mostly all do, and then nothing is copied."""
        time_ms = rows[self.time_column]
        is_late = pc.greater_equal(time_ms, self.end_ms)
        if not pc.any(is_late).as_py():
            return rows
        is_absurd = pc.greater_equal(time_ms, checks.LATEST_PLAUSIBLE_MS)
        return rows.filter(pc.fill_null(pc.or_(pc.invert(is_late), is_absurd), True))


def read_rows(
    event_log: EventLog,
    file: LogFile,
    extra_columns: Sequence[str],
    wanted: ds.Expression,
    number_columns: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> pa.Table:
    """Read the wanted rows of one file in the contract's types.

    Args:
        event_log: The log.
        file: One of its files.
        extra_columns: What is read beyond the schema, as text.
        wanted: Which rows.
        number_columns: What is read beyond the schema, as numbers.
        columns: Of the schema, those that are read; all of them where none is named.

    Returns:
        The columns of the table's schema, PIN_TIME where pins have it, then the extra ones and the
        numbers, each once. Embeddings are as they are in the file; `embedding_matrix` reads
        them.

    Raises:
        DataContractError: a column is missing or of another kind, a value does not fit, or a null
            stands where none may; the message names the file.
    """
    scan = _Scan(extra_columns, wanted, number_columns, columns)
    rows, _ = scan.read(open_file(event_log, file), [file])
    return rows


@dataclass(frozen=True)
class _Scan:
    """What is read of some files, as the arguments of `read_rows` say."""

    extra_columns: Sequence[str]
    wanted: ds.Expression
    number_columns: Sequence[str]
    columns: Sequence[str]
    before: _Before | None = None  # the same as `wanted`, where that is a time

    def read(
        self, dataset: ds.FileSystemDataset, files: Sequence[LogFile]
    ) -> tuple[pa.Table, Sequence[int]]:
        """Return the rows of opened files in the contract's types, and the number of each file's.

        Raises:
            DataContractError: see `read_rows`; the first file is named.
        """
        path = files[0].path
        schema = contract_of(files[0].table, dataset.schema.names)
        extra, numbers = self.extra_columns, self.number_columns
        checks.check_columns(path, dataset.schema, schema, extra, numbers)
        names = list(dict.fromkeys((*(self.columns or schema.names), *extra, *numbers)))
        with _damage_told_from_failure(dataset.filesystem, files[0]):
            if self.before is not None and dataset.filesystem.type_name == "local":
                parts = _read_from_disk(files, names, self.before)
            else:
                parts = _scan(dataset, files, names, self.wanted)
        found = pa.schema([dataset.schema.field(name) for name in names])
        rows = pa.Table.from_batches([batch for part in parts for batch in part], found)
        num_rows = [sum(map(len, part)) for part in parts]
        return checks.cast_to_schema(path, rows, schema), num_rows


def _read_from_disk(
    files: Sequence[LogFile], names: list[str], wanted: _Before
) -> list[list[pa.RecordBatch]]:
    """Return the wanted rows of each file, read in this thread alone, because others read others.

    A scanner reads ahead in threads of its own. That pays where a store answers late; on a disk
    these threads take the cores from the other readers.
    """
    parts = []
    for file in files:
        with pq.ParquetFile(file.path) as opened:
            rows = opened.read(columns=names, use_threads=False).select(names)
        parts.append(wanted.of(rows).to_batches())
    return parts


def _scan(
    dataset: ds.FileSystemDataset, files: Sequence[LogFile], names: list[str], wanted: ds.Expression
) -> list[list[pa.RecordBatch]]:
    """Return the wanted rows of each file."""
    parts: dict[str, list[pa.RecordBatch]] = {file.path: [] for file in files}
    scanner = dataset.scanner(columns=names, filter=wanted, use_threads=False)
    for part in scanner.scan_batches():
        parts[part.fragment.path].append(part.record_batch)
    return list(parts.values())


def pin_time_problems(event_log: EventLog) -> Iterator[Finding]:
    """Yield what is said of pins of which some files have PIN_TIME, and others not.

    A file that cannot be read says nothing here; whoever reads its rows tells of it.
    """
    has_times: dict[str, bool] = {}
    for file in event_log.files_of("pins"):
        with contextlib.suppress(DataContractError):
            has_times[file.path] = PIN_TIME.name in open_file(event_log, file).schema.names
    with_times = [path for path, has_time in has_times.items() if has_time]
    yield from pin_times_in_some(with_times, [p for p in has_times if p not in with_times])


def check_nothing_from_the_future(event_log: EventLog, table: str, as_of_ms: int) -> None:
    """Refuse rows that happen at or after as_of and claim to be known before it.

    Only the files of the next days are searched, and only by these two columns. A snapshot as of
    now needs nothing else from those files, so an unreadable one is passed over.

    Raises:
        DataContractError: there is such a row; the message names its file.
    """
    end_ms = as_of_ms + FUTURE_DAYS_CHECKED * DAY_MS
    time_column = EVENT_TIME_COLUMNS[table]
    for file in event_log.files_between(table, as_of_ms, end_ms):
        is_early = (ds.field("known_at") < as_of_ms) & (ds.field(time_column) >= as_of_ms)
        try:
            dataset = open_file(event_log, file)
            types = {field.name: field.type for field in dataset.schema}
            if types.get("known_at") != pa.int64() or types.get(time_column) != pa.int64():
                continue
            num_early = count_rows(dataset, file, is_early)
        except DataContractError as error:
            log.warning("not searched for future events: %s", error)
            continue
        if num_early:
            raise DataContractError(
                f"{table}: {num_early} rows of {file.path} happen at or after as_of "
                f"{day_of(as_of_ms)} though their known_at is before it; expected known_at >= "
                f"{time_column}; correct the clock or the column that filled {time_column}"
            )


def open_file(event_log: EventLog, file: LogFile) -> ds.FileSystemDataset:
    """Open one Parquet file.

    Raises:
        DataContractError: it is not a readable Parquet file.
        TransientStorageError: the storage failed.
    """
    filesystem, _ = open_filesystem(event_log.uri)
    with _damage_told_from_failure(filesystem, file):
        return ds.dataset(file.path, format="parquet", filesystem=filesystem)


def _open_files(event_log: EventLog, files: Sequence[LogFile]) -> ds.FileSystemDataset:
    """Open files whose columns are of the same types.

    Raises:
        DataContractError: one is not a readable Parquet file, or they differ in their columns.
        TransientStorageError: the storage failed.
    """
    if len(files) == 1:
        return open_file(event_log, files[0])
    filesystem, _ = open_filesystem(event_log.uri)
    with _damage_told_from_failure(filesystem, files[0]):
        paths = [file.path for file in files]
        dataset = ds.dataset(paths, format="parquet", filesystem=filesystem)
        for fragment in dataset.get_fragments():
            if not fragment.physical_schema.equals(dataset.schema):
                raise DataContractError(
                    f"{files[0].table}: {fragment.path} has other columns than {paths[0]}; "
                    f"expected the same of files that are read together; read them one by one"
                )
    return dataset


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
