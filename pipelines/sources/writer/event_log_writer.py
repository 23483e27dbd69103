"""`EventLogWriter`: somebody's tables in, an event log out, whole or not at all.

The rows of a block wait in a DuckDB database beside the log and come out sorted, unique, in files;
names that ids were made from are tables too. DuckDB holds a few hundred MiB of them in memory and
the rest on the disk, whatever their number and order. People hand over all their pins with each
day, of which most are in the log: a row of pins or users that came before is passed over where it
is the same, and refused where it has changed. Not for what the rows mean, for checking one batch
(`pipelines.sources.writer.batches`) nor for publishing (`pipelines.sources.publish`).
"""

import contextlib
import itertools
import logging
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError, DataContractError, TransientStorageError
from pipelines.contracts.schemas import EVENT_LOG_TABLES, USERS, with_embedding_dim
from pipelines.contracts.time import with_utc
from pipelines.event_log.log_files import EventLog
from pipelines.event_log.reader import iterate_batches, open_file
from pipelines.event_log.record import NAMES
from pipelines.event_log.rules import EVENT_TIME_COLUMNS
from pipelines.plain_text import shortened
from pipelines.sources.publish import (
    WRITER,
    Existing,
    find_writers_log,
    publish_writers_log,
    record_of,
    write_table,
)
from pipelines.sources.writer.batches import USERS_WIDTH, Block, normalise, pins_width, tables_of

log = logging.getLogger(__name__)

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
_ANOTHER_NAME = "rename one of the two where the data comes from, or give integer ids"
_REMEDIES = {
    "pins": "write changed pins as a new embedding version",
    "users": "give them a later as_of",
    NAMES["user_id"]: _ANOTHER_NAME,
    NAMES["pin_id"]: _ANOTHER_NAME,
}
"""By table: what else can be done about a changed row than leaving it out."""
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
_LARGEST_POSITION = (1 << 15) - 1
_BATCH_BYTES = 16 << 20
"""Of the rows of a log's file, about as many are compared at a time."""
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
    of columns. Batches come in any order and number, and their rows too. Each is checked as the
    reader checks a file, and a message names all that is wrong with it. The rows wait on the disk,
    in a database near the log, and a few hundred MiB of them are in memory. Leaving the block puts
    all of them in place; an exception in the block, or a batch that was refused, puts none.

    Columns and defaults (a time is int64 ms since the epoch, or a timestamp or date column, in UTC
    where it has no zone; parts of a millisecond are cut off):

    - `impressions`: request_id (text or integer), user_id, pin_id, impressed_at; `known_at` is
      impressed_at, `position` the place among the request's rows of this block by time and then as
      they were given, `surface` 'homefeed', `is_exploration` False, `propensity` null.
    - `actions`: user_id, pin_id, action_type, acted_at; `known_at` is acted_at, `request_id` null.
    - `pins`: pin_id, embedding; `embedding_version` is the writer's; `known_at`, where it is given,
      says from when on the row is known, and a request before it sees zeros. Without it a pin is
      known from the beginning.
    - `users`: user_id, as_of; `embedding` is zeros as wide as the pins', `state` 'unknown',
      `location` null. Users' embeddings lie in the pins' space. A log may have no users: a user
      without a row is a newcomer with an embedding of zeros.

    A row of pins or users that is the same as one that is there already, in every column, is passed
    over; so all pins may be given with each day. A changed row is refused.

    Where a column may be null and is in every row, its type does not matter. Any other column is
    passed on, as a feature; its type stays the same, and rows of batches without it have nulls.

    Ids of users and of pins are integers, or texts, which become 64-bit hashes
    (`batches.id_of`); the names stand below names/ in the log. Embeddings are lists (or a
    two-dimensional array) of float16, float32 or float64 numbers of one width in a version;
    they become float32.

    Args:
        location: path or URI of the log: missing, empty, or written by this class.
        embedding_version: the version that the pins' embeddings belong to.
        replace_days: rows of a day that the log has already replace that table's rows of the day;
            by default they are refused.
    """

    def __init__(
        self, location: str | Path, embedding_version: str, *, replace_days: bool = False
    ) -> None:
        self.uri = storage.to_uri(location)
        self._version = embedding_version
        self._replaces_days = replace_days
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
            parent = self.uri.rsplit("/", 1)[0]
            self._scratch = stack.enter_context(storage.scratch_folder(parent))
            settings = _SETTINGS | {"temp_directory": str(self._scratch / "spilled")}
            database = duckdb.connect(self._scratch / "rows.duckdb", config=settings)
            self._database = stack.enter_context(database)
            self._stack = stack.pop_all()
        record = self._existing.record if self._existing else None
        closed = {}
        if record and not self._replaces_days:
            closed = {table: record.days_of(table) for table in EVENT_TIME_COLUMNS}
        self._block = Block(self._version, dict(record.settled) if record else {}, closed)
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
        first_row = 0  # of a part; a reader gives several
        for given in tables_of(batch, f"{table}, batch {self._num_batches[table]}"):
            try:
                rows, names = normalise(table, given, self._block)
                for each, found in ((table, rows), *names.items()):
                    self._keep(each, found)
            except DataContractError as error:
                part = f" from row {first_row:,}" if first_row else ""
                raise DataContractError(
                    f"{table}, batch {self._num_batches[table]}{part}: {error}"
                ) from error
            first_row += len(given)
        self._is_open = True

    def _keep(self, table: str, rows: pa.Table) -> None:
        """Keep rows until the block ends; a column that some rows lack is null there."""
        numbers = pa.array(np.arange(len(rows)) + self._num_given)
        self._num_given += len(rows)
        before, name = self._schemas.get(table), _quoted(table)
        kept = f"SELECT * FROM {name} UNION ALL BY NAME " if before else ""
        query = f"CREATE OR REPLACE TABLE {name} AS {kept}SELECT * FROM registered"
        if before and set(rows.schema.names) <= set(before.names):
            query = f"INSERT INTO {name} BY NAME SELECT * FROM registered"
        self._schemas[table] = schema = (
            pa.unify_schemas([before, rows.schema]) if before else rows.schema
        )
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
        """Write the files of the log, or of what is added to it, and bring them to their place."""
        missing = [t for t in ("impressions", "actions", "pins") if t not in self._schemas]
        if self._existing is None and missing:
            raise DataContractError(
                f"a new event log at {self.uri} would have no {' and no '.join(missing)}; "
                f"expected rows of impressions, actions and pins; give them in the same block"
            )
        folder = self._scratch / "event_log"
        folder.mkdir()
        generation = self._existing.record.generation + 1 if self._existing else 1
        # Two writers at once on an object store must not write over each other's files.
        own = "" if storage.is_local(self.uri) else f"-{uuid.uuid4().hex[:8]}"
        parts = (f"{generation:06d}-{number:06d}{own}" for number in itertools.count(1))
        with storage.translated_errors(self.uri, "writing the event log for"):
            for table in (*EVENT_LOG_TABLES, *NAMES.values()):
                if table in self._schemas:
                    self._fill_in(table)
                    if table in KEYS:
                        self._pass_over_repeats(table)
                    for rows in self._sorted(table):
                        write_table(folder, table, rows, next(parts))
            if self._existing is None and "users" not in self._schemas:
                # A log has every table, also one without rows.
                users = with_embedding_dim(
                    USERS, int(self._block.settled[pins_width(self._version)])
                )
                write_table(folder, "users", users.empty_table(), next(parts))
            added = record_of(folder, WRITER, settled=dict(sorted(self._block.settled.items())))
        if not added.files:
            log.info("%s has all that was given already", self.uri)
            return
        publish_writers_log(folder, self.uri, added, self._existing)
        num_rows = ", ".join(f"{number:,} {table}" for table, number in added.num_rows.items())
        log.info("wrote %s: %s", self.uri, num_rows)

    def _fill_in(self, table: str) -> None:
        """Give what all rows together say: users' zeros, and impressions their positions.

        A position is the place among its request's rows. They are counted by time and then as they
        were given, over all batches and days.

        Raises:
            DataContractError: no pins say how wide zeros are, or a request has too many rows.
        """
        if table == "users":
            settled = self._block.settled
            width = settled.get(USERS_WIDTH) or settled.get(pins_width(self._version))
            if not width:
                raise DataContractError(
                    f"the users have no column 'embedding', and no pins of version "
                    f"{self._version!r} say how wide their zeros are; expected pins of that "
                    f"version in the log or in this block; give them, or the users' embeddings"
                )
            # A column that is there already stays as it is.
            self._ask(f"ALTER TABLE users ADD COLUMN IF NOT EXISTS embedding FLOAT[{width}]")
            zeros = f"list_resize([]::FLOAT[], {width}, 0.0)::FLOAT[{width}]"
            self._ask(f"UPDATE users SET embedding = {zeros} WHERE embedding IS NULL")
            field = pa.field("embedding", pa.list_(pa.float32(), int(width)))
            schema = self._schemas["users"]
            if "embedding" not in schema.names:
                self._schemas["users"] = schema.append(field)
        elif table == "impressions":
            self._ask(
                "CREATE OR REPLACE TABLE impressions AS SELECT * REPLACE (coalesce(position, "
                "row_number() OVER (PARTITION BY request_id ORDER BY impressed_at, "
                f"{_quoted(_ROW)}) - 1) AS position) FROM impressions"
            )
            query = "SELECT request_id FROM impressions WHERE position > "
            for (crowded,) in self._ask(f"{query} {_LARGEST_POSITION} ORDER BY ALL LIMIT 1"):
                raise DataContractError(
                    f"impressions: request {crowded!r} has more than {_LARGEST_POSITION:,} rows; "
                    f"expected one request_id for each page that was shown; make request_id unique"
                )

    def _pass_over_repeats(self, table: str) -> None:
        """Remove rows whose key came before, in the block or in the log.

        Of the log, few rows are in memory at a time.

        Raises:
            DataContractError: such a row has another value in some column.
        """
        name, keys, schema = _quoted(table), KEYS[table], self._schemas[table]
        number = f"row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {_quoted(_ROW)})"
        self._pass_over(table, f"(FROM {name} QUALIFY {number} = 1)", "these batches")
        [(low, high)] = self._ask(f"SELECT min({keys[0]}), max({keys[0]}) FROM {name}")
        wanted = (pc.field(keys[0]) >= low) & (pc.field(keys[0]) <= high)
        if table == "pins":
            wanted &= pc.field("embedding_version") == self._version
        known = self._existing.log if self._existing else EventLog(self.uri, ())
        for file in known.files_of(table):
            dataset = open_file(known, file)
            names = [each for each in schema.names if each in dataset.schema.names]
            size = max(1, _BATCH_BYTES // sum(map(_num_bytes, schema.types)))
            for batch in iterate_batches(dataset, file, names, size, wanted):
                there = {field.name: pa.nulls(len(batch), field.type) for field in schema}
                there |= dict(zip(names, batch.columns, strict=True))
                there[_ROW] = pa.array(np.full(len(batch), -1))
                self._database.register("registered", pa.table(there))
                self._pass_over(table, "registered", "the log")

    def _pass_over(self, table: str, before: str, where: str) -> None:
        """Remove rows of which a row before has the key; refuse them where a column differs.

        Args:
            table: the rows.
            before: a relation with the rows before, of the same columns.
            where: what to call it.
        """
        row, keys = _quoted(_ROW), KEYS[table]
        others = [each for each in self._schemas[table].names if each not in keys]
        pairs = (
            f"FROM {_quoted(table)} AS again JOIN {before} AS before USING ({', '.join(keys)}) "
            f"WHERE again.{row} <> before.{row}"
        )
        differ = [f"again.{name} IS DISTINCT FROM before.{name}" for name in map(_quoted, others)]
        texts = [f"again.{name}::VARCHAR, before.{name}::VARCHAR" for name in map(_quoted, others)]
        query = (
            f"SELECT {', '.join((*keys, *differ, *texts))} {pairs} AND "
            f"({' OR '.join(differ) or 'false'}) ORDER BY {', '.join(keys)} LIMIT 1"
        )
        for found in self._ask(query):
            place = found.index(True, len(keys))
            here, earlier = found[(start := 2 * place + len(others) - len(keys)) : start + 2]
            ids = dict(zip(keys, found, strict=False))
            ids |= {"as_of": with_utc(ids["as_of"])} if "as_of" in ids else {}
            named = ", ".join(f"{key}={value}" for key, value in ids.items())
            of = f" of version {self._version!r}" if table == "pins" else ""
            raise DataContractError(
                f"{table}: {named}{of} has another row in {where}, with another value in column "
                f"{others[place - len(keys)]!r} ({shortened(str(here), 40)} here, "
                f"{shortened(str(earlier), 40)} there); expected one row for it, or the same row "
                f"again, which is passed over; leave out the changed rows, or {_REMEDIES[table]}"
            )
        self._ask(f"DELETE FROM {_quoted(table)} WHERE {row} IN (SELECT again.{row} {pairs})")

    def _sorted(self, table: str) -> Iterator[pa.Table]:
        """Yield the rows of a table in their order, as many at a time as a file may have.

        How many that is depends on the columns alone, and not on how the rows were given.
        """
        schema = self._schemas[table]
        own = EVENT_LOG_TABLES[table].names if table in EVENT_LOG_TABLES else schema.names
        names = [name for name in own if name in schema.names]
        names += sorted(set(schema.names) - set(names))
        num_rows = min(MAX_FILE_ROWS, MAX_FILE_BYTES // sum(map(_num_bytes, schema.types)))
        columns, order = (", ".join(map(_quoted, each)) for each in (names, SORT_KEYS[table]))
        query = f"SELECT {columns} FROM {_quoted(table)} ORDER BY {order}, {_quoted(_ROW)}"
        with self._told_errors():
            for batch in self._database.sql(query).to_arrow_reader(max(1, num_rows)):
                rows = pa.Table.from_batches([batch])
                if len(rows):
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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _num_bytes(type_: pa.DataType) -> int:
    """Return about how many bytes a value takes."""
    return 16 if not pa.types.is_fixed_size_list(type_) else 4 * type_.list_size
