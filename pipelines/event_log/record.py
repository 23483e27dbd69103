"""What the maker of an event log says of it: `event_log.json` beside the tables.

The record names every file that belongs to the log. So an increment becomes part of the log in the
instant in which the record that names its files takes the place of the one before, and files that a
killed writer has left are not read. A log that was written by other means has no record; then every
file below its tables counts. Not for writing (`pipelines.sources`).
"""

import re
from typing import Any

from pyarrow import fs
from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.storage import open_filesystem, translated_errors

RECORD_FILE = "event_log.json"
UPLOADING_FILE = "ingesting.json"
"""On an object store: a log is being made here, or its upload was cut off. It is no log yet."""

WRITERS_FILE = re.compile(r".+/part-\d{6}-\d{6}(?:-[0-9a-f]{8})?\.parquet")
"""Paths of the files that `EventLogWriter` makes, on an object store each writer its own. Those
that no record names are left over, or not yet named."""

NAMES = {"user_id": "names/users", "pin_id": "names/pins"}
"""Where the log keeps the names that ids were made from, for each column of ids."""

CANDIDATES = "candidates"
"""What is settled of how candidates were drawn; nothing where they were logged."""
ZONE_OF, NO_ZONE = "zone of ", "none"
"""What is settled of the zone in which the times of a column were given."""


class EventLogRecord(Frozen):
    """An event log: who made it of what, and its files."""

    made_by: str = Field(description="'EventLogWriter', or the version of an adapter.")
    made_of: dict[str, Any] = Field(
        default_factory=dict, description="What an adapter made it of: `SourceAdapter.made_of`."
    )
    generation: int = Field(default=1, ge=1, description="How often it was written to.")
    settled: dict[str, str | int] = Field(
        default_factory=dict,
        description="What the batches so far have settled for later ones: see `batches.normalise`.",
    )
    complete_to: AwareDatetime | None = Field(
        default=None, description="The log has all that was known before; None: nobody said."
    )
    files: dict[str, int] = Field(description="Rows by file of the log, relative to it, sorted.")

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

    def days_of(self, table: str) -> set[str]:
        """Return the days (YYYY-MM-DD) of which impressions or actions are there."""
        start = f"{table}/day="
        return {name[len(start) :][:10] for name in self.files if name.startswith(start)}

    def followed_by(self, later: "EventLogRecord") -> "EventLogRecord":
        """Return the record of this log after an increment, which replaces the days that it has."""
        days = {name.rpartition("/")[0] for name in later.files if "/day=" in name}
        kept = {name: n for name, n in self.files.items() if name.rpartition("/")[0] not in days}
        files = dict(sorted((kept | later.files).items()))
        update = {"generation": self.generation + 1, "settled": self.settled | later.settled}
        return later.model_copy(update=update | {"files": files})


def list_below(uri: str, ending: str) -> list[str]:
    """Return the paths of files below a log that end so, relative to it, sorted."""
    filesystem, root = open_filesystem(uri)
    with translated_errors(uri, "listing"):
        found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    files = (entry.path for entry in found if entry.type == fs.FileType.File)
    return sorted(path.removeprefix(root).lstrip("/") for path in files if path.endswith(ending))
