"""`EventLogWriter`: somebody's tables in, an event log out, whole or not at all.

A batch as people have it (pandas, polars, Arrow, numpy) becomes rows in the contract's types
(`normalise`). What people may give otherwise than a file of the log has it is said here; what is
left has to keep the rules of `pipelines.event_log.rules`, and every problem of a batch is told at
once. Whatever Arrow can read is read through it, so that no such library is imported here.

The rows of a block wait in a DuckDB database beside the log and come out sorted, unique, in files;
names that ids were made from are tables too. DuckDB holds a few hundred MiB of them in memory and
the rest on the disk, whatever their number and order. People hand over all their pins with each
day, of which most are in the log: a row of pins or users that came before is passed over where it
is the same, and refused where it has changed. Not for what the rows mean, nor for publishing
(`pipelines.sources.publish`).

The id of a name is the BLAKE2b digest of its UTF-8 bytes, 8 bytes long, read as a signed integer
with the most significant byte first: the same on every machine, for ever. The names are kept beside
the log, so that two names with one id are found out.
"""

import contextlib
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import storage
from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import ConfigurationError, DataContractError, TransientStorageError
from pipelines.contracts.schemas import (
    EVENT_LOG_TABLES,
    PIN_TIME,
    USERS,
    contract_of,
    with_embedding_dim,
)
from pipelines.contracts.time import DAY_MS, to_ms, with_utc
from pipelines.event_log.log_files import EventLog
from pipelines.event_log.reader import iterate_batches, open_file
from pipelines.event_log.record import CANDIDATES, NAMES, NO_ZONE, ZONE_OF, EventLogRecord
from pipelines.event_log.rules import (
    EVENT_TIME_COLUMNS,
    column_problems,
    embedding_matrix,
    finding,
    fitted,
    value_problems,
)
from pipelines.plain_text import shortened
from pipelines.sources.publish import (
    WRITER,
    Existing,
    day_folder,
    find_writers_log,
    publish,
    write_table,
)

log = logging.getLogger(__name__)

DEFAULTS: dict[str, dict[str, Any]] = {
    "impressions": {
        "known_at": "impressed_at",
        "position": None,  # counted when all rows of the request are there
        "surface": "homefeed",
        "is_exploration": False,
        "propensity": None,
    },
    "actions": {"known_at": "acted_at", "request_id": None},
    "pins": {"embedding_version": None},  # the writer's
    "users": {"state": "unknown", "location": None},
}
"""By table: the columns that need not be given, but for the users' embeddings, which are zeros
without. For a time, the column whose value it takes."""
NAMES_SCHEMA = pa.schema(
    [pa.field("id", pa.int64(), nullable=False), pa.field("name", pa.string(), nullable=False)]
)
"""Columns of the tables below names/."""
USERS_WIDTH = "users.embedding"
"""What is settled of the width of the users' embeddings."""

_INDEX = "__index_level_"
"""How pandas names the columns that it makes of an index; an index is no column of the log."""
KEYS = {
    "pins": ("pin_id",),
    "users": ("user_id", "as_of"),
    NAMES["user_id"]: ("id",),
    NAMES["pin_id"]: ("id",),
}
"""The columns whose values come once: of pins in a version, of users and names in a log."""
SORT_KEYS = {
    "impressions": ("impressed_at", "request_id", "position", "pin_id"),
    "actions": ("acted_at", "user_id", "pin_id", "action_type"),
    **KEYS,
}
MAX_FILE_ROWS = 1 << 20
"""Rows of one file of the log, because whoever reads it holds a file in memory."""
MAX_FILE_BYTES = 128 << 20
"""Wide rows fill a file sooner."""
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "512MiB",
    "threads": 1,  # of two that sort wide rows, each wants as much memory as both may have
    "autoinstall_known_extensions": False,  # nothing is downloaded
    "python_enable_replacements": False,  # a name is a table's, and no variable's
}
_SMALL_FILE_ROWS, _MANY_SMALL_FILES = 1 << 15, 48
"""So many files of fewer rows in a folder are put together by who adds to it."""
_LARGEST_POSITION = (1 << 15) - 1
_BATCH_ROWS = 1 << 14
"""Rows of a log's file that are looked at at a time."""
_ROW = "_number of the row"
"""In what order the rows were given."""


class EventLogWriter:
    """Writes an event log, or adds days, pins and users to one that it wrote before.

    ```python
    with EventLogWriter(location, embedding_version="mine-1") as writer:
        writer.pins(pins)
        for day in days:
            writer.impressions(shown_on(day))
            writer.actions(acted_on(day))
    ```

    A batch is a pandas or polars DataFrame, an Arrow table, record batch or reader, or a dictionary
    of columns. Batches come in any order and number, and their rows too; a reader is read whole.
    Each is checked as the reader checks a file, and a message names all that is wrong with it. The
    rows wait on the disk, in a database near the log, and a few hundred MiB of them are in memory.
    Leaving the block puts all of them in place; an exception in the block, or a batch that was
    refused, puts none.

    Columns and defaults (a time is int64 ms since the epoch, or a timestamp or date column, in UTC
    where it has no zone; parts of a millisecond are cut off):

    - `impressions`: request_id (text or integer), user_id, pin_id, impressed_at; `known_at` is
      impressed_at, `position` the place among the request's rows of this block by time and then as
      they were given, `surface` 'homefeed', `is_exploration` False, `propensity` null.
    - `actions`: user_id, pin_id, action_type, acted_at; `known_at` is acted_at, `request_id` null.
    - `pins`: pin_id, embedding; `embedding_version` is the writer's; `known_at`, where it is given,
      says from when on the row is known, and a request before it sees zeros. Without it a pin is
      known from the beginning.
    - `users`: user_id, as_of; `embedding` is zeros as wide as the pins', which come first then,
      `state` 'unknown', `location` null. Users' embeddings lie in the pins' space. A log may have
      no users: a user without a row is a newcomer with an embedding of zeros.

    A row of pins or users that is the same as one that is there already, in every column, is passed
    over; so all pins may be given with each day. A changed row is refused.

    Where a column may be null and is in every row, its type does not matter. Any other column is
    passed on, as a feature; its type stays the same, and rows of batches without it have nulls.

    Ids of users and of pins are integers, or texts, which become 64-bit hashes
    (`id_of`); the names stand below names/ in the log. Embeddings are lists (or a
    two-dimensional array) of float16, float32 or float64 numbers of one width in a version;
    they become float32.

    Args:
        location: path or URI of the log: missing, empty, or written by this class.
        embedding_version: the version that the pins' embeddings belong to.
        candidates: how they were drawn, for pages, where none were logged; the same in all of a
            log.
        replace_days: rows of a day that the log has already replace that table's rows of the day;
            by default they are refused when the block ends.
        late_rows: rows of a day that the log has already are added to it. They come with their own
            `known_at` and `position`, so that what was known before stays what it was. The same
            block given twice counts once, and where a day has many small files they are put
            together: a block may be a minute's.
        complete_to: the log then has all that happened before; without it, to its last day's end.
    """

    def __init__(
        self,
        location: str | Path,
        embedding_version: str,
        *,
        candidates: str = "",
        replace_days: bool = False,
        late_rows: bool = False,
        complete_to: datetime | None = None,
    ) -> None:
        self.uri, self._complete_to = storage.to_uri(location), complete_to
        self._version, self._candidates = embedding_version, candidates
        self._replaces_days, self._takes_late = replace_days, late_rows
        self._stack = contextlib.ExitStack()
        self._is_open = False  # within the block, while all of its batches were right

    def __enter__(self) -> Self:
        """Take the log's place, and look at what is there.

        Raises:
            ConfigurationError: something else is there.
            RunInProgressError: another process writes there.
            TransientStorageError: the storage failed.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(storage.exclusive_lock(self.uri, f"writing to {self.uri}"))
            self._existing: Existing | None = find_writers_log(self.uri)
            self._known = self._existing.log if self._existing else EventLog(self.uri, ())
            parent = self.uri.rsplit("/", 1)[0]
            self._scratch = stack.enter_context(storage.scratch_folder(parent))
            settings = _SETTINGS | {"temp_directory": str(self._scratch / "spilled")}
            database = duckdb.connect(self._scratch / "rows.duckdb", config=settings)
            self._database = stack.enter_context(database)
            settled = self._existing.record.settled if self._existing else {}
            self._block = Block(self._version, dict(settled), is_late=self._takes_late)
            if self._candidates:
                self._block.settle(CANDIDATES, self._candidates, "draw as before")
            self._stack = stack.pop_all()
        self._schemas: dict[str, pa.Schema] = {}
        self._num_batches, self._num_given = Counter[str](), 0
        self._is_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Publish everything where the block ended well; give the place free in any case."""
        with self._stack:
            is_whole, self._is_open = self._is_open, False
            if kind is None and not is_whole:
                raise DataContractError(
                    f"a batch for {self.uri} was refused; expected every batch of a block to be "
                    f"right, so none of them was written; correct it, and give all of them again"
                )
            if kind is None:
                self._publish()

    def impressions(self, batch: Any) -> None:
        """Take impressions; if they break the contract (`DataContractError`), the block fails."""
        self._take("impressions", batch)

    def actions(self, batch: Any) -> None:
        """Take actions; if they break the contract (`DataContractError`), the block fails."""
        self._take("actions", batch)

    def pins(self, batch: Any) -> None:
        """Take pins and embeddings; if they break the contract, the block fails."""
        self._take("pins", batch)

    def users(self, batch: Any) -> None:
        """Take what was known of users at some instants; as with the other tables."""
        self._take("users", batch)

    def _take(self, table: str, batch: Any) -> None:
        if not self._is_open:
            raise ConfigurationError(
                f"EventLogWriter({self.uri!r}) takes {table} outside of its block, or after a "
                f"batch that was refused; expected it within `with EventLogWriter(...) as "
                f"writer:`, all batches right; move the call into the block, or begin it again"
            )
        self._is_open = False  # until all of the batch is kept
        self._num_batches[table] += 1
        try:
            # A frame without rows, such as a day without actions, tells no types.
            if len(given := table_of(batch)):
                rows = normalise(table, given, self._block)
                for each, found in ((table, rows), *self._block.names.items()):
                    self._keep(each, found)
        except DataContractError as error:
            place = f"{table}, batch {self._num_batches[table]}"
            raise DataContractError(f"{place}: {error}") from error
        self._is_open = True

    def _keep(self, table: str, rows: pa.Table) -> None:
        """Keep rows until the block ends; a column that some rows lack is null there."""
        numbers = pa.array(np.arange(len(rows)) + self._num_given)
        self._num_given += len(rows)
        before, name = self._schemas.get(table, pa.schema([])), quoted(table)
        kept = f"SELECT * FROM {name} UNION ALL BY NAME " if before.names else ""
        query = f"CREATE OR REPLACE TABLE {name} AS {kept}SELECT * FROM registered"
        if set(rows.schema.names) <= set(before.names):
            query = f"INSERT INTO {name} BY NAME SELECT * FROM registered"
        self._schemas[table] = schema = pa.unify_schemas([before, rows.schema])
        try:
            with self._told_errors():
                self._database.register("registered", rows.append_column(_ROW, numbers))
                self._database.execute(query)
                empty = self._database.sql(f"SELECT * FROM {name} LIMIT 0").to_arrow_table()
                empty.select(schema.names).cast(schema)
        except (duckdb.NotImplementedException, pa.ArrowNotImplementedError) as error:
            types = {field.name: str(field.type) for field in rows.schema}
            raise DataContractError(
                f"a column has a type that cannot be kept ({error}); found {types}; expected "
                f"texts, numbers, booleans, dates, times or lists of them; cast the column"
            ) from error

    def _publish(self) -> None:
        """Write the files of the log, or of what is added to it, and bring them to their place.

        Raises:
            DataContractError: a new log lacks a table, or rows are of days that the log has.
        """
        record = self._existing.record if self._existing else None
        is_new = record is None or not record.files
        missing = [t for t in ("impressions", "actions", "pins") if t not in self._schemas]
        if is_new and missing:
            raise DataContractError(
                f"a new event log at {self.uri} would have no {' and no '.join(missing)}; "
                f"expected rows of impressions, actions and pins; give them in the same block"
            )
        batch, is_given = self._digest(), False
        if record and self._takes_late:
            is_given = batch in record.batches
        elif record:  # By a writer that was killed when it had added them.
            is_given = record.batches[-1:] == (batch,) and record.complete_to == self._complete_to
        if not self._schemas or is_given:
            log.info("%s has all that was given already", self.uri)
            return
        dropped = self._dropped(dict(record.files) if record else {})
        folder = self._scratch / "event_log"
        folder.mkdir()
        settled, number = self._block.settled, itertools.count(1)
        with storage.translated_errors(self.uri, "writing the event log for"):
            for table in (*EVENT_LOG_TABLES, *NAMES.values()):
                if table in self._schemas:
                    if table == "impressions":
                        self._number_positions()
                    if table in KEYS:
                        self._pass_over_repeats(table, dropped)
                    for rows in self._sorted(table):
                        write_table(folder, table, rows, f"{next(number):06d}")
            if is_new and "users" not in self._schemas:
                # A log has every table, also one without rows.
                users = with_embedding_dim(USERS, int(settled[pins_width(self._version)]))
                write_table(folder, "users", users.empty_table(), f"{next(number):06d}")
        if not any(folder.iterdir()):
            log.info("%s has all that was given already", self.uri)
            return
        said = EventLogRecord(
            made_by=WRITER,
            settled=dict(sorted(settled.items())),
            complete_to=self._complete_to,
            batches=(batch,),
            files={},
        )
        made = publish(folder, self.uri, said, record, dropped)
        log.info("wrote %s: it has %s", self.uri, made.num_rows)

    def _dropped(self, files: dict[str, int]) -> set[str]:
        """Return which of the log's files are dropped: of days written anew, or small ones.

        The rows of small files join those of the block, whose files then have them.

        Args:
            files: Rows by file of the log.

        Raises:
            DataContractError: there are rows of days that the log has, and nothing says that they
                replace those or are late; or they were known before a time to which it is complete.
        """
        small, whole = set[str](), set[str]()
        complete_to = self._existing.record.complete_to if self._existing else None
        for table in self._schemas:
            folders, time = {table}, EVENT_TIME_COLUMNS.get(table)
            if time:
                days = self._ask(f"SELECT DISTINCT {time} // {DAY_MS} FROM {quoted(table)}")
                folders = {day_folder(table, day) for (day,) in days}
            here = {name for name in files if name.rpartition("/")[0] in folders}
            if time and complete_to and not self._replaces_days:
                [(known,)] = self._ask(f"SELECT min(known_at) FROM {quoted(table)}")
                if known < to_ms(complete_to):
                    raise DataContractError(
                        f"{table}: known_at is {with_utc(known)}; expected none before "
                        f"{complete_to:%Y-%m-%d %H:%M} UTC, to which a writer has said that the "
                        f"log is complete; give the time at which a row arrived, or all rows of "
                        f"its day with replace_days=True"
                    )
            if time and self._replaces_days:
                whole |= here
            elif time and here and not self._takes_late:
                there = sorted({name.split("=")[1][:10] for name in here})
                raise DataContractError(
                    f"{table} of {', '.join(there[:5])} are in {self.uri} already ({len(there)} "
                    f"such days); expected days that it does not have; leave out their rows, give "
                    f"all rows of these days with --replace-days (replace_days=True in Python), or "
                    f"late ones with --late-rows (late_rows=True)"
                )
            few = [name for name in here if files[name] < _SMALL_FILE_ROWS]
            by_folder = Counter(name.rpartition("/")[0] for name in few)
            small |= {n for n in few if by_folder[n.rpartition("/")[0]] >= _MANY_SMALL_FILES}
        for file in self._known.files:
            if self._known.name_of(file) in small - whole:
                dataset = open_file(self._known, file)
                for rows in iterate_batches(dataset, file, dataset.schema.names, _BATCH_ROWS, None):
                    self._keep(file.table, pa.table(rows))
        return small | whole

    def _digest(self) -> str:
        """Return a digest of the block's rows, whatever their order and batches."""
        found = [
            (table, self._ask(f"SELECT sum(hash(row)) FROM ({rows} FROM {quoted(table)}) AS row"))
            for rows in [f"SELECT * EXCLUDE ({quoted(_ROW)})"]
            for table in sorted(self._schemas)
        ]
        return hashlib.blake2b(str(found).encode(), digest_size=8).hexdigest()

    def _number_positions(self) -> None:
        """Give impressions their place among their request's rows, where they have none.

        They are counted by time and then as they were given, over all batches and days.

        Raises:
            DataContractError: a request has too many rows.
        """
        self._ask(
            "CREATE OR REPLACE TABLE impressions AS SELECT * REPLACE (coalesce(position, "
            "row_number() OVER (PARTITION BY request_id ORDER BY impressed_at, "
            f"{quoted(_ROW)}) - 1) AS position) FROM impressions"
        )
        query = "SELECT request_id FROM impressions WHERE position > "
        for (crowded,) in self._ask(f"{query} {_LARGEST_POSITION} ORDER BY ALL LIMIT 1"):
            raise DataContractError(
                f"impressions: request {crowded!r} has more than {_LARGEST_POSITION:,} rows; "
                f"expected one request_id for each page that was shown; make request_id unique"
            )

    def _pass_over_repeats(self, table: str, dropped: Set[str]) -> None:
        """Remove rows whose key came before, in the block or in files of the log that stay.

        Of the log, few rows are in memory at a time; those with a key of the block are kept beside
        the block's meanwhile, with a number below 0.

        Raises:
            DataContractError: such a row has another value in some column.
        """
        name, row, schema = quoted(table), quoted(_ROW), self._schemas[table]
        first, keys = KEYS[table][0], ", ".join(KEYS[table])
        [(low, high)] = self._ask(f"SELECT min({first}), max({first}) FROM {name}")
        wanted = (pc.field(first) >= low) & (pc.field(first) <= high)
        if table == "pins":
            wanted &= pc.field("embedding_version") == self._version
        for file in self._known.files_of(table):
            if self._known.name_of(file) in dropped:
                continue
            dataset = open_file(self._known, file)
            names = [each for each in schema.names if each in dataset.schema.names]
            for batch in iterate_batches(dataset, file, names, _BATCH_ROWS, wanted):
                self._database.register("registered", pa.table(batch))
                self._ask(
                    f"INSERT INTO {name} BY NAME SELECT *, -1 AS {row} FROM registered "
                    f"SEMI JOIN {name} USING ({keys})"
                )
        others = [each for each in schema.names if each not in KEYS[table]]
        columns = [(f"again.{n}", f"before.{n}") for n in map(quoted, others)]
        differ = ", ".join(f"{one} IS DISTINCT FROM {other}" for one, other in columns)
        texts = (", ".join(f"{each}::VARCHAR" for each in of) for of in zip(*columns, strict=True))
        here, there = (f"[{each}][place]" for each in texts)
        query = (
            f"SELECT {keys}, before.{row} < 0, list_position([{differ}], true) AS place, {here}, "
            f"{there} FROM {name} AS again JOIN (FROM {name} QUALIFY row_number() OVER (PARTITION "
            f"BY {keys} ORDER BY {row}) = 1) AS before USING ({keys}) WHERE again.{row} <> "
            f"before.{row} AND place > 0 ORDER BY {keys} LIMIT 1"
        )
        for *key, is_in_log, place, found, earlier in self._ask(query):
            ids = zip(KEYS[table], key, strict=True)
            named = ", ".join(f"{n}={with_utc(v) if n == 'as_of' else v}" for n, v in ids)
            where = "the log" if is_in_log else "these batches"
            raise DataContractError(
                f"{table}: {named} has another row in {where}, with another value in column "
                f"{others[place - 1]!r} ({shortened(str(found), 40)} here, "
                f"{shortened(str(earlier), 40)} there); expected one row for it, or the same row "
                f"again, which is passed over; leave out the changed rows, or write changed pins "
                f"as a new embedding version, give users a later as_of, and rename one of two "
                f"names that share an id"
            )
        firsts = f"SELECT min({row}) AS least FROM {name} GROUP BY {keys} HAVING least >= 0"
        self._ask(f"DELETE FROM {name} WHERE {row} NOT IN ({firsts})")

    def _sorted(self, table: str) -> Iterator[pa.Table]:
        """Yield the rows of a table in their order, as many at a time as a file may have.

        How many that is depends on the columns alone, and not on how the rows were given.
        """
        schema = self._schemas[table]
        own = EVENT_LOG_TABLES[table].names if table in EVENT_LOG_TABLES else schema.names
        names = [name for name in own if name in schema.names]
        names += sorted(set(schema.names) - set(names))
        row_bytes = sum(
            4 * each.list_size if pa.types.is_fixed_size_list(each) else 16 for each in schema.types
        )
        columns, order = (", ".join(map(quoted, each)) for each in (names, SORT_KEYS[table]))
        query = f"SELECT {columns} FROM {quoted(table)} ORDER BY {order}, {quoted(_ROW)}"
        num_rows = max(1, min(MAX_FILE_ROWS, MAX_FILE_BYTES // row_bytes))
        with self._told_errors():
            for batch in self._database.sql(query).to_arrow_reader(num_rows):
                if len(batch):
                    rows = pa.Table.from_batches([batch])
                    yield rows.cast(pa.schema([schema.field(name) for name in names]))

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with self._told_errors():
            return self._database.execute(query).fetchall()

    @contextlib.contextmanager
    def _told_errors(self) -> Iterator[None]:
        """Turn what DuckDB says of a full or failing disk into an error that may pass."""
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise TransientStorageError(
                f"keeping rows for {self.uri} failed: {error}; expected room on the disk for all "
                f"rows of the block, and {_SETTINGS['memory_limit']} of memory; make room, or "
                f"write fewer days in one block, then retry"
            ) from error


def id_of(name: str) -> int:
    """Return the id of a name, in [-2^63, 2^63)."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def pins_width(version: str) -> str:
    """Return what is settled of the width of a version's embeddings, which users share."""
    return f"embeddings of {version}"


def table_of(batch: Any) -> pa.Table:
    """Return the rows of a batch as Arrow has them, without the index that pandas adds.

    Args:
        batch: a pandas or polars DataFrame, an Arrow table, record batch or reader, or a mapping
            from column names to arrays, of which a two-dimensional one holds a list per row.

    Raises:
        DataContractError: it is none of these, or one of its columns has no single type.
    """
    try:
        if isinstance(batch, Mapping):
            batch = {
                name: to_list_column(np.ascontiguousarray(values))
                if getattr(values, "ndim", 1) == 2
                else values
                for name, values in batch.items()
            }
        given = pa.table(batch)
        names = enumerate(given.column_names)
        own = [number for number, name in names if not name.startswith(_INDEX)]
        columns = [_plain(given.column(number)) for number in own]
        return pa.table(columns, names=[given.column_names[number] for number in own])
    except (ValueError, TypeError, pa.ArrowNotImplementedError) as error:
        raise DataContractError(
            f"a {type(batch).__name__} cannot be read as an Arrow table: {error}; expected a "
            f"pandas or polars DataFrame, an Arrow table, record batch or reader, or a dictionary "
            f"of columns, each of one type, as ids that are all integers or all strings; give it "
            f"as one, or cast the column that mixes them"
        ) from error


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return what a dictionary's codes stand for, and texts in the one type of the log."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    is_other_text = pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type)
    return values.cast(pa.string()) if is_other_text else values


@dataclass
class Block:
    """What the batches of a block, and of a log, agree on."""

    version: str  # of the pins' embeddings
    settled: dict[str, str | int]
    """What the log and the batches so far have settled, to which each batch adds: what ids are made
    from, widths of embeddings, and the types of columns that a table has beyond the contract."""
    is_late: bool = False  # A time or place that is not given is not made up then.
    names: dict[str, pa.Table] = field(default_factory=dict)
    """The names that the ids of the newest batch were made from (NAMES_SCHEMA), by their folder."""

    def settle(self, what: str, found: str | int, remedy: str) -> None:
        """Settle something, or refuse it where it was settled otherwise."""
        before = self.settled.setdefault(what, found)
        if found != before:
            raise DataContractError(
                f"{what} is {found}, and {before} in earlier rows of the log; expected the same in "
                f"all of a log; {remedy}, or write a log of its own"
            )


def normalise(table: str, given: pa.Table, block: Block) -> pa.Table:
    """Return a batch in the contract's types, checked as the reader checks a file.

    Args:
        table: one of EVENT_LOG_TABLES.
        given: rows as they were given.
        block: what they have to agree with.

    Raises:
        DataContractError: all that is wrong with the batch.
    """
    names, problems, block.names = given.column_names, list[str](), {}
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataContractError(f"{twice} come more than once; expected each column once")
    schema, defaults = contract_of(table, names), DEFAULTS[table]
    if block.is_late:
        defaults = {n: v for n, v in defaults.items() if n not in ("known_at", "position")}
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name, values in zip(names, given.columns, strict=True):
        try:
            columns[name] = _converted(table, name, given, block)
        except DataContractError as error:
            problems.append(str(error))
        except pa.ArrowInvalid as error:
            wanted = schema.field(name).type if name in schema.names else "one type"
            told = {"found": values.type, "expected": wanted, "error": error}
            problems.append(finding("does_not_fit", column=name, **told).message)
    for name, default in defaults.items():
        if name == "known_at" and default in columns:
            columns.setdefault(name, columns[default])
        elif name not in (*names, "known_at"):
            value = block.version if name == "embedding_version" else default
            columns[name] = pa.repeat(pa.scalar(value, schema.field(name).type), len(given))
    if table == "users" and "embedding" not in names:
        columns["embedding"] = _zeros(len(given), block)
    rows = pa.table(columns)
    # What has been told already is not missing besides.
    asked = [f for f in schema if f.name in columns or f.name not in (*names, *defaults)]
    findings = list(column_problems("", rows.schema, pa.schema(asked)))
    is_wrong = {each.column for each in findings}
    is_counted = "position" in defaults
    fit = [f.with_nullable(f.nullable or (is_counted and f.name == "position")) for f in asked]
    rows, more = fitted("", rows, pa.schema([f for f in fit if f.name not in is_wrong]))
    findings = [*findings, *more] or list(value_problems("", table, rows))
    problems += [each.message for each in findings]
    if table == "pins" and not problems:
        if others := {*rows["embedding_version"].unique().to_pylist()} - {block.version}:
            problems.append(
                f"embedding_version is {sorted(others)}; expected {block.version!r}, the writer's; "
                f"open a writer for each version"
            )
        has = "given" if PIN_TIME.name in rows.column_names else "not given"
        block.settle(f"pins.{PIN_TIME.name}", has, "give it to all pins or to none")
    if problems:
        numbered = " ".join(f"({number}) {each}." for number, each in enumerate(problems, 1))
        several = f"{len(problems)} problems. {numbered}"
        raise DataContractError(problems[0] if len(problems) == 1 else several)
    return pa.table(dict(zip(rows.column_names, rows.columns, strict=True)))


def _converted(
    table: str, name: str, given: pa.Table, block: Block
) -> pa.ChunkedArray | pa.FixedSizeListArray:
    """Return one of the columns that were given; errors are those of `_column`."""
    values, schema = given[name], contract_of(table, given.column_names)
    if name in NAMES:
        return _ids(name, values, block)
    if name not in schema.names:
        return _own_column(f"{table}.{name}", values, block)
    if name == "embedding":
        return _embeddings(table, given, block)
    if pa.types.is_timestamp(values.type):
        zone, what = values.type.tz or NO_ZONE, f"{ZONE_OF}{table}.{name}"
        block.settled[what] = NO_ZONE if NO_ZONE in (zone, block.settled.get(what)) else zone
    return _column(schema.field(name), values)


def _column(wanted: pa.Field, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with what people give for a type as that type: texts, times, numbers.

    A time without a zone is in UTC, and parts of a millisecond are cut off. Where every value is
    missing, pandas and numpy make a column of floats, and so they do of texts.

    Raises:
        DataContractError: integers have become floats.
        ArrowInvalid: a value does not fit.
    """
    type_, is_float = values.type, pa.types.is_floating(wanted.type)
    if wanted.nullable and pc.all(values.is_null(nan_is_null=not is_float)).as_py():
        return pa.chunked_array([pa.nulls(len(values), wanted.type)])
    if pa.types.is_floating(type_) and not is_float:
        raise DataContractError(
            f"column {wanted.name!r} is {type_}; expected {wanted.type}; cast it: rows without a "
            f"value turn integers into floats in pandas, but not with astype('Int64')"
        )
    if wanted.type == pa.int64() and (pa.types.is_timestamp(type_) or pa.types.is_date(type_)):
        to_ms = pa.timestamp("ms", getattr(type_, "tz", None))
        options = pc.CastOptions(to_ms, allow_time_truncate=True)
        return values.cast(options=options).cast(pa.int64())
    if pa.types.is_integer(type_) and (wanted.name == "request_id" or is_float):
        return values.cast(wanted.type, safe=False)
    return values


def _ids(name: str, values: pa.ChunkedArray, block: Block) -> pa.ChunkedArray:
    """Return ids as integers; the block gets the names that they were made from."""
    kind = "integer"
    if pa.types.is_string(values.type):
        encoded = pc.dictionary_encode(values.combine_chunks())
        ids = pa.array([id_of(text) for text in encoded.dictionary.to_pylist()], pa.int64())
        kind = "string"
        block.names[NAMES[name]] = pa.table([ids, encoded.dictionary], schema=NAMES_SCHEMA)
        values = pa.chunked_array([ids.take(encoded.indices)])
    elif not pa.types.is_integer(values.type):
        raise DataContractError(
            f"column {name!r} is {values.type}; expected integers or strings; cast it, and leave "
            f"out rows without an id (they turn integers into floats in pandas)"
        )
    remedy = "give one kind, because the same user or pin would have two ids"
    block.settle(f"kind of {name}", kind, remedy)
    return values


def _embeddings(table: str, given: pa.Table, block: Block) -> pa.FixedSizeListArray:
    """Return embeddings as fixed-size lists of float32, of the width that is settled.

    The users' lie in the pins' space, and a model multiplies them: one width for both.
    """
    type_ = given["embedding"].type
    if not pa.types.is_floating(getattr(type_, "value_type", type_)):
        raise DataContractError(
            f"column 'embedding' is {type_}; expected lists of float16, float32 or float64 "
            f"numbers, all of one width; cast it"
        )
    rows = given.select([n for n in (*NAMES, "embedding") if n in given.column_names])
    for width in (pins_width(block.version), USERS_WIDTH)[: 2 if table == "users" else 1]:
        matrix = embedding_matrix("", rows, int(block.settled.get(width, 0)))
        block.settled[width] = matrix.shape[1]
    return to_list_column(matrix.astype(np.float32, copy=False))


def _zeros(num_users: int, block: Block) -> pa.FixedSizeListArray:
    """Return embeddings of zeros, as wide as other users' or the pins'."""
    width = block.settled.get(USERS_WIDTH) or block.settled.get(pins_width(block.version))
    if not width:
        raise DataContractError(
            f"the users have no column 'embedding', and no pins of version {block.version!r} say "
            f"how wide their zeros are; expected such pins in the log, or before these users in "
            f"the block; give the pins first, or the users' embeddings"
        )
    return to_list_column(np.zeros((num_users, int(width)), np.float32))


def _own_column(what: str, values: pa.ChunkedArray, block: Block) -> pa.ChunkedArray:
    """Return a column beyond the contract, in the type that it had before; texts are strings."""
    if pa.types.is_null(values.type):
        values = values.cast(pa.string())
    elif values.type == pa.float16():  # which DuckDB does not know
        values = values.cast(pa.float32())
    before = str(block.settled.get(what, values.type))
    if values.null_count == len(values) and str(values.type) != before:
        with contextlib.suppress(ValueError):  # a list, say
            return pa.chunked_array([pa.nulls(len(values), pa.type_for_alias(before))])
    block.settle(what, str(values.type), "cast it")
    return values


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
