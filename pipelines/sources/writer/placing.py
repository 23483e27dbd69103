"""What is at a log's place when a writer comes, and how its rows get there, whole or not at all.

A new log is published as an adapter's is (`pipelines.sources.publish`). An increment's files get
names that nobody reads, and one write of the record then makes all of them part of the log. Files
that the new record does not name any more go afterwards. So a kill leaves the log as before or as
after, on every kind of storage. Not for the content of the files.
"""

from dataclasses import dataclass
from pathlib import Path

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.event_log.names import name_files
from pipelines.event_log.record import (
    RECORD_FILE,
    WRITERS_FILE,
    EventLogRecord,
    list_below,
)
from pipelines.places import folders
from pipelines.places.conditional import Revision
from pipelines.sources.publish import names_of_log, publish_log

MADE_BY = "EventLogWriter"


@dataclass(frozen=True)
class Existing:
    """A log that is there, with its files; those of names are among them."""

    record: EventLogRecord
    log: EventLog
    seen: Revision  # of the record's file


def find_log(uri: str) -> Existing | None:
    """Return the log that a writer has left at a place; None where there is none yet.

    What killed writers have left there is removed. The caller holds the place's lease.

    Raises:
        ConfigurationError: something else is there.
        DataContractError: the log's record is damaged, or a file of it is missing.
        TransientStorageError: the storage failed.
    """
    storage.settle_folder(uri)
    names = names_of_log(uri)
    if not names:
        return None
    if RECORD_FILE not in names:
        raise ConfigurationError(
            f"{uri} holds {names[:5]} and no {RECORD_FILE}: it is not an event log of {MADE_BY}, "
            f"and would be overwritten; choose an empty folder"
        )
    seen = storage.look(storage.join(uri, RECORD_FILE))
    record = storage.read_model(storage.join(uri, RECORD_FILE), EventLogRecord)
    if record.made_by != MADE_BY:
        raise ConfigurationError(
            f"{uri} is the event log of the adapter {record.made_by}; expected one of {MADE_BY}, "
            f"because the adapter counts what is in its log; choose another folder"
        )
    log = open_event_log(uri)
    for name in set(list_below(uri, ".parquet")) - set(record.files):
        if WRITERS_FILE.fullmatch(name):
            storage.remove(storage.join(uri, name))
    return Existing(record, EventLog(uri, (*log.files, *name_files(uri, record))), seen)


def place_new(folder: Path, uri: str, record: EventLogRecord) -> None:
    """Bring a new log to its place."""
    publish_log(folder, uri, RECORD_FILE, record)


def place_increment(folder: Path, uri: str, existing: Existing, record: EventLogRecord) -> None:
    """Bring an increment's files to its log, and let them count.

    Args:
        folder: the files, without a record.
        uri: the log.
        existing: the log so far.
        record: its record from now on.
    """
    if storage.is_local(uri):
        with storage.translated_errors(uri, "adding files to"):
            folders.put_beside(folder, storage.local_path(uri))
    else:
        storage.publish_folder(folder, uri)
    storage.write_over(storage.join(uri, RECORD_FILE), record, existing.seen)
    for name in sorted(set(existing.record.files) - set(record.files)):
        storage.remove(storage.join(uri, name))
