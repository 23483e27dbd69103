"""What the maker of an event log says of it: its files, entry by entry, beside the tables.

    <log>/record/00000007.json    an EventLogRecord, created only if it is absent

The entry with the highest number is the log, and the files that it names are all that belong to it.
So what is added becomes part of the log in the instant in which an entry is created, a reader has
one state of the log whole, and files that a killed writer has left are not read. An entry without
files says that a first writer is at work. A log that was written by other means has no record; then
every file below its tables counts. Not for writing (`pipelines.sources`).
"""

import re
from collections.abc import Set
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, Field

from pipelines import storage
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import RunInProgressError
from pipelines.contracts.schemas import EVENT_LOG_TABLES

RECORD_FOLDER = "record"

WRITERS_FILE = re.compile(r".+/part-\d{6}-\d{6}(?:-[0-9a-f]{8})?\.parquet")
"""Paths of the files that are made for a log with a record, on an object store each writer its own.
Those that no entry names are left over, or not yet named."""

NAMES = {"user_id": "names/users", "pin_id": "names/pins"}
"""Where the log keeps the names that ids were made from, for each column of ids."""

CANDIDATES = "candidates"
"""What is settled of how candidates were drawn; nothing where they were logged."""
ZONE_OF, NO_ZONE = "zone of ", "none"
"""What is settled of the zone in which the times of a column were given."""

_ENTRY = re.compile(r"\d{8}\.json")
_NUM_BATCHES = 500


class EventLogRecord(Frozen):
    """An event log: who made it of what, and its files."""

    made_by: str = Field(description="'EventLogWriter', or the version of an adapter.")
    made_of: dict[str, Any] = Field(
        default_factory=dict, description="What an adapter made it of: `SourceAdapter.made_of`."
    )
    generation: int = Field(default=1, ge=1, description="The entry's number.")
    settled: dict[str, str | int] = Field(
        default_factory=dict,
        description="What the batches so far have settled for later ones: see `batches.normalise`.",
    )
    complete_to: AwareDatetime | None = Field(
        default=None, description="The log has all that was known before; None: nobody said."
    )
    files: dict[str, int] = Field(description="Rows by file of the log, relative to it, sorted.")
    dropped: dict[str, AwareDatetime] = Field(
        default_factory=dict,
        description="Files that belong to the log no more, and since when; readers may have them.",
    )
    batches: tuple[str, ...] = Field(
        default=(), description="Digests of the newest blocks; a late one counts once."
    )

    @property
    def num_rows(self) -> dict[str, int]:
        """Rows by table."""
        return {
            table: sum(n for name, n in self.files.items() if name.startswith(f"{table}/"))
            for table in EVENT_LOG_TABLES
        }

    @property
    def candidates(self) -> str:
        """How candidates were drawn; '' where they were logged."""
        return str(self.settled.get(CANDIDATES, ""))

    def followed_by(
        self, later: "EventLogRecord", dropped: Set[str], at: datetime
    ) -> "EventLogRecord":
        """Return the entry after this one, where files were added and others are dropped."""
        kept = {name: num for name, num in self.files.items() if name not in dropped}
        update = {
            "generation": self.generation + 1,
            "settled": self.settled | later.settled,
            "files": dict(sorted((kept | later.files).items())),
            "dropped": self.dropped | dict.fromkeys(sorted(dropped), at),
            "batches": (*self.batches, *later.batches)[-_NUM_BATCHES:],
        }
        return later.model_copy(update=update)


def read_record(uri: str) -> EventLogRecord | None:
    """Return the newest entry of a log's record; None where there is none.

    Raises:
        DataContractError: it is damaged.
        TransientStorageError: the storage failed.
    """
    folder = storage.join(uri, RECORD_FOLDER)
    entries = [name for name in storage.list_names(folder) if _ENTRY.fullmatch(name)]
    if not entries:
        return None
    return storage.read_model(storage.join(folder, entries[-1]), EventLogRecord)


def create_entry(uri: str, record: EventLogRecord) -> None:
    """Let the log be what a record says; its number is the one after the newest.

    Raises:
        RunInProgressError: another writer has created an entry since.
        ConfigurationError: the object store has no conditional writes.
    """
    place = storage.join(uri, RECORD_FOLDER, f"{record.generation:08d}.json")
    if not storage.create(place, record.to_record()):
        raise RunInProgressError(
            f"{place} was written by another process since this one began; expected nobody else to "
            f"write there; look at what it did, then give the rows that are missing again"
        )


def list_below(uri: str, ending: str) -> list[str]:
    """Return the paths of files below a log that end so, relative to it, sorted."""
    _, root = storage.open_filesystem(uri)
    found = storage.list_entries(uri, is_recursive=True)
    files = (entry.path for entry in found if entry.is_file)
    return sorted(path.removeprefix(root).lstrip("/") for path in files if path.endswith(ending))
