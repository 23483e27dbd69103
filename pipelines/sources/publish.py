"""How an event log is made and gets to its place: whole or not at all, once, over nothing else.

An adapter, or `EventLogWriter`, makes the tables in an empty local folder and knows nothing of
where they go:

    <log>/impressions, actions/day=YYYY-MM-DD/part-<part>.parquet
    <log>/pins, users/part-<part>.parquet
    <log>/names/users, names/pins/part-<part>.parquet    where ids were made from names
    <log>/event_log.json                                 EventLogRecord; written last
    <log>/ingesting.json              on an object store, while a new log is uploaded: by whom

On a local disk a new folder appears by one rename, when all of it has reached the disk. An older
log keeps its place until the rename before that one; where a kill comes between the two, the next
ingest puts it back. An object store has no rename, so there the files are uploaded one by one, and
a reader refuses the place while `ingesting.json` is there. Where the record is there too, all of
the log is: of an older log the record goes first, and of a new one it comes last. Then only
`ingesting.json` was left behind, and the next writer removes it. Where the record is not there, the
upload was cut off, and the next one deletes what it left.

What is added to a log gets names that nobody reads, and one write of the record then makes all of
it part of the log; files that the new record does not name any more go afterwards. So a kill leaves
the log as before or as after, on every kind of storage. Not for what is in the tables.
"""

import logging
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import deletion, storage
from pipelines.contracts.errors import ConfigurationError, RunInProgressError
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.event_log.reader import name_files
from pipelines.event_log.record import (
    RECORD_FILE,
    UPLOADING_FILE,
    WRITERS_FILE,
    EventLogRecord,
    list_below,
)
from pipelines.event_log.rules import EVENT_TIME_COLUMNS
from pipelines.places import folders
from pipelines.places.conditional import Revision

log = logging.getLogger(__name__)

WRITER = "EventLogWriter"
"""What the record of its log says that it was made by."""


class SourceAdapter(ABC):
    """One source of data. What differs between two logs of it is given to the constructor."""

    version: ClassVar[str]
    """Changes whenever the same data gives another event log; an older log is then made anew."""

    made_of: dict[str, Any]
    """The adapter's name and what it reads or draws, as JSON: a log of anything else stays."""

    @abstractmethod
    def write_tables(self, folder: Path) -> None:
        """Write the tables below a local folder that does not exist yet (`write_table`)."""


@dataclass(frozen=True)
class Existing:
    """A writer's log that is there, with its files; those of names are among them."""

    record: EventLogRecord
    log: EventLog
    seen: Revision  # of the record's file


def write_table(folder: Path, table: str, rows: pa.Table, part: str) -> None:
    """Write rows of a table below a folder, those of events to one file per UTC day that has any.

    Args:
        folder: where the table goes.
        table: its path there, which ends in its name.
        rows: those of events sorted by their time.
        part: what the files are named after; another one for each call about a table and day.
    """
    places = {table: rows}
    if time := EVENT_TIME_COLUMNS.get(Path(table).name):
        days = np.asarray(rows[time]) // DAY_MS
        found = np.unique(days, return_index=True, return_counts=True)
        places = {
            f"{table}/day={date(1970, 1, 1) + timedelta(days=int(day))}": rows.slice(start, count)
            for day, start, count in zip(*found, strict=True)
        }
    for place, some in places.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        # A flipped bit of a page is then found by whoever reads it.
        path = folder / place / f"part-{part}.parquet"
        pq.write_table(some, path, write_page_checksum=True)


def record_of(folder: Path, made_by: str, **more: Any) -> EventLogRecord:
    """Return the record of the files in a folder, with `more` of its fields."""
    paths = (path for table in (*EVENT_LOG_TABLES, "names") for path in (folder / table).rglob("*"))
    files = {
        path.relative_to(folder).as_posix(): pq.read_metadata(path).num_rows
        for path in paths
        if path.suffix == ".parquet"
    }
    return EventLogRecord(made_by=made_by, files=dict(sorted(files.items())), **more)


def ingest(adapter: SourceAdapter, to_location: str) -> EventLogRecord:
    """Write an event log to a path or URI; return at once if it is there already.

    Args:
        adapter: makes the tables.
        to_location: folder of the event log: empty, missing, or written by the same adapter from
            the same input.

    Returns:
        The record of the log that is there now.

    Raises:
        ConfigurationError: the folder holds something else, or the adapter lacks its input.
        RunInProgressError: another ingest writes to the same place.
        TransientStorageError: the storage failed or is full.
    """
    uri = storage.to_uri(to_location)
    with storage.exclusive_lock(uri, f"ingest to {uri}"):
        if (found := _record_at(uri)) is not None:
            if found.made_of != adapter.made_of:
                raise ConfigurationError(
                    f"{uri} holds a log of {found.made_by} that was made of {found.made_of}; "
                    f"expected {adapter.made_of} or an empty folder; choose another --to or delete "
                    f"it"
                )
            if found.made_by == adapter.version:
                log.info("%s is there already", uri)
                return found
            log.info("%s was written by %s; making it anew", uri, found.made_by)
        with storage.scratch_folder(uri.rsplit("/", 1)[0]) as scratch:
            folder = scratch / "event_log"
            with storage.translated_errors(uri, "writing the event log for"):
                adapter.write_tables(folder)
                record = record_of(folder, adapter.version, made_of=adapter.made_of)
            _publish_new(folder, uri, record)
        log.info("wrote %s", uri)
        return record


def find_writers_log(uri: str) -> Existing | None:
    """Return the log that a writer has left at a place; None where there is none yet.

    What killed writers have left there is removed, on an object store when it is old.

    Raises:
        ConfigurationError: something else is there.
        DataContractError: the log's record is damaged, or a file of it is missing.
        TransientStorageError: the storage failed.
    """
    seen = storage.look(storage.join(uri, RECORD_FILE))
    if (record := _record_at(uri)) is None:
        return None
    if record.made_by != WRITER:
        raise ConfigurationError(
            f"{uri} is the event log of the adapter {record.made_by}; expected one of {WRITER}, "
            f"because the adapter makes its log anew; choose another folder"
        )
    log = open_event_log(uri)
    for name in set(list_below(uri, ".parquet")) - set(record.files):
        if WRITERS_FILE.fullmatch(name) and storage.is_abandoned(storage.join(uri, name)):
            deletion.remove(storage.join(uri, name))
    return Existing(record, EventLog(uri, (*log.files, *name_files(uri, record))), seen)


def publish_writers_log(
    folder: Path, uri: str, added: EventLogRecord, existing: Existing | None
) -> None:
    """Publish a new log of a writer, or bring an increment's files to its log and let them count.

    Of two writers at once, one is refused (`RunInProgressError`).

    Args:
        folder: the files, without a record.
        uri: the log.
        added: what these files are, as a log of their own.
        existing: the log so far; None for a new one. Days that come again are replaced.
    """
    if existing is None:
        _publish_new(folder, uri, added)
        return
    record = existing.record.followed_by(added)
    if storage.is_local(uri):
        with storage.translated_errors(uri, "adding files to"):
            folders.put_beside(folder, storage.local_path(uri))
    else:
        storage.publish_folder(folder, uri)
    storage.write_over(storage.join(uri, RECORD_FILE), record, existing.seen)
    for name in sorted(set(existing.record.files) - set(record.files)):
        deletion.remove(storage.join(uri, name))


def _record_at(uri: str) -> EventLogRecord | None:
    """Return the record of a whole log at a place that the caller writes to; mend what is half.

    Of an upload that was killed when the log was whole, what is left over is removed, so that the
    log can be read again.

    Raises:
        ConfigurationError: the place holds something else.
        TransientStorageError: the storage failed.
    """
    names = storage.list_names(uri)
    if RECORD_FILE in names:
        if UPLOADING_FILE in names:
            log.info("removing %s, left by a killed upload, from %s", UPLOADING_FILE, uri)
            deletion.remove(storage.join(uri, UPLOADING_FILE))
        return storage.read_model(storage.join(uri, RECORD_FILE), EventLogRecord)
    if names and UPLOADING_FILE not in names:
        raise ConfigurationError(
            f"{uri} holds {names[:5]} and no {RECORD_FILE}: it is no event log of an adapter or of "
            f"{WRITER}, and would be overwritten; choose an empty folder"
        )
    return None


def _publish_new(folder: Path, uri: str, record: EventLogRecord) -> None:
    """Publish tables from a local folder, which is moved away, as a new log: its record comes last.

    Raises:
        RunInProgressError: on an object store, another process has begun to write there.
    """
    if storage.is_local(uri):
        storage.write_model(storage.to_uri(folder / RECORD_FILE), record)
        storage.publish_folder(folder, uri)
        return
    # This file comes first: from here on, the folder is a log only where the record is there too.
    # Of two at once, the one that comes later writes over it, and goes on alone.
    uploading, mark = storage.join(uri, UPLOADING_FILE), uuid.uuid4().bytes
    storage.write_bytes(uploading, mark)
    # An older log, or an upload that was cut off, may have files that this one does not have. The
    # files of another writer have names of their own, and its record may come at any moment.
    if record.made_by != WRITER:
        left = set(storage.list_names(uri)) - {UPLOADING_FILE}
        for name in sorted(left, key=lambda name: (name != RECORD_FILE, name)):
            deletion.remove(storage.join(uri, name))
    storage.publish_folder(folder, uri)
    if not storage.exists(uploading) or storage.read_bytes(uploading) != mark:
        raise RunInProgressError(
            f"{uri} is written by another process since this one began; expected nobody else to "
            f"write there; wait for it to end, then try again"
        )
    write = storage.write_new if record.made_by == WRITER else storage.write_bytes
    try:
        write(storage.join(uri, RECORD_FILE), record.to_record())
    except RunInProgressError:
        deletion.remove(uploading)  # the other writer's log is whole
        raise
    deletion.remove(uploading)
