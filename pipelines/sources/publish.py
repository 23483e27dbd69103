"""What a source adapter is, and how a log gets to its place: whole or not at all, once.

An adapter makes the tables in an empty local folder, through `pipelines.sources.writer.log_folder`,
and says what it made. It knows nothing of where they go. Never is a log put over other files.

    <log>/impressions, actions, pins, users   the tables, and what the adapter writes besides
    <log>/event_log.json                      the record of their files (`event_log.record`)
    <log>/<the adapter's marker>              what was made; written last
    <log>/ingesting.json                      on an object store, while an upload is under way

On a local disk the folder appears by one rename, when all of it has reached the disk. An older log
keeps its place until the rename before that one; where a kill comes between the two, the next
ingest puts it back. An object store has no rename, so there the files are uploaded one by one, and
a reader refuses the place while `ingesting.json` is there. That file names the marker of its
upload. Where the marker is there, all of the log is: of an older log the marker goes first, and of
a new one it comes last. Then only `ingesting.json` was left behind, and the next writer removes it.
Where the marker is not there, the upload was cut off, and the next one deletes what it left.

The marker of a log of `EventLogWriter` is its record. What is added to such a log gets names that
nobody reads, and one write of the record then makes all of it part of the log; files that the new
record does not name any more go afterwards. So a kill leaves the log as before or as after, on
every kind of storage. Not for what is in the tables.
"""

import logging
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pydantic import Field

from pipelines import deletion, storage
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError, RunInProgressError
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.event_log.names import name_files
from pipelines.event_log.record import (
    RECORD_FILE,
    UPLOADING_FILE,
    WRITERS_FILE,
    EventLogRecord,
    list_below,
)
from pipelines.places import folders
from pipelines.places.conditional import Revision

log = logging.getLogger(__name__)

WRITER = "EventLogWriter"
"""What the record of its log says that it was made by."""


class IngestedLog(Frozen):
    """What an ingest made; each adapter adds its counts. Its file is the log's marker."""

    adapter_version: str = Field(description="`SourceAdapter.version` of the adapter.")


Made = TypeVar("Made", bound=IngestedLog)


class SourceAdapter(ABC, Generic[Made]):
    """One source of data. What differs between two logs of it is given to the constructor."""

    name: ClassVar[str]
    """The word after `homefeed ingest`."""

    version: ClassVar[str]
    """Changes whenever the same data gives another event log; an older log is then made anew."""

    marker: ClassVar[str]
    """Name of the file beside the tables that holds what was made, and that is written last."""

    made_type: type[Made]
    """Class of the value in the marker."""

    @abstractmethod
    def write_tables(self, folder: Path) -> Made:
        """Write the tables below a local folder that does not exist yet; return what was made."""

    @abstractmethod
    def check_same_input(self, uri: str, found: Made) -> None:
        """Check that a log which is there already was made from what this adapter would read.

        Raises:
            ConfigurationError: the log is of other data, and would be overwritten.
        """


class Upload(Frozen):
    """What `ingesting.json` says of the upload that it stands for."""

    marker: str = Field(default="", description="File that is written when all others are there.")
    by: str = Field(default="", description="Mark of the upload that may write it.")


@dataclass(frozen=True)
class Existing:
    """A writer's log that is there, with its files; those of names are among them."""

    record: EventLogRecord
    log: EventLog
    seen: Revision  # of the record's file


def ingest(adapter: SourceAdapter[Made], to_location: str) -> Made:
    """Write an event log to a path or URI; return at once if it is there already.

    Args:
        adapter: makes the tables.
        to_location: folder of the event log: empty, missing, or written by the same adapter from
            the same input.

    Returns:
        What the marker says of the log that is there now.

    Raises:
        ConfigurationError: the folder holds something else, or the adapter lacks its input.
        RunInProgressError: another ingest writes to the same place.
        TransientStorageError: the storage failed or is full.
    """
    uri = storage.to_uri(to_location)
    with storage.exclusive_lock(uri, f"ingest to {uri}"):
        if _is_there(uri, adapter.marker, f"the adapter {adapter.name}"):
            found = storage.read_model(storage.join(uri, adapter.marker), adapter.made_type)
            adapter.check_same_input(uri, found)
            if found.adapter_version == adapter.version:
                log.info("%s is there already", uri)
                return found
            log.info("%s was written by %s; making it anew", uri, found.adapter_version)
        with storage.scratch_folder(uri.rsplit("/", 1)[0]) as scratch:
            folder = scratch / "event_log"
            with storage.translated_errors(uri, "writing the event log for"):
                made = adapter.write_tables(folder)
            _publish_log(folder, uri, adapter.marker, made)
        log.info("wrote %s", uri)
        return made


def find_writers_log(uri: str) -> Existing | None:
    """Return the log that a writer has left at a place; None where there is none yet.

    What killed writers have left there is removed, on an object store when it is old.

    Raises:
        ConfigurationError: something else is there.
        DataContractError: the log's record is damaged, or a file of it is missing.
        TransientStorageError: the storage failed.
    """
    if not _is_there(uri, RECORD_FILE, WRITER):
        return None
    seen = storage.look(storage.join(uri, RECORD_FILE))
    record = storage.read_model(storage.join(uri, RECORD_FILE), EventLogRecord)
    if record.made_by != WRITER:
        raise ConfigurationError(
            f"{uri} is the event log of the adapter {record.made_by}; expected one of {WRITER}, "
            f"because the adapter counts what is in its log; choose another folder"
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
    if existing is None and storage.is_local(uri):
        _publish_log(folder, uri, RECORD_FILE, added)
        return
    if existing is None:
        storage.write_model(storage.join(uri, UPLOADING_FILE), Upload(marker=RECORD_FILE))
        storage.publish_folder(folder, uri)
        storage.write_new(storage.join(uri, RECORD_FILE), added.to_record())
        deletion.remove(storage.join(uri, UPLOADING_FILE))
        return
    replaced = {table: set(days) for table, days in added.days.items()}
    record = existing.record.followed_by(added, replaced)
    if storage.is_local(uri):
        with storage.translated_errors(uri, "adding files to"):
            folders.put_beside(folder, storage.local_path(uri))
    else:
        storage.publish_folder(folder, uri)
    storage.write_over(storage.join(uri, RECORD_FILE), record, existing.seen)
    for name in sorted(set(existing.record.files) - set(record.files)):
        deletion.remove(storage.join(uri, name))


def _is_there(uri: str, marker: str, maker: str) -> bool:
    """Return whether a whole log is at a place, which the caller writes to; mend what is half.

    A local folder that a kill has left aside is put back. Of an upload that was killed when the log
    was whole, what is left over is removed, so that the log can be read again.

    Raises:
        ConfigurationError: the place holds something else.
        DataContractError: `ingesting.json` was altered.
        TransientStorageError: the storage failed.
    """
    storage.settle_folder(uri)
    names = storage.list_names(uri)
    if UPLOADING_FILE in names:
        left_over = storage.join(uri, UPLOADING_FILE)
        if storage.read_model(left_over, Upload, "delete the folder").marker not in names:
            return False
        log.info("%s is whole; removing %s, which a killed upload has left", uri, UPLOADING_FILE)
        deletion.remove(left_over)
        names.remove(UPLOADING_FILE)
    if names and marker not in names:
        raise ConfigurationError(
            f"{uri} holds {names[:5]} and no {marker}: it is not an event log of {maker}, and "
            f"would be overwritten; choose an empty folder"
        )
    return bool(names)


def _publish_log(folder: Path, uri: str, marker: str, made: Frozen) -> None:
    """Publish the tables; the marker appears with them (local disk) or after them.

    Args:
        folder: the tables, in a local folder that is moved away.
        uri: where the log goes; whatever is there is replaced.
        marker: name of the file that is written last.
        made: what the marker says.
    """
    if storage.is_local(uri):
        storage.write_model(storage.to_uri(folder / marker), made)
        storage.publish_folder(folder, uri)
        return
    # This file comes first: from here on, the folder is a log only where the marker is there too.
    # Of two at once, the one that comes later writes over it, and goes on alone.
    uploading = storage.join(uri, UPLOADING_FILE)
    upload = Upload(marker=marker, by=uuid.uuid4().hex)
    storage.write_model(uploading, upload)
    # The marker goes first: what it stands beside counts as complete. An older log, or an upload
    # that was cut off, may have files that this one does not have.
    for name in sorted(storage.list_names(uri), key=lambda name: name != marker):
        if name != UPLOADING_FILE:
            deletion.remove(storage.join(uri, name))
    storage.publish_folder(folder, uri)
    if not storage.exists(uploading) or storage.read_model(uploading, Upload) != upload:
        raise RunInProgressError(
            f"{uri} is written by another process since this one began; expected nobody else to "
            f"write there; wait for it to end, then try again"
        )
    storage.write_model(storage.join(uri, marker), made)
    deletion.remove(uploading)
