"""The tables of a mapping as rows in the contract's columns, read by DuckDB where they lie.

DuckDB reads files and what Arrow reads for it: stores, Delta and Iceberg tables, databases. Nothing
is downloaded. Ids of a CSV stay texts, and times become milliseconds. Not for what the rows mean.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from glob import glob
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import sqlalchemy
from pyarrow import csv

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.progress import tracked
from pipelines.sources.event_log_writer import quoted
from pipelines.sources.mapping.spec import TableMapping, Times

log = logging.getLogger(__name__)

IDS = ("request_id", "user_id", "pin_id")
TIMES = ("impressed_at", "acted_at", "known_at", "as_of")
READERS = {
    **dict.fromkeys((".parquet", ".pq"), "read_parquet"),
    **dict.fromkeys((".csv", ".tsv", ".txt"), "read_csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "read_json"),
}
"""What reads a file, by its ending; a packed one has .gz or .zst behind it."""
_PACKED = (".gz", ".zst")
_BATCH_ROWS = 1 << 19
_FACTORS = {"s": "* 1000", "ms": "* 1", "us": "/ 1000", "ns": "/ 1000000"}


class Tables:
    """A DuckDB in a scratch folder, with the sources of a mapping as views."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder = folder
        settings: dict[str, Any] = {"memory_limit": "1GiB", "autoinstall_known_extensions": False}
        settings |= {"temp_directory": str(scratch / "spilled")}
        self.database = duckdb.connect(scratch / "sources.duckdb", config=settings)

    def add(self, name: str, table: TableMapping, kept: tuple[str, ...] = ()) -> None:
        """Make a view of a table's rows; `kept` are columns of the source that it has besides.

        Raises:
            ConfigurationError: there are no such files, or a library is not installed.
            DataContractError: the source cannot be read, or lacks a column.
        """
        with self.told_errors(name, table):
            self._open(f"source of {name}", table)
            types = self.types_of(f"source of {name}")
            if absent := [each for each in kept if each not in types]:
                raise DataContractError(
                    f"{name}: the source lacks {', '.join(absent)}; found columns "
                    f"{', '.join(types)}; correct vectors.texts"
                )
            columns = [
                f"{_column(target, said, types, table)} AS {quoted(target)}"
                for target, said in table.columns.items()
            ]
            columns += [f"{quoted(each)}::VARCHAR AS {quoted(each)}" for each in kept]
            self.database.execute(f"SET TimeZone = {_text(table.times.zone)}")
            where = f" WHERE {table.where}" if table.where else ""
            self.database.execute(
                f"CREATE TABLE {quoted(name)} AS SELECT {', '.join(columns)} "
                f'FROM "source of {name}"{where}'
            )
            if "action_type" in table.columns and table.action_types:
                [(num,)] = self.database.execute(
                    f"DELETE FROM {quoted(name)} WHERE action_type IS NULL"
                ).fetchall()
                log.info("%s: %d rows of types that action_types does not name", name, num)

    def agree_on_ids(self, names: Iterable[str]) -> None:
        """Make texts of an id where it is a text in some of the tables, such as those of CSV."""
        for column in IDS:
            having = [name for name in names if column in self.types_of(name)]
            kinds = {"INT" in self.types_of(name)[column] for name in having}
            for name in having if len(kinds) > 1 else ():
                self.database.execute(f"ALTER TABLE {quoted(name)} ALTER {column} TYPE VARCHAR")

    def types_of(self, view: str) -> dict[str, str]:
        """Return DuckDB's names of the types of a view's columns."""
        found = self.database.sql(f"FROM {quoted(view)}")
        return {name: str(kind) for name, kind in zip(found.columns, found.types, strict=True)}

    def rows(self, query: str, what: str) -> Iterator[pa.Table]:
        """Yield the rows of a query, some at a time."""
        reader = self.database.sql(query).to_arrow_reader(_BATCH_ROWS)
        for batch in tracked(reader, what):
            if len(batch):
                yield pa.Table.from_batches([batch])

    @contextlib.contextmanager
    def told_errors(self, name: str, table: TableMapping) -> Iterator[None]:
        """Say of which table an error is, and what may help."""
        try:
            yield
        except ImportError as error:
            told = f"{name}: {error.name} is not installed; expected it for this source; install it"
            raise ConfigurationError(told) from None
        except duckdb.Error as error:
            said = str(error).split("\n\n")[0].replace("\n", " ")
            remedy = "correct columns, times or where"
            if "unicode" in said:
                remedy = f"it is not {table.encoding}: give encoding, such as latin-1"
            elif isinstance(error, duckdb.ConversionException):
                remedy = f"{remedy}, such as times: {{format: '%d.%m.%Y %H:%M'}}"
            raise DataContractError(f"{name}: {said}; {remedy} of tables.{name}") from None

    def _open(self, view: str, table: TableMapping) -> None:
        if table.files:
            self.open_files(view, table)
            return
        if table.delta:
            from deltalake import DeltaTable

            found = DeltaTable(self._place(table.delta)).to_pyarrow_dataset()
        elif table.iceberg:
            from pyiceberg.table import StaticTable

            known = StaticTable.from_metadata(self._place(table.iceberg))
            found = known.scan().to_arrow_batch_reader()
        else:
            found = self._query(os.path.expandvars(table.database), table.query)
        self.database.register("registered", found)
        self.database.execute(f"CREATE TABLE {quoted(view)} AS FROM registered")
        self.database.unregister("registered")

    def _query(self, address: str, query: str) -> Any:
        """Return a query's rows as Arrow: by the database's ADBC driver, else by SQLAlchemy."""
        scheme, _, place = address.partition(":")
        driver = f"adbc_driver_{scheme.partition('+')[0]}"
        if find_spec(driver):
            place = place.removeprefix("///") if scheme == "sqlite" else address
            self._cursor = import_module(f"{driver}.dbapi").connect(place).cursor()
            self._cursor.execute(query)
            return self._cursor.fetch_record_batch()
        with sqlalchemy.create_engine(address).connect() as connection:
            found = connection.execution_options(stream_results=True).execute(
                sqlalchemy.text(query)
            )
            names = list(found.keys())
            parts = [
                pa.table([pa.array(values) for values in zip(*rows, strict=True)], names=names)
                for rows in found.partitions(_BATCH_ROWS)
            ]
        return pa.concat_tables(parts, promote_options="permissive")

    def open_files(self, view: str, table: TableMapping) -> None:
        """Make a view of the rows of files, as they are."""
        files = [table.files] if isinstance(table.files, str) else list(table.files)
        # Ids and times are texts, which nothing may guess at.
        used = {table.columns[name] for name in (*IDS, *TIMES) if name in table.columns}
        if any("://" in each for each in files):
            parts = [_dataset(each, used) for each in files]
            self.database.register(view, parts[0] if len(parts) == 1 else ds.dataset(parts))
            return
        places = [path for each in files for path in self._found(each)]
        [reader, *others] = sorted({READERS.get(_ending(place), "") for place in places})
        if not reader or others:
            raise ConfigurationError(
                f"files {', '.join(files)} end with {sorted(set(map(_ending, places)))}; "
                f"expected one of {', '.join(READERS)} in a table; correct files"
            )
        read = f"{reader}([{', '.join(map(_text, places))}]"
        if reader == "read_csv":
            read += f", header = true, union_by_name = true, encoding = {_text(table.encoding)}"
            read += f", delim = {_text(table.delimiter)}" if table.delimiter else ""
            names = used.intersection(self.database.sql(f"FROM {read})").columns)
            texts = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in sorted(names))
            read += f", types = {{{texts}}}"
        elif reader == "read_parquet":
            read += ", union_by_name = true"
        self.database.execute(f"CREATE OR REPLACE VIEW {quoted(view)} AS FROM {read})")

    def _found(self, pattern: str) -> list[str]:
        place = self._folder / pattern
        pattern = str(place / "**" / "*") if place.is_dir() else str(place)
        found = sorted(path for path in glob(pattern, recursive=True) if Path(path).is_file())
        found = [path for path in found if not Path(path).name.startswith((".", "_"))]
        if not found:
            raise ConfigurationError(
                f"there are no files {pattern}; expected a path, a pattern or a folder, from where "
                f"the mapping lies; correct files"
            )
        return found

    def _place(self, text: str) -> str:
        return text if "://" in text else str(self._folder / text)


def _column(target: str, said: str, types: dict[str, str], table: TableMapping) -> str:
    """Return the SQL of one of the log's columns."""
    sql, kind = (quoted(said), types[said]) if said in types else (f"({said})", "")
    if target in TIMES:
        return time_sql(sql, kind, table.times)
    if target in IDS:
        return sql if "INT" in kind else f"{sql}::VARCHAR"
    if target == "action_type" and table.action_types:
        cases = " ".join(
            f"WHEN {_text(one)} THEN {_text(other)}" for one, other in table.action_types.items()
        )
        return f"CASE {sql}::VARCHAR {cases} END"
    return sql


def time_sql(sql: str, kind: str, times: Times) -> str:
    """Return the SQL of milliseconds since 1970, in UTC.

    Args:
        sql: The column.
        kind: DuckDB's name of its type; '' of an expression.
        times: How it is written. The session's time zone is that of times without one.
    """
    zone = _text(times.zone)
    if times.format:
        read = f"strptime({sql}::VARCHAR, {_text(times.format)})"
        return f"epoch_ms({read if '%z' in times.format else f'{read} AT TIME ZONE {zone}'})"
    if times.unit:
        return f"floor({sql}::DECIMAL(38, 9) {_FACTORS[times.unit]})::BIGINT"
    if "INT" in kind:
        return sql  # `EventLogWriter` names other units than milliseconds
    if kind.startswith(("TIMESTAMP", "DATE")) and "ZONE" not in kind:
        return f"epoch_ms({sql}::TIMESTAMP AT TIME ZONE {zone})"
    read = f"epoch_ms({sql}::TIMESTAMPTZ)"
    return f"coalesce(try_cast({sql} AS BIGINT), {read})" if kind == "VARCHAR" else read


def _dataset(uri: str, texts: set[str]) -> ds.Dataset:
    filesystem, path = storage.open_filesystem(uri)
    kind: Any = READERS.get(_ending(path), "read_parquet").removeprefix("read_")
    if kind == "csv":
        options = csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string()))
        kind = ds.CsvFileFormat(convert_options=options)
    return ds.dataset(path, format=kind, filesystem=filesystem)


def _ending(path: str) -> str:
    suffixes = [each.lower() for each in Path(path).suffixes if each.lower() not in _PACKED]
    return suffixes[-1] if suffixes else ""


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
