"""Rows of a block wait in a DuckDB database beside the log, and come out sorted, unique, in files.

DuckDB holds a few hundred MiB of them in memory and the rest on the disk, whatever their number and
order. People hand over all their pins with each day, of which most are in the log: a row of pins or
users that came before is passed over where it is the same, and refused where it has changed. Not
for checking one batch (`pipelines.sources.writer.batches`) nor for publishing.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.contracts.time import DAY_MS, with_utc
from pipelines.event_log.log_files import EVENT_TIME_COLUMNS, EventLog
from pipelines.event_log.reader import iterate_batches, open_file
from pipelines.event_log.record import NAMES

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
_LARGEST_POSITION = (1 << 15) - 1
_BATCH_BYTES = 16 << 20
"""Of the rows of a log's file, about as many are compared at a time."""
_ROW = "_number of the row"
"""In what order the rows were given."""


class KeptRows:
    """The rows of a block, by table; names that ids were made from are tables too.

    Args:
        folder: where the database goes; it exists.
        uri: the log's, for messages.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self._uri = uri
        self._schemas: dict[str, pa.Schema] = {}
        self._num_given = 0
        settings = _SETTINGS | {"temp_directory": str(folder / "spilled")}
        self._database = duckdb.connect(folder / "rows.duckdb", config=settings)

    def close(self) -> None:
        """Let the database go; its files may be removed then."""
        self._database.close()

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Forget what was added in this block where it ends by an exception of any kind."""
        schemas = dict(self._schemas)
        self._database.begin()
        try:
            yield
            with self._told_errors():
                self._database.commit()
        except BaseException:
            self._schemas = schemas
            with contextlib.suppress(duckdb.Error):  # a failed commit has rolled back already
                self._database.rollback()
            raise

    def add(self, table: str, rows: pa.Table) -> None:
        """Add rows in any order; a column that some rows lack is null there.

        Raises:
            DataContractError: a column is of a type that DuckDB does not have.
        """
        if len(rows) == 0:
            return
        numbers = pa.array(np.arange(len(rows)) + self._num_given)
        self._num_given += len(rows)
        before = self._schemas.get(table)
        kept = f"SELECT * FROM {_quoted(table)} UNION ALL BY NAME " if before else ""
        query = f"CREATE OR REPLACE TABLE {_quoted(table)} AS {kept}SELECT * FROM registered"
        if before and set(rows.schema.names) <= set(before.names):
            query = f"INSERT INTO {_quoted(table)} BY NAME SELECT * FROM registered"
        schema = pa.unify_schemas([before, rows.schema]) if before else rows.schema
        try:
            stored = rows.cast(_stored(rows.schema)).append_column(_ROW, numbers)
            with self._told_errors():
                self._database.register("registered", stored).execute(query)
                self._database.unregister("registered")
                relation = self._database.sql(f"SELECT * FROM {_quoted(table)} LIMIT 0")
                relation.to_arrow_table().select(schema.names).cast(schema)
        except (duckdb.NotImplementedException, pa.ArrowNotImplementedError) as error:
            types = {field.name: str(field.type) for field in rows.schema}
            raise DataContractError(
                f"{table}: a column has a type that cannot be kept ({error}); found {types}; "
                f"expected texts, numbers, booleans, dates, times or lists of them; cast the column"
            ) from error
        self._schemas[table] = schema

    def num_rows(self, table: str) -> int:
        """Return how many rows of a table there are now."""
        if table not in self._schemas:
            return 0
        return int(self._one(f"SELECT count(*) FROM {_quoted(table)}"))

    def number_positions(self) -> None:
        """Give each impression without a position its place among its request's rows.

        They are counted by time and then as they were given, over all batches and days.

        Raises:
            DataContractError: a request has more rows than positions.
        """
        if "impressions" not in self._schemas or self._one(
            "SELECT bool_and(position IS NOT NULL) FROM impressions"
        ):
            return
        self._ask(
            "CREATE OR REPLACE TABLE impressions AS SELECT * REPLACE (coalesce(position, "
            "row_number() OVER (PARTITION BY request_id ORDER BY impressed_at, "
            f"{_quoted(_ROW)}) - 1) AS position) FROM impressions"
        )
        crowded = self._one(
            f"SELECT min(request_id) FROM impressions WHERE position > {_LARGEST_POSITION}"
        )
        if crowded is not None:
            raise DataContractError(
                f"impressions: request {crowded!r} has more than {_LARGEST_POSITION:,} rows; "
                f"expected one request_id for each page that was shown; make request_id unique"
            )

    def embed_with_zeros(self, embedding_dim: int) -> None:
        """Give the users embeddings of zeros of this width."""
        embedding = pa.field("embedding", pa.list_(pa.float32(), embedding_dim))
        self._ask(
            f"CREATE OR REPLACE TABLE users AS SELECT *, list_resize([]::FLOAT[], {embedding_dim}, "
            f"0.0)::FLOAT[{embedding_dim}] AS embedding FROM users"
        )
        self._schemas["users"] = self._schemas["users"].append(embedding)

    def pass_over_repeats(self, table: str, log: EventLog | None, version: str) -> int:
        """Remove rows whose key came before, in the block or in the log; return how many.

        Of the log, few rows are in memory at a time.

        Args:
            table: a key of KEYS.
            log: what the rows are added to; None for a new log.
            version: the embedding version of the pins.

        Raises:
            DataContractError: such a row has another value in some column.
        """
        num_given = self.num_rows(table)
        if not num_given:
            return 0
        name, row, keys = _quoted(table), _quoted(_ROW), ", ".join(KEYS[table])
        schema = self._schemas[table]
        if self._one(f"SELECT count(*) > count(DISTINCT ({keys})) FROM {name}"):
            first_rows = f"(SELECT min({row}) FROM {name} GROUP BY {keys})"
            before = f"(FROM {name} WHERE {row} IN {first_rows})"
            self._pass_over(table, before, schema, "these batches", version)
        if log is None:
            return num_given - self.num_rows(table)
        first = KEYS[table][0]
        [(low, high)] = self._ask(f"SELECT min({first}), max({first}) FROM {name}")
        wanted = (pc.field(first) >= low) & (pc.field(first) <= high)
        if table == "pins":
            wanted &= pc.field("embedding_version") == version
        for file in log.files_of(table):
            dataset = open_file(log, file)
            names = [name for name in schema.names if name in dataset.schema.names]
            stored = _stored(pa.schema([schema.field(name) for name in names]))
            num_rows = max(1, _BATCH_BYTES // sum(map(_fixed_bytes, stored.types)))
            for batch in iterate_batches(dataset, file, names, num_rows, wanted):
                there = pa.Table.from_batches([batch]).cast(stored)
                there = there.append_column(_ROW, pa.array(np.full(len(there), -1)))
                self._database.register("registered", there)
                self._pass_over(table, "registered", stored, file.path, version)
                self._database.unregister("registered")
        return num_given - self.num_rows(table)

    def files_of(self, table: str) -> Iterator[pa.Table]:
        """Yield the rows of a table as its files hold them: sorted, of one day each where it has.

        How many rows a file gets depends on the rows alone, and not on how they were given.
        """
        if not self.num_rows(table):
            return
        # Arrow's own size of a table depends on how it was cut into batches, so SQL counts.
        schema = self._schemas[table]
        widths = [str(sum(map(_fixed_bytes, schema.types)))]
        widths += [
            f"coalesce(strlen({_quoted(field.name)}::VARCHAR), 0)"
            for field in schema
            if not pa.types.is_primitive(field.type) and field.name != "embedding"
        ]
        row_bytes = int(self._one(f"SELECT avg({' + '.join(widths)}) FROM {_quoted(table)}"))
        num_rows = max(1, min(MAX_FILE_ROWS, MAX_FILE_BYTES // row_bytes))
        parts = [""]
        if time := EVENT_TIME_COLUMNS.get(table):
            days = self._ask(f"SELECT DISTINCT {time} // {DAY_MS} AS day FROM {table} ORDER BY 1")
            parts = [
                f"WHERE {time} >= {day * DAY_MS} AND {time} < {(day + 1) * DAY_MS}"
                for (day,) in days
            ]
        own = EVENT_LOG_TABLES[table].names if table in EVENT_LOG_TABLES else schema.names
        names = [name for name in own if name in schema.names]
        names += sorted(set(schema.names) - set(names))
        wanted = pa.schema([schema.field(name) for name in names])
        columns = ", ".join(map(_quoted, names))
        order = ", ".join(map(_quoted, (*SORT_KEYS[table], _ROW)))
        for where in parts:
            query = f"SELECT {columns} FROM {_quoted(table)} {where} ORDER BY {order}"
            with self._told_errors():
                for batch in self._database.sql(query).to_arrow_reader(num_rows):
                    yield pa.Table.from_batches([batch]).cast(wanted)

    def _pass_over(
        self, table: str, before: str, there: pa.Schema, where: str, version: str
    ) -> None:
        """Remove rows of which a row before has the key; refuse them where a column differs.

        Args:
            table: the rows.
            before: a relation with the rows before.
            there: its columns. Any other differs where it has a value.
            where: what to call it.
            version: the embedding version of the pins.
        """
        name, row, keys = _quoted(table), _quoted(_ROW), KEYS[table]
        differs = {
            each: f"again.{_quoted(each)} IS DISTINCT FROM "
            + (f"before.{_quoted(each)}" if each in there.names else "NULL")
            for each in self._schemas[table].names
            if each not in keys
        }
        pairs = (
            f"FROM {name} AS again JOIN {before} AS before USING ({', '.join(keys)}) "
            f"WHERE again.{row} <> before.{row}"
        )
        both = "again.name, before.name" if table in NAMES.values() else "NULL, NULL"
        found = self._ask(
            f"SELECT {both}, count(*) OVER (), {', '.join((*keys, *differs.values()))} {pairs} AND "
            f"({' OR '.join(differs.values())}) ORDER BY {', '.join(keys)}, again.{row} LIMIT 1"
        )
        for one, other, num_changed, *values in found:
            named = ", ".join(
                f"{key}={with_utc(value) if key == 'as_of' else value}"
                for key, value in zip(keys, values, strict=False)
            )
            if table in NAMES.values():
                column = next(column for column, folder in NAMES.items() if folder == table)
                raise DataContractError(
                    f"{table}: the names {min(one, other)!r} and {max(one, other)!r} in column "
                    f"{column!r} have one id, {values[0]}; expected an id for each name; rename "
                    f"one of them where the data comes from, or give integer ids"
                )
            changed = dict(zip(differs, values[len(keys) :], strict=True))
            column = next(each for each, is_other in changed.items() if is_other)
            of, one_per, remedy = "", "(user, as_of)", "give them a later as_of"
            if table == "pins":
                of, one_per = f" of version {version!r}", "(pin, embedding version)"
                remedy = "write changed pins as a new version"
            raise DataContractError(
                f"{table}: {named}{of} has another row in {where}, with another value in column "
                f"{column!r} ({num_changed} such rows); expected one row per {one_per}, or the "
                f"same row again, which is passed over; leave out the changed rows, or {remedy}"
            )
        self._ask(f"DELETE FROM {name} WHERE {row} IN (SELECT again.{row} {pairs})")

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with self._told_errors():
            return self._database.execute(query).fetchall()

    def _one(self, query: str) -> Any:
        return self._ask(query)[0][0]

    @contextlib.contextmanager
    def _told_errors(self) -> Iterator[None]:
        """Turn what DuckDB says of a full or failing disk into an error that may pass."""
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise TransientStorageError(
                f"keeping rows for {self._uri} failed: {error}; expected room on the disk for all "
                f"rows of the block, and {_SETTINGS['memory_limit']} of memory; make room, or "
                f"write fewer days in one block, then retry"
            ) from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _stored(schema: pa.Schema) -> pa.Schema:
    """Return a schema in types that DuckDB has: it knows no float16."""
    half = pa.float16()
    return pa.schema([f.with_type(pa.float32() if f.type == half else f.type) for f in schema])


def _fixed_bytes(type_: pa.DataType) -> int:
    """Return about how many bytes a value takes beside its text, if it has one."""
    return 8 if not pa.types.is_fixed_size_list(type_) else 4 * type_.list_size
