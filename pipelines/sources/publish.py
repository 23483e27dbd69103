"""How an event log is made and gets to its place: whole or not at all, once, over nothing else.

An adapter, or `EventLogWriter`, makes the tables in an empty local folder and knows nothing of
where they go:

    <log>/impressions, actions/day=YYYY-MM-DD/part-<entry>-<number>.parquet
    <log>/pins, users, names/users, names/pins/part-<entry>-<number>.parquet
    <log>/record/<entry>.json                            EventLogRecord

A first entry without files says that the place is taken. Files then come beside those that are
there, under names that nobody reads, and the next entry makes all of them part of the log. So a
kill leaves the log as before or as after, on a disk as on an object store; what it left goes with
the next write. A file that belongs to the log no more stays for a day, because readers may have the
entry that named it. Not for what is in the tables.
"""

import itertools
import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import deletion, storage
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EPOCH, EventLog, open_event_log
from pipelines.event_log.reader import name_files
from pipelines.event_log.record import (
    RECORD_FOLDER,
    WRITERS_FILE,
    EventLogRecord,
    create_entry,
    list_below,
    read_record,
)
from pipelines.event_log.rules import EVENT_TIME_COLUMNS
from pipelines.places import folders

log = logging.getLogger(__name__)

WRITER = "EventLogWriter"
"""What the record of its log says that it was made by."""
READ_WITHIN = timedelta(days=1)
"""A reader of a log is done with its files so soon; no stage may take longer."""
_NUM_ENTRIES = 1_000
"""Of the record's entries so many stay; readers need the newest."""


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
            day_folder(table, day): rows.slice(start, count)
            for day, start, count in zip(*found, strict=True)
        }
    for place, some in places.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        # A flipped bit of a page is then found by whoever reads it.
        path = folder / place / f"part-{part}.parquet"
        pq.write_table(some, path, write_page_checksum=True)


def day_folder(table: str, day: int) -> str:
    """Return the folder of a day's rows; days are counted from 1970 on."""
    return f"{table}/day={EPOCH + timedelta(days=int(day))}"


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
    parent = uri.rsplit("/", 1)[0]
    with (
        storage.exclusive_lock(uri, f"ingest to {uri}"),
        storage.scratch_folder(parent) as scratch,
    ):
        found = _record_at(uri)
        if found is not None and found.made_of != adapter.made_of:
            raise ConfigurationError(
                f"{uri} holds a log of {found.made_by} that was made of {found.made_of}; "
                f"expected {adapter.made_of} or an empty folder; choose another --to or delete it"
            )
        if found is not None and found.files and found.made_by == adapter.version:
            log.info("%s is there already", uri)
            return found
        folder = scratch / "event_log"
        with storage.translated_errors(uri, "writing the event log for"):
            adapter.write_tables(folder)
        said = EventLogRecord(made_by=adapter.version, made_of=adapter.made_of, files={})
        record = publish(folder, uri, said, found, set(found.files if found else ()))
        log.info("wrote %s", uri)
        return record


def find_writers_log(uri: str) -> Existing | None:
    """Return the log that a writer has left at a place; None where there is none yet.

    Raises:
        ConfigurationError: something else is there.
        DataContractError: the log's record is damaged, or a file of it is missing.
        TransientStorageError: the storage failed.
    """
    if (record := _record_at(uri)) is None:
        return None
    if record.made_by != WRITER:
        raise ConfigurationError(
            f"{uri} is the event log of the adapter {record.made_by}; expected one of {WRITER}, "
            f"because the adapter makes its log anew; choose another folder"
        )
    files = (*open_event_log(uri).files, *name_files(uri, record)) if record.files else ()
    return Existing(record, EventLog(uri, files))


def publish(
    folder: Path,
    uri: str,
    said: EventLogRecord,
    before: EventLogRecord | None,
    dropped: Set[str] = frozenset(),
) -> EventLogRecord:
    """Bring tables to a log, and let them count; return the record of the log that is there then.

    Args:
        folder: the tables, each file under any name; they are moved away.
        uri: the log.
        said: what is said of them, without files.
        before: the record that the caller has seen; None where there is none.
        dropped: files that belong to the log no more.

    Raises:
        RunInProgressError: another writer was quicker; of this one nothing counts.
    """
    if before is None:
        before = EventLogRecord(made_by=said.made_by, made_of=said.made_of, files={})
        create_entry(uri, before)
    # What killed writers have left goes, on an object store when it is old.
    for name in set(list_below(uri, ".parquet")) - set(before.files) - set(before.dropped):
        if WRITERS_FILE.fullmatch(name) and storage.is_abandoned(storage.join(uri, name)):
            deletion.remove(storage.join(uri, name))
    # Two writers at once on an object store must not write over each other's files.
    own = "" if storage.is_local(uri) else f"-{uuid.uuid4().hex[:8]}"
    files = dict[str, int]()
    with storage.translated_errors(uri, "adding files to"):
        for path, number in zip(sorted(folder.rglob("*.parquet")), itertools.count(1)):
            name = f"part-{before.generation + 1:06d}-{number:06d}{own}.parquet"
            new = path.rename(path.with_name(name))
            files[new.relative_to(folder).as_posix()] = pq.read_metadata(new).num_rows
        if storage.is_local(uri):
            folders.put_beside(folder, storage.local_path(uri))
    if not storage.is_local(uri):
        storage.publish_folder(folder, uri)
    now = datetime.now(UTC)
    record = before.followed_by(said.model_copy(update={"files": files}), dropped, now)
    gone = [name for name, since in record.dropped.items() if now - since > READ_WITHIN]
    kept = {name: since for name, since in record.dropped.items() if name not in gone}
    create_entry(uri, record := record.model_copy(update={"dropped": kept}))
    past = f"{RECORD_FOLDER}/{record.generation - _NUM_ENTRIES:08d}.json"
    for name in (*gone, past):
        deletion.remove(storage.join(uri, name))
    return record


def _record_at(uri: str) -> EventLogRecord | None:
    """Return the record at a place that the caller writes to; None where nothing is.

    Raises:
        ConfigurationError: the place holds something else.
        TransientStorageError: the storage failed.
    """
    names = storage.list_names(uri)
    if names and RECORD_FOLDER not in names:
        raise ConfigurationError(
            f"{uri} holds {names[:5]} and no {RECORD_FOLDER}: it is no event log of an adapter or "
            f"of {WRITER}, and would be overwritten; choose an empty folder"
        )
    return read_record(uri) if names else None
