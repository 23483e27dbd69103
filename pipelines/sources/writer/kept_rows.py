"""Rows of a block wait in a DuckDB database beside the log, and come out sorted, unique, in files.

DuckDB holds a few hundred MiB of them in memory and the rest on the disk, whatever their number and
order. People hand over all their pins with each day, of which most are in the log: a row of pins or
users that came before is passed over where it is the same, and refused where it has changed. Not
for checking one batch (`pipelines.sources.writer.columns`) nor for publishing.
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
from pipelines.event_log.log_files import EVENT_TIME_COLUMNS, EventLog, LogFile
from pipelines.event_log.reader import iterate_batches, open_file, read_file
from pipelines.event_log.record import NAMES, Vectors

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
_MEMORY = "512MiB"
_NUM_THREADS = 1
"""Of two threads that sort wide rows, each wants as much memory as both of them may have."""
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
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY,
            "threads": _NUM_THREADS,
            "temp_directory": str(folder / "spilled"),
            "autoinstall_known_extensions": False,  # nothing is downloaded
            "python_enable_replacements": False,  # a name is a table's, and no variable's
        }
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
        """Add rows in any order; their columns are those of the rows before, in any order too.

        Raises:
            DataContractError: a column is of a type that DuckDB does not have.
        """
        if len(rows) == 0:
            return
        numbers = pa.array(np.arange(len(rows)) + self._num_given)
        self._num_given += len(rows)
        stored = rows.cast(_stored(rows.schema)).append_column(_ROW, numbers)
        is_new = table not in self._schemas
        verb = "CREATE TABLE {} AS" if is_new else "INSERT INTO {} BY NAME"
        try:
            with self._told_errors(), self._registered(stored):
                self._database.execute(f"{verb.format(_quoted(table))} SELECT * FROM registered")
        except duckdb.NotImplementedException as error:
            types = {field.name: str(field.type) for field in rows.schema}
            raise DataContractError(
                f"{table}: a column has a type that cannot be kept ({error}); found {types}; "
                f"expected texts, numbers, booleans, dates, times or lists of them; cast the column"
            ) from error
        self._schemas.setdefault(table, rows.schema)

    def num_rows(self, table: str) -> int:
        """Return how many rows of a table there are now."""
        return int(self._one(f"SELECT count(*) FROM {_quoted(table)}")) if self._has(table) else 0

    def number_positions(self) -> None:
        """Give each impression without a position its place among its request's rows.

        They are counted by time and then as they were given, over all batches and days.

        Raises:
            DataContractError: a request has more rows than positions.
        """
        if not self._has("impressions") or self._one(
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

    def embed_with_zeros(self, vectors: Vectors) -> None:
        """Give the users embeddings of zeros that look like these."""
        if not self._has("users"):
            return
        zeros = f"list_resize([]::FLOAT[], {vectors.embedding_dim}, 0.0)"
        self._ask(
            f"CREATE OR REPLACE TABLE users AS SELECT *, {zeros}::FLOAT[{vectors.embedding_dim}] "
            f"AS embedding FROM users"
        )
        number = pa.float16() if vectors.type == "float16" else pa.float32()
        embedding = pa.field("embedding", pa.list_(number, vectors.embedding_dim))
        self._schemas["users"] = self._schemas["users"].append(embedding)

    def pass_over_repeats(self, table: str, log: EventLog | None, version: str) -> None:
        """Remove rows whose key came before, in the block or in the log.

        Of the log, the keys of a file are in memory at a time, and few of its rows. Where no key is
        known, nothing but keys is read.

        Args:
            table: a key of KEYS.
            log: what the rows are added to; None for a new log.
            version: the embedding version of the pins.

        Raises:
            DataContractError: such a row has another value in some column.
        """
        if not self._has(table):
            return
        name, row, keys = _quoted(table), _quoted(_ROW), ", ".join(KEYS[table])
        first = KEYS[table][0]
        if self._one(f"SELECT count(*) > count(DISTINCT ({keys})) FROM {name}"):
            first_rows = f"(SELECT min({row}) FROM {name} GROUP BY {keys})"
            before = f"(FROM {name} WHERE {row} IN {first_rows})"
            self._refuse_changed(table, before, self._schemas[table], "these batches", version)
            self._ask(f"DELETE FROM {name} WHERE {row} NOT IN {first_rows}")
        if log is None:
            return
        pairs = " AND ".join(f"again.{key} = registered.{key}" for key in KEYS[table])
        for file in log.files_of(table):
            [(low, high)] = self._ask(f"SELECT min({first}), max({first}) FROM {name}")
            if low is None:
                return
            wanted = (pc.field(first) >= low) & (pc.field(first) <= high)
            if table == "pins":
                wanted &= pc.field("embedding_version") == version
            there = read_file(open_file(log, file), file, KEYS[table], wanted)
            with self._registered(there):
                known = f"FROM {name} SEMI JOIN registered USING ({keys})"
                if not self._one(f"SELECT count(*) {known}"):
                    continue
            self._refuse_changed_since(table, log, file, wanted, version)
            with self._registered(there):
                self._ask(f"DELETE FROM {name} AS again USING registered WHERE {pairs}")

    def files_of(self, table: str) -> Iterator[pa.Table]:
        """Yield the rows of a table as its files hold them: sorted, of one day each where it has.

        How many rows a file gets depends on the rows alone, and not on how they were given.
        """
        if not self.num_rows(table):
            return
        # Arrow's own size of a table depends on how it was cut into batches, so SQL counts.
        schema = self._schemas[table]
        widths = " + ".join(_width(field) for field in schema)
        row_bytes = max(1, int(self._one(f"SELECT avg({widths}) FROM {_quoted(table)}")))
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

    def _refuse_changed_since(
        self, table: str, log: EventLog, file: LogFile, wanted: pc.Expression, version: str
    ) -> None:
        """Refuse rows that a file of the log has with another value in some column."""
        dataset = open_file(log, file)
        schema = self._schemas[table]
        names = [name for name in schema.names if name in dataset.schema.names]
        stored = _stored(pa.schema([schema.field(name) for name in names]))
        row_bytes = sum(_fixed_bytes(field.type) for field in stored)
        num_rows = max(1, _BATCH_BYTES // row_bytes)
        for batch in iterate_batches(dataset, file, names, num_rows, wanted):
            there = pa.Table.from_batches([batch]).cast(stored)
            there = there.append_column(_ROW, pa.array(np.full(len(there), -1)))
            with self._registered(there):
                self._refuse_changed(table, "registered", there.schema, file.path, version)

    def _refuse_changed(
        self, table: str, before: str, there: pa.Schema, where: str, version: str
    ) -> None:
        """Refuse rows of which the row before, of the same key, has another value in some column.

        Args:
            table: the rows.
            before: a relation with the rows before.
            there: its columns. Any other differs where it has a value.
            where: what to call it.
            version: the embedding version of the pins.
        """
        keys, differs = ", ".join(KEYS[table]), {}
        for field in self._schemas[table]:
            name = _quoted(field.name)
            here, earlier = f"again.{name}", f"before.{name}"
            if field.name not in there.names:
                differs[field.name] = f"{here} IS NOT NULL"
            elif field.name not in KEYS[table]:
                # As texts, NaN is itself, and 0.0 is not -0.0.
                as_text = "" if field.name == "embedding" or _is_plain(field.type) else "::VARCHAR"
                differs[field.name] = f"{here}{as_text} IS DISTINCT FROM {earlier}{as_text}"
        both = "again.name, before.name, " if table in NAMES.values() else ""
        found = self._ask(
            f"SELECT {both}{keys}, count(*) OVER (), {', '.join(differs.values())} "
            f"FROM {_quoted(table)} AS again JOIN {before} AS before USING ({keys}) "
            f"WHERE again.{_quoted(_ROW)} <> before.{_quoted(_ROW)} "
            f"AND ({' OR '.join(differs.values())}) ORDER BY {keys}, again.{_quoted(_ROW)} LIMIT 1"
        )
        if not found:
            return
        if table in NAMES.values():
            _refuse_two_names(table, *found[0][:3])
        *key, num_changed = found[0][: len(KEYS[table]) + 1]
        marks = found[0][len(KEYS[table]) + 1 :]
        column = next(name for name, is_other in zip(differs, marks, strict=True) if is_other)
        named = ", ".join(
            f"{name}={with_utc(value) if name == 'as_of' else value}"
            for name, value in zip(KEYS[table], key, strict=True)
        )
        if table == "pins":
            of, rule = f" of version {version!r}", "one row per (pin, embedding version)"
            remedy = "write changed pins as a new version"
        else:
            of, rule = "", "one per (user, as_of)"
            remedy = "give them a later as_of"
        raise DataContractError(
            f"{table}: {named}{of} has another row in {where}, with another value in column "
            f"{column!r} ({num_changed} such rows); expected {rule}, or the same row again, which "
            f"is passed over; leave out the changed rows, or {remedy}"
        )

    def _has(self, table: str) -> bool:
        return table in self._schemas

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with self._told_errors():
            return self._database.execute(query).fetchall()

    def _one(self, query: str) -> Any:
        return self._ask(query)[0][0]

    @contextlib.contextmanager
    def _registered(self, rows: pa.Table) -> Iterator[None]:
        """Let a block's queries read Arrow rows, as the relation `registered`."""
        self._database.register("registered", rows)
        try:
            yield
        finally:
            self._database.unregister("registered")

    @contextlib.contextmanager
    def _told_errors(self) -> Iterator[None]:
        """Turn what DuckDB says of a full or failing disk into an error that may pass."""
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise TransientStorageError(
                f"keeping rows for {self._uri} failed: {error}; expected room on the disk for all "
                f"rows of the block, and {_MEMORY} of memory; make room, or write fewer days in "
                f"one block, then retry"
            ) from error


def _refuse_two_names(table: str, first: str, second: str, id_: int) -> None:
    column = next(column for column, folder in NAMES.items() if folder == table)
    raise DataContractError(
        f"{table}: the names {min(first, second)!r} and {max(first, second)!r} in column "
        f"{column!r} have one id, {id_}; expected an id for each name; rename one of them where "
        f"the data comes from, or give integer ids"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _stored(schema: pa.Schema) -> pa.Schema:
    """Return a schema in types that DuckDB has, which hold every value of the schema's own."""
    return pa.schema([field.with_type(_stored_type(field.type)) for field in schema])


def _stored_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_float16(type_):
        return pa.float32()
    if pa.types.is_duration(type_):
        return pa.int64()
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_stored_type(type_.value_type), type_.list_size)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(_stored_type(type_.value_type))
    return type_


def _is_plain(type_: pa.DataType) -> bool:
    """Return whether equal values of a type are the same in every bit."""
    return not (pa.types.is_floating(type_) or pa.types.is_nested(type_))


def _fixed_bytes(type_: pa.DataType) -> int:
    """Return about how many bytes a value takes beside its text, if it has one."""
    return 8 if not pa.types.is_fixed_size_list(type_) else 4 * type_.list_size


def _width(field: pa.Field) -> str:
    """Return what a value takes in memory, about, in SQL."""
    is_fixed = pa.types.is_primitive(field.type) or field.name == "embedding"
    text = "" if is_fixed else f" + coalesce(strlen({_quoted(field.name)}::VARCHAR), 0)"
    return f"{_fixed_bytes(field.type)}{text}"
