"""What an event log's files were when a snapshot was built, so that later changes can be named.

For each file: size, time of writing, a digest of its Parquet footer (which holds row counts and the
smallest and largest value of every column and row group) and how many of its rows were known before
as_of. All of it comes from the folder's list and the footers. A file's rows are read only
where its footer cannot tell which of them were known, and then one column of them. Not a digest of
the rows: that is the snapshot's.
"""

import contextlib
import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.dataset as ds
from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_TIME
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.reader import damage_told_from_failure, open_file
from pipelines.storage import open_filesystem

KNOWN_COLUMNS = {
    "impressions": "known_at",
    "actions": "known_at",
    "users": "as_of",
    "pins": PIN_TIME.name,  # which a log need not have
}
"""The column that says from when on a row counts."""
_NUM_READERS = 8
"""Footers that are read at a time: on an object store each of them is a request."""


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
    """Return what some files of an event log are; rows known before `as_of_ms` are counted.

    Raises:
        TransientStorageError: the storage failed. A damaged file is no error here; whoever reads
            its rows tells of it.
    """
    _, root = open_filesystem(event_log.uri)

    def listed(file: LogFile) -> ListedFile:
        footer, num_rows, num_known = io.BytesIO(), None, None
        with contextlib.suppress(DataContractError):
            dataset = open_file(event_log, file)
            (fragment,) = dataset.get_fragments()
            fragment.metadata.write_metadata_file(footer)
            num_rows, column = fragment.metadata.num_rows, KNOWN_COLUMNS[file.table]
            if column in dataset.schema.names:
                # Arrow says that it is not implemented where no value is before another one.
                with (
                    contextlib.suppress(pa.ArrowNotImplementedError),
                    damage_told_from_failure(dataset.filesystem, file),
                ):
                    num_known = dataset.count_rows(filter=ds.field(column) < as_of_ms)
            elif file.table == "pins":
                num_known = num_rows
        return ListedFile(
            path=file.path.removeprefix(root).lstrip("/"),
            num_bytes=file.num_bytes,
            modified_at=file.modified_at,
            footer=hashlib.sha256(footer.getvalue()).hexdigest() if footer.getvalue() else "",
            num_rows=num_rows,
            num_known=num_known,
        )

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        return Listing(event_log_uri=event_log.uri, files=tuple(pool.map(listed, files)))
