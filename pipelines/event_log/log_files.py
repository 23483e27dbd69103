"""The files of an event log: which there are, of which day, and what is wrong with where they lie.

    <uri>/impressions/day=YYYY-MM-DD/*.parquet    by the day of impressed_at (UTC)
    <uri>/actions/day=YYYY-MM-DD/*.parquet        by the day of acted_at (UTC)
    <uri>/pins/*.parquet, <uri>/users/*.parquet
    <uri>/record/*.json                           where a writer of ours made the log: its files

Not for their rows (`reader`), nor for what the files were when a snapshot was built (`listing`).
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pyarrow import fs

from pipelines.contracts.errors import ConfigurationError, DataContractError, TransientStorageError
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.event_log.record import WRITERS_FILE, EventLogRecord, read_record
from pipelines.event_log.rules import EVENT_TIME_COLUMNS, Finding, finding, require_none
from pipelines.storage import join, list_entries, open_filesystem

_DAY_FOLDER = re.compile(r"/day=(20\d{2}-\d{2}-\d{2})/")
_TABLE_FOLDERS = tuple(f"{table}/" for table in EVENT_LOG_TABLES)
EPOCH = date(1970, 1, 1)


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
    record: EventLogRecord | None = None  # What its maker says, but for the names of files.

    def files_of(self, table: str) -> tuple[LogFile, ...]:
        """Return a table's files, sorted by path."""
        return tuple(file for file in self.files if file.table == table)

    def name_of(self, file: LogFile) -> str:
        """Return a file's path below the log, as its record has it."""
        return file.path.removeprefix(open_filesystem(self.uri)[1]).lstrip("/")

    def files_between(self, table: str, start_ms: int, end_ms: int) -> tuple[LogFile, ...]:
        """Return the files whose day touches [start_ms, end_ms) of the event's time."""
        first, last = day_of(start_ms), day_of(end_ms - 1)
        return tuple(f for f in self.files_of(table) if f.day and first <= f.day <= last)

    def span(self, table: str) -> tuple[date, date]:
        """Return the first and the last day of a partitioned table."""
        days = [file.day for file in self.files_of(table) if file.day]
        return min(days), max(days)


def day_of(time_ms: int) -> date:
    """Return the UTC day of an instant in milliseconds since the epoch."""
    return EPOCH + timedelta(milliseconds=time_ms)  # of which a date takes the whole days


def open_event_log(uri: str) -> EventLog:
    """List an event log's files.

    Raises:
        DataContractError: the log or a table of it is missing or empty, or a day is implausible;
            the log is not finished, or its files are not those that its record names.
        TransientStorageError: the storage failed.
    """
    event_log, problems = find_event_log(uri)
    require_none(problems)
    return event_log


def find_event_log(uri: str) -> tuple[EventLog, tuple[Finding, ...]]:
    """List the files of an event log that lie where they should, and what is wrong with others.

    There is one finding for each table that is missing and each file in no folder of a plausible
    day.

    Raises:
        DataContractError: the log is missing, empty or not finished, or files lack.
        TransientStorageError: the storage failed.
    """
    _, root = open_filesystem(uri)
    if not list_entries(uri):
        raise DataContractError(
            f"no event log at {uri}: the folder is missing or empty; expected the tables "
            f"{sorted(EVENT_LOG_TABLES)}; correct HOMEFEED_EVENT_LOG, or write the sample's log "
            f"with `homefeed ingest completejourney --to {uri}`"
        )
    # The record comes before the list: files that are added in between are then passed over.
    record = read_record(uri)
    if record is not None and not record.files:
        raise DataContractError(
            f"the event log at {uri} is not finished: a first writer is at work there, or was cut "
            f"off; expected a finished log; wait, or run again what wrote it"
        )
    files: list[LogFile] = []
    problems: list[Finding] = []
    for table in EVENT_LOG_TABLES:
        entries = _list_table(uri, table)
        if not entries:
            problems.append(finding("missing_table", table=table, uri=uri))
        for entry in entries:
            day, when = None, EVENT_TIME_COLUMNS.get(table)
            if when and (match := _DAY_FOLDER.search(entry.path)):
                with contextlib.suppress(ValueError):
                    day = date.fromisoformat(match[1])
            if when and day is None:
                told = {"table": table, "path": entry.path, "when": when}
                problems.append(finding("no_day_folder", **told))
            else:
                files.append(LogFile(table, entry.path, day, entry.size or 0, entry.mtime))
    if record is not None:
        files = _named_by_record(uri, root, files, record)
    said = record and record.model_copy(update={"files": {}, "dropped": {}, "batches": ()})
    return EventLog(uri=uri, files=tuple(files), record=said), tuple(problems)


@contextlib.contextmanager
def unchanged_meanwhile(event_log: EventLog, files: Sequence[LogFile]) -> Iterator[None]:
    """Let a block read files of a log, and refuse what it did where one was written meanwhile.

    A file that takes another's place while it is read looks damaged at worst, and at best gives
    rows that the list of files knows nothing of. Files that come in addition are no change.

    Raises:
        TransientStorageError: a file is another than was listed; the message names it.
    """
    refused: DataContractError | ConfigurationError | None = None
    try:
        yield
    except (DataContractError, ConfigurationError) as error:
        refused = error
    tables = {file.table for file in files}
    listed = [entry for table in tables for entry in _list_table(event_log.uri, table)]
    now = {entry.path: (entry.size or 0, entry.mtime) for entry in listed}
    changed = [each for each in files if now.get(each.path) != (each.num_bytes, each.modified_at)]
    if changed:
        raise TransientStorageError(
            f"the event log at {event_log.uri} changed while it was read: {changed[0].path} was "
            f"written or removed ({len(changed)} such files); expected its files to stay for as "
            f"long as they are read; let the writer finish, then retry"
        ) from refused
    if refused is not None:
        raise refused


def _list_table(uri: str, table: str) -> list[fs.FileInfo]:
    """Return a table's Parquet files, sorted by path, without hidden and unfinished ones.

    A name that begins with '.' or '_' says so, of a file or of a folder below the table's: Spark
    writes into `_temporary/` first, and such rows are read once, where they end up.
    """
    _, root = open_filesystem(place := join(uri, table))
    found = list_entries(place, is_recursive=True)
    return [
        entry
        for entry in sorted(found, key=lambda entry: entry.path)
        if entry.is_file
        and entry.base_name.endswith(".parquet")
        and not re.search(r"(^|/)[._]", entry.path.removeprefix(root))
    ]


def _named_by_record(
    uri: str, root: str, files: Sequence[LogFile], record: EventLogRecord
) -> list[LogFile]:
    """Return the files that the log's record names; a killed writer may have left others.

    Raises:
        DataContractError: a file is missing, or one is there that no writer has made.
    """
    by_name = {file.path.removeprefix(root).lstrip("/"): file for file in files}
    named = {name for name in record.files if name.startswith(_TABLE_FOLDERS)}
    missing = sorted(named - set(by_name))
    if missing:
        raise DataContractError(
            f"the event log at {uri} lacks {missing[0]} ({len(missing)} such files), which its "
            f"record names; expected every file of the record; put the file back, or write "
            f"the log anew"
        )
    others = set(by_name) - named - set(record.dropped)
    foreign = sorted(name for name in others if not WRITERS_FILE.fullmatch(name))
    if foreign:
        raise DataContractError(
            f"the event log at {uri} has {foreign[0]} ({len(foreign)} such files), which its "
            f"record does not name; expected only files of the log's writer; give these "
            f"rows to EventLogWriter, or move the file away"
        )
    return [file for name, file in by_name.items() if name in named]
