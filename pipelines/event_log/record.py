"""What the writer of an event log says of it: `event_log.json` beside the tables.

The record names every file that belongs to the log. So an increment becomes part of the log in the
instant in which the record that names its files takes the place of the one before, and files that a
killed writer has left are not read. A log that was written by other means has no record; then every
file below its tables counts. Not for writing (`pipelines.sources.writer`).
"""

import re
from collections.abc import Mapping
from typing import Literal

from pyarrow import fs
from pydantic import Field

from pipelines.contracts.base import Frozen
from pipelines.storage import open_filesystem, translated_errors

RECORD_FILE = "event_log.json"
UPLOADING_FILE = "ingesting.json"
"""On an object store: a log is being made here, or its upload was cut off. It is no log yet."""

WRITERS_FILE = re.compile(r".+/part-\d{6}-\d{6}(?:-[0-9a-f]{8})?\.parquet")
"""Paths of the files that `EventLogWriter` makes, on an object store each writer its own. Those
that no record names are left over, or not yet named."""

IdKind = Literal["integer", "string"]
NAMES = {"user_id": "names/users", "pin_id": "names/pins"}
"""Where the log keeps the names that ids were made from, for each column of ids."""


class Vectors(Frozen):
    """What all embeddings of a version, or of the users, look like."""

    embedding_dim: int = Field(ge=1, description="Numbers in each embedding.")
    type: Literal["float16", "float32"] = Field(description="Of the numbers.")


class EventLogRecord(Frozen):
    """An event log: what is in it, and in which files."""

    made_by: str = Field(description="'EventLogWriter', or the version of an adapter.")
    generation: int = Field(ge=1, description="How often it was written to.")
    embedding_versions: dict[str, Vectors] = Field(description="By version, of the pins.")
    user_embeddings: Vectors | None = Field(description="None while no user has a row.")
    id_kinds: dict[str, IdKind] = Field(description="By column: what the ids were made from.")
    have_pins_times: bool = Field(description="The pins have the optional column known_at.")
    extra_columns: dict[str, dict[str, str]] = Field(
        description="By table: columns beyond the contract, with their Arrow types."
    )
    num_rows: dict[str, int] = Field(description="By table.")
    days: dict[str, dict[str, int]] = Field(
        description="Rows by table and day, of impressions and actions."
    )
    files: tuple[str, ...] = Field(description="Every file of the log, below it, sorted.")

    def files_of_days(self, table: str, days: set[str]) -> set[str]:
        """Return the files of some days (YYYY-MM-DD) of a table."""
        folders = tuple(f"{table}/day={day}/" for day in days)
        return {name for name in self.files if name.startswith(folders)}

    def followed_by(
        self, later: "EventLogRecord", replaced: Mapping[str, set[str]]
    ) -> "EventLogRecord":
        """Return the record of this log after an increment.

        Args:
            later: what the increment alone is.
            replaced: by table, the days of this log that the increment replaces.
        """
        gone = {
            name for table, days in replaced.items() for name in self.files_of_days(table, days)
        }
        days = {table: self.days[table] | later.days[table] for table in self.days}
        num_rows = {table: n + later.num_rows[table] for table, n in self.num_rows.items()}
        num_rows |= {table: sum(by_day.values()) for table, by_day in days.items()}
        extra = {
            table: old | later.extra_columns[table] for table, old in self.extra_columns.items()
        }
        return EventLogRecord(
            made_by=later.made_by,
            generation=self.generation + 1,
            embedding_versions=self.embedding_versions | later.embedding_versions,
            user_embeddings=later.user_embeddings or self.user_embeddings,
            id_kinds=self.id_kinds | later.id_kinds,
            have_pins_times=self.have_pins_times or later.have_pins_times,
            extra_columns=extra,
            num_rows=num_rows,
            days={table: dict(sorted(by_day.items())) for table, by_day in days.items()},
            files=tuple(sorted({*self.files, *later.files} - gone)),
        )


def list_below(uri: str, ending: str) -> list[str]:
    """Return the paths of files below a log that end so, relative to it, sorted."""
    filesystem, root = open_filesystem(uri)
    with translated_errors(uri, "listing"):
        found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    files = (entry.path for entry in found if entry.type == fs.FileType.File)
    return sorted(path.removeprefix(root).lstrip("/") for path in files if path.endswith(ending))
