"""Read the event log: Parquet files at any pyarrow filesystem URI, only rows known before as_of.

    <uri>/impressions/day=YYYY-MM-DD/*.parquet    by the day of impressed_at (UTC)
    <uri>/actions/day=YYYY-MM-DD/*.parquet        by the day of acted_at (UTC)
    <uri>/pins/*.parquet, <uri>/users/*.parquet

The day of a partition is the day on which its rows *happened*; their `known_at` may be days later.
So the time of the event alone decides which partitions are read, and `known_at` decides which of
their rows are kept. Not for the meaning of rows (`pipelines.snapshot`) nor for making an event log
(`pipelines.sources`).
"""

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.contracts.time import DAY_MS
from pipelines.event_log import checks
from pipelines.event_log.findings import Finding, require_none
from pipelines.places import store_errors
from pipelines.storage import open_filesystem, translated_errors

log = logging.getLogger(__name__)

EVENT_TIME_COLUMNS = {"impressions": "impressed_at", "actions": "acted_at"}
"""The column whose UTC day is the day of a row's partition."""

FUTURE_DAYS_CHECKED = 7
"""Partitions this many days past as_of are searched for rows that claim to be known already."""

_DAY_FOLDER = re.compile(r"/day=(\d{4}-\d{2}-\d{2})/")
_FIRST_DAY, _LAST_DAY = date(2000, 1, 1), date(2100, 1, 1)


@dataclass(frozen=True)
class LogFile:
    """One Parquet file of the event log."""

    table: str
    path: str  # on the event log's filesystem
    day: date | None  # the partition's day; None for tables without partitions
    num_bytes: int
    modified_at: datetime | None = None  # as the filesystem says, where it says so


@dataclass(frozen=True)
class EventLog:
    """The files of an event log; the value can be pickled, so that workers can read their share."""

    uri: str
    files: tuple[LogFile, ...]

    def files_of(self, table: str) -> tuple[LogFile, ...]:
        """Return a table's files, sorted by path."""
        return tuple(file for file in self.files if file.table == table)

    def files_between(self, table: str, start_ms: int, end_ms: int) -> tuple[LogFile, ...]:
        """Return the files whose day touches [start_ms, end_ms) of the event's time."""
        first, last = day_of(start_ms), day_of(end_ms - 1)
        return tuple(f for f in self.files_of(table) if f.day and first <= f.day <= last)

    def span(self, table: str) -> tuple[date, date]:
        """Return the first and the last day of a partitioned table."""
        days = [file.day for file in self.files_of(table) if file.day]
        return min(days), max(days)


@dataclass(frozen=True)
class EventFilter:
    """Which rows of impressions or actions are wanted, and which of their columns."""

    as_of_ms: int  # wanted rows have known_at < as_of_ms
    start_ms: int  # and start_ms <= the event's time < end_ms
    end_ms: int
    extra_columns: tuple[str, ...] = ()  # features that the recipe declares beyond the schema
    action_types: tuple[str, ...] = ()  # the vocabulary that every action must be in


def day_of(time_ms: int) -> date:
    """Return the UTC day of an instant in milliseconds since the epoch."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).date()


def open_event_log(uri: str) -> EventLog:
    """List an event log's files.

    Raises:
        DataContractError: the log or a table of it is missing or empty, or a day is implausible.
        TransientStorageError: the storage failed.
    """
    event_log, problems = find_event_log(uri)
    require_none(problems)
    return event_log


def find_event_log(uri: str) -> tuple[EventLog, tuple[Finding, ...]]:
    """List an event log's files, and what is wrong with where they lie.

    Returns:
        The files that lie where they should, and one finding for each table that is missing and
        each file in no folder of a plausible day.

    Raises:
        DataContractError: the log is missing or empty.
        TransientStorageError: the storage failed.
    """
    filesystem, root = open_filesystem(uri)
    with translated_errors(uri, "listing the event log at"):
        found = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
    if not found:
        raise DataContractError(
            f"no event log at {uri}: the folder is missing or empty; expected the tables "
            f"{sorted(EVENT_LOG_TABLES)}; correct HOMEFEED_EVENT_LOG, or write the sample's log "
            f"with `homefeed ingest completejourney --to {uri}`"
        )
    files: list[LogFile] = []
    problems: list[Finding] = []
    for table in EVENT_LOG_TABLES:
        for entry in _list_table(filesystem, uri, root, table, problems):
            day, problem = _day_of_path(entry.path, table)
            if problem is None:
                files.append(LogFile(table, entry.path, day, entry.size or 0, entry.mtime))
            else:
                problems.append(problem)
    return EventLog(uri=uri, files=tuple(files)), tuple(problems)


def read_events(event_log: EventLog, file: LogFile, wanted: EventFilter) -> pa.Table:
    """Read the wanted rows of impressions or actions from one file, and check them.

    Returns:
        The schema's columns, then the extra ones.

    Raises:
        DataContractError: the file breaks the contract; the message names it.
    """
    time_column = EVENT_TIME_COLUMNS[file.table]
    assert file.day is not None  # `_day_of_path` lists no event without its day
    is_known = is_before("known_at", wanted.as_of_ms)
    rows = read_rows(event_log, file, wanted.extra_columns, is_known)
    checks.check_times(file.path, rows, time_column)
    checks.check_day(file.path, rows, time_column, file.day)
    if file.table == "actions":
        checks.check_vocabulary(file.path, rows, wanted.action_types)
    else:
        checks.check_propensities(file.path, rows)
    when = ds.field(time_column)
    return rows.filter((when >= wanted.start_ms) & (when < wanted.end_ms))


def is_before(time_column: str, end_ms: int) -> ds.Expression:
    """Return a filter for the rows whose time is before an instant.

    Null and absurd times pass it on purpose: the checks that follow must refuse them, and a filter
    that dropped them would hide them.
    """
    time_ms = ds.field(time_column)
    return (time_ms < end_ms) | time_ms.is_null() | (time_ms >= checks.LATEST_PLAUSIBLE_MS)


def read_rows(
    event_log: EventLog, file: LogFile, extra_columns: Sequence[str], wanted: ds.Expression
) -> pa.Table:
    """Read the wanted rows of one file in the contract's types.

    Returns:
        The columns of the table's schema, then the extra ones.

    Raises:
        DataContractError: a column is missing or of another kind, a value does not fit, or a null
            stands where none may; the message names the file.
    """
    schema = EVENT_LOG_TABLES[file.table]
    dataset = open_file(event_log, file)
    checks.check_columns(file.path, dataset.schema, schema, extra_columns)
    rows = read_file(dataset, file, [*schema.names, *extra_columns], wanted)
    return checks.cast_to_schema(file.path, rows, schema)


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
    dataset: ds.FileSystemDataset, file: LogFile, columns: Sequence[str], num_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield an opened file's rows in their order, in batches, with few of them in memory at a time.

    Raises:
        DataContractError: its pages are damaged.
        TransientStorageError: the storage failed.
    """
    options = ds.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True)
    with _damage_told_from_failure(dataset.filesystem, file):
        yield from dataset.scanner(
            columns=list(columns),
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
            with translated_errors(place, "reading"):
                _read_to_the_end(filesystem, file.path)
            reason = " ".join(str(error).split())[:300]
            raise DataContractError(
                f"{file.table}: {file.path} is not a readable Parquet file ({reason}); "
                f"write the file again or remove it"
            ) from error
        with translated_errors(place, "reading"):
            raise


def _read_to_the_end(filesystem: fs.FileSystem, path: str) -> None:
    with filesystem.open_input_stream(path) as stream:
        while stream.read(1 << 20):
            pass


def _list_table(
    filesystem: fs.FileSystem, uri: str, root: str, table: str, problems: list[Finding]
) -> list[fs.FileInfo]:
    """Return a table's Parquet files, sorted by path, without hidden and unfinished ones."""
    selector = fs.FileSelector(f"{root}/{table}", recursive=True, allow_not_found=True)
    with translated_errors(f"{uri}/{table}", "listing"):
        found = filesystem.get_file_info(selector)
    files = [
        entry
        for entry in sorted(found, key=lambda entry: entry.path)
        if entry.type == fs.FileType.File
        and entry.base_name.endswith(".parquet")
        and entry.base_name[0] not in "._"
    ]
    if not files:
        problem = Finding(
            "missing_table",
            "",
            f"event log at {uri} has no table {table!r} (no .parquet file below {table}/)",
            f"the tables {sorted(EVENT_LOG_TABLES)}",
            "add the table, or correct HOMEFEED_EVENT_LOG",
            table=table,
        )
        problems.append(problem)
    return files


def _day_of_path(path: str, table: str) -> tuple[date | None, Finding | None]:
    """Return the day in a path's day=... folder, or what is wrong with it.

    The day is None for a table without partitions.
    """
    if table not in EVENT_TIME_COLUMNS:
        return None, None
    match = _DAY_FOLDER.search(path)
    try:
        day = date.fromisoformat(match[1]) if match else None
    except ValueError:
        day = None
    if day is None:
        return None, Finding(
            "no_day_folder",
            "",
            f"{table}: {path} is not in a day=YYYY-MM-DD folder",
            f"{table}/day=.../*.parquet",
            f"partition the table by the UTC day of {EVENT_TIME_COLUMNS[table]}",
            table=table,
            key=path,
        )
    if not _FIRST_DAY <= day < _LAST_DAY:
        return None, Finding(
            "implausible_day",
            "",
            f"{table}: partition {path} is of the year {day.year}",
            f"{_FIRST_DAY.year}-{_LAST_DAY.year}",
            "were times written in seconds or microseconds instead of milliseconds? correct the "
            "writer and write the partition again",
            table=table,
            key=path,
        )
    return day, None
