"""What an event log's files were when a snapshot was built, so that later changes can be named.

For each file: size, time of writing, a digest of its Parquet footer (which holds row counts and the
smallest and largest value of every column and row group) and how many of its rows were known before
as_of. All of it comes from the folder's list and the footers. A file's rows are read only
where its footer cannot tell which of them were known, and then one column of them. Not a digest of
the rows: that is the snapshot's.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_TIME
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.reader import count_rows, open_file
from pipelines.storage import open_filesystem, translated_errors

KNOWN_COLUMNS = {
    "impressions": "known_at",
    "actions": "known_at",
    "users": "as_of",
    "pins": PIN_TIME.name,  # which a log need not have
}
"""The column that says from when on a row counts."""
_NUM_READERS = 8
"""Footers that are read at a time: on an object store each of them is a request."""
_TAIL_BYTES = 64 << 10
_MAGIC = b"PAR1"


class ListedFile(Frozen):
    """One file of an event log, as it was."""

    path: str = Field(description="Relative to the event log.")
    num_bytes: int
    modified_at: AwareDatetime | None = Field(description="None where the storage does not say.")
    footer: str = Field(description="sha256 of the Parquet footer; '' where there is none.")
    num_rows: int | None = Field(description="None where the footer cannot be read.")
    num_known: int | None = Field(description="Of these, rows known before as_of.")


class Listing(Frozen):
    """The files that a snapshot was built from, before any of them was read."""

    event_log_uri: str
    files: tuple[ListedFile, ...]


def list_files(event_log: EventLog, files: Sequence[LogFile], as_of_ms: int) -> Listing:
    """Return what some files of an event log are.

    Args:
        event_log: The log.
        files: Those that a snapshot reads.
        as_of_ms: Rows known before it count, in milliseconds since the epoch.

    Raises:
        TransientStorageError: the storage failed. A damaged file is no error here; whoever reads
            its rows tells of it.
    """
    filesystem, root = open_filesystem(event_log.uri)

    def listed(file: LogFile) -> ListedFile:
        metadata, digest = _footer_of(filesystem, file)
        return ListedFile(
            path=file.path.removeprefix(root).lstrip("/"),
            num_bytes=file.num_bytes,
            modified_at=file.modified_at,
            footer=digest,
            num_rows=metadata.num_rows if metadata else None,
            num_known=_count_known(event_log, file, metadata, as_of_ms) if metadata else None,
        )

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return Listing(event_log_uri=event_log.uri, files=tuple(pool.map(listed, files)))


def _footer_of(
    filesystem: fs.FileSystem, file: LogFile
) -> tuple[pq.FileMetaData, str] | tuple[None, str]:
    """Return a file's metadata and the digest of the bytes that hold it."""
    with translated_errors(file.path, "reading"), filesystem.open_input_file(file.path) as stream:
        size = stream.size()
        tail = stream.read_at(min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
        num_bytes = int.from_bytes(tail[-8:-4], "little")
        if len(tail) < num_bytes + 8 <= size:
            tail = stream.read_at(num_bytes + 8, size - num_bytes - 8)
    footer = tail[-(num_bytes + 8) :]
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
    except (pa.ArrowInvalid, OSError):
        return None, ""
    return metadata, hashlib.sha256(footer).hexdigest()


def _count_known(
    event_log: EventLog, file: LogFile, metadata: pq.FileMetaData, as_of_ms: int
) -> int | None:
    """Return how many rows were known before as_of, by the footer's bounds where these suffice."""
    column = KNOWN_COLUMNS[file.table]
    names = metadata.schema.names
    if file.table == "pins" and column not in names:
        return int(metadata.num_rows)
    index = names.index(column) if column in names else None
    if index is None or len(names) != metadata.num_columns:
        return None
    num_known = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        bounds = group.column(index).statistics
        if bounds is None or not bounds.has_min_max or not isinstance(bounds.max, int):
            return _scan(event_log, file, column, as_of_ms)
        if bounds.max < as_of_ms:
            num_known += group.num_rows
        elif bounds.min < as_of_ms:
            return _scan(event_log, file, column, as_of_ms)
    return num_known


def _scan(event_log: EventLog, file: LogFile, column: str, as_of_ms: int) -> int | None:
    # Arrow says that it is not implemented where the column is of no kind that has a before.
    with contextlib.suppress(DataContractError, pa.ArrowNotImplementedError):
        return count_rows(open_file(event_log, file), file, ds.field(column) < as_of_ms)
    return None
