"""From the rows that a writer was given to the files of a log: sorted, unique, in days.

Not for checking one batch (`pipelines.sources.writer.columns`) nor for publishing (`placing`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.schemas import EVENT_LOG_TABLES, USERS, with_embedding_dim
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.parquet_files import open_file, read_file
from pipelines.event_log.record import NAMES, Vectors
from pipelines.sources.writer.batches import MAX_BYTES
from pipelines.sources.writer.identifiers import NAMES_SCHEMA, check_collisions
from pipelines.sources.writer.log_folder import LogFolder
from pipelines.sources.writer.positions import with_positions
from pipelines.sources.writer.repeats import KEYS, without_known, without_repeats
from pipelines.sources.writer.runs import KeyRange, Runs
from pipelines.sources.writer.vectors import zeros

MAX_FILE_ROWS = 1 << 20
"""Rows of one file of the log, because whoever reads it holds a file in memory."""
SORT_KEYS = {
    "impressions": ("impressed_at", "request_id", "position", "pin_id"),
    "actions": ("acted_at", "user_id", "pin_id", "action_type"),
    **KEYS,
}


@dataclass
class Parts:
    """Names of the files of one increment; no name comes twice."""

    generation: int
    number: int = 0

    def next(self) -> str:
        """Return the next name."""
        self.number += 1
        return f"{self.generation:06d}-{self.number:06d}"


def write_events(table: str, runs: Runs, into: LogFolder, parts: Parts) -> None:
    """Write impressions or actions, day after day; the rows are gone from `runs` afterwards.

    Raises:
        DataContractError: a request has more rows than positions.
    """
    runs.settle()
    max_rows = _rows_of_file(runs)
    if table == "impressions":
        runs = with_positions(runs, max_rows)
    for day in runs.days(DAY_MS):
        whole_day = KeyRange(day * DAY_MS, (day + 1) * DAY_MS - 1)
        for keys in runs.slices(whole_day, max_rows):
            into.add(table, _sorted(table, runs.read(keys)), parts.next())


def write_keyed(
    table: str,
    runs: Runs,
    into: LogFolder,
    parts: Parts,
    before: EventLog | None,
    version: str,
    zeros_of_users: Vectors | None = None,
) -> int:
    """Write pins or users, each key once, without the rows that are there already.

    Args:
        table: 'pins' or 'users'.
        runs: their rows.
        into: where they go.
        parts: names of files.
        before: the log that they are added to; None for a new one.
        version: the embedding version of the pins.
        zeros_of_users: what the embeddings of zeros look like that the rows get; None where they
            have embeddings.

    Returns:
        How many rows were passed over: those that another row is the same as in every column.

    Raises:
        DataContractError: a key comes twice, with another value in some column.
    """
    num_written = 0
    zero_bytes = zeros(1, zeros_of_users).nbytes if zeros_of_users else 0
    for keys in _bounded(runs, zero_bytes):
        rows = runs.read(keys)
        if zeros_of_users:
            rows = rows.append_column("embedding", zeros(len(rows), zeros_of_users))
        rows = without_repeats(table, _sorted(table, rows), version)
        if before is not None:
            rows = without_known(table, rows, before, keys, version)
        if len(rows):
            into.add(table, rows.combine_chunks(), parts.next())
        num_written += len(rows)
    return runs.num_rows - num_written


def write_no_users(into: LogFolder, parts: Parts, vectors: Vectors) -> None:
    """Write a table of users without rows, because a log has every table."""
    schema = with_embedding_dim(USERS, vectors.embedding_dim)
    into.add("users", schema.empty_table(), parts.next())


def write_names(
    column: str, runs: Runs, into: LogFolder, parts: Parts, before: EventLog | None
) -> None:
    """Write the names that the log does not have yet.

    Args:
        column: a key of NAMES.
        runs: NAMES_SCHEMA, a pair as often as it came.
        into: where they go.
        parts: names of files.
        before: the log whose names are there; None for a new one.

    Raises:
        DataContractError: two names have one id.
    """
    for keys in _bounded(runs):
        given = _distinct(runs.read(keys))
        there = (
            [_names_in(before, f, keys, given["id"]) for f in before.files_of(NAMES[column])]
            if before
            else []
        )
        known = pa.concat_tables([NAMES_SCHEMA.empty_table(), *there])
        together = _distinct(pa.concat_tables([known, given]))
        check_collisions(NAMES[column], column, together)
        new = given.filter(pc.invert(pc.is_in(given["id"], value_set=known["id"])))
        if len(new):
            into.add_names(column, new, parts.next())


def _bounded(runs: Runs, more_bytes: int = 0) -> Iterator[KeyRange]:
    """Yield the ranges of keys whose rows make one file, where each row gets some more bytes."""
    runs.settle()
    whole = runs.whole()
    if whole is not None:
        yield from runs.slices(whole, _rows_of_file(runs, more_bytes))


def _rows_of_file(runs: Runs, more_bytes: int = 0) -> int:
    """Return how many rows of usual width go into one file, so that memory stays bounded."""
    row_bytes = max(1, runs.num_bytes // max(1, runs.num_rows)) + more_bytes
    return max(1, min(MAX_FILE_ROWS, MAX_BYTES // row_bytes))


def _sorted(table: str, rows: pa.Table) -> pa.Table:
    columns = [(name, "ascending") for name in SORT_KEYS[table]]
    names = [*EVENT_LOG_TABLES[table].names]
    others = sorted(name for name in rows.column_names if name not in names)
    return rows.sort_by(columns).select([*names, *others]).combine_chunks()


def _names_in(log: EventLog, file: LogFile, keys: KeyRange, ids: pa.ChunkedArray) -> pa.Table:
    """Return the names of those ids that a file has; the ids lie in the range."""
    found = _rows_between(log, file, ["id", "name"], keys).cast(NAMES_SCHEMA)
    return found.filter(pc.is_in(found["id"], value_set=ids.combine_chunks()))


def _rows_between(log: EventLog, file: LogFile, columns: list[str], keys: KeyRange) -> pa.Table:
    """Return columns of a file's rows whose first column is in a range."""
    key = pc.field(columns[0])
    is_within = (key >= keys.first) & (key <= keys.last)
    return read_file(open_file(log, file), file, columns, is_within)


def _distinct(names: pa.Table) -> pa.Table:
    """Return each (id, name) once, by id and name."""
    grouped = names.group_by(["id", "name"]).aggregate([])
    return grouped.sort_by([("id", "ascending"), ("name", "ascending")]).cast(NAMES_SCHEMA)
