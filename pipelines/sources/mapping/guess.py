"""A first mapping of somebody's files: what their names and values tell, and what they do not.

Nothing is decided for anybody: what was guessed is said beside it, and what could not be found is
marked with TODO.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import duckdb
import yaml

from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.sources.event_log_writer import quoted
from pipelines.sources.mapping.spec import TableMapping, TableName, Times, needed
from pipelines.sources.mapping.tables import Tables, time_sql

NAMES = {
    "user_id": "user_id user userid uid visitor_id visitorid visitor customer_id customer "
    "member_id account_id household_id reader_id",
    "pin_id": "pin_id item_id itemid item product_id product article_id article sku asin "
    "movie_id movieid track_id song_id news_id video_id content_id document_id",
    "time": "timestamp time ts datetime event_time acted_at impressed_at clicked_at created_at "
    "t_dat date day unixtime timestamp_ms",
    "action_type": "action_type event_type event action behavior behaviour behavior_type kind type",
    "request_id": "request_id request impression_id slate_id list_id",
    "position": "position pos rank slot",
    "embedding": "embedding vector emb features_vector",
}
"""How a column is often called, the surest first; letters alone count."""
TEXTS = "title name text headline description abstract category brand genre department topic tags"
FORMATS = ("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M",
           "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%Y%m%d%H%M%S", "%Y%m%d", "%d.%m.%Y",
           "%m/%d/%Y", "%d/%m/%Y", "%b %d %Y %H:%M:%S")  # fmt: skip
_TIME_OF: dict[TableName, str] = {
    "impressions": "impressed_at",
    "actions": "acted_at",
    "users": "as_of",
}
_SAMPLE = 10_000
_UNITS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))
"""From which number on a time since 1970 is of this unit, in any year that a log may have."""
_FIRST_DAY, _LAST_DAY = 19000101, 21001231
"""Numbers that are days as people write them, such as 20260131."""


def guess(paths: Sequence[Path], scratch: Path) -> str:
    """Return a first mapping of files as YAML.

    Raises:
        ConfigurationError: a file cannot be read, or is of no known kind.
    """
    tables: dict[TableName, dict] = {}
    notes, main, texts = list[str](), "click", list[str]()
    with_files = Tables(Path(), scratch)
    with contextlib.closing(with_files.database):
        for number, path in enumerate(paths):
            name, found, said = _table_of(with_files, path, number)
            notes += [f"{path.name}: {each}" for each in said]
            if name in tables:
                notes.append(f"{path.name}: TODO another table of {name}; it is left out")
                continue
            if name == "actions":
                main = _main_type(with_files.database, found, number)
                found["columns"].setdefault("action_type", "'click'")
            texts += found.pop("texts", [])
            tables[name] = found
    return _written(tables, notes, texts, main)


def _table_of(tables: Tables, path: Path, number: int) -> tuple[TableName, dict, list[str]]:
    """Return which table a file may be, its part of the mapping, and what is said of it."""
    view = f"source of {number}"
    table = _opened(tables, path, view)
    types = tables.types_of(view)
    name, found, said = _kind_of(tables, view, types)
    time = _TIME_OF.get(name, "")
    columns = {what: found[what] for what in found if what in EVENT_LOG_TABLES[name].names}
    if time and "time" in found:
        columns[time] = found["time"]
        tables.open_files(view, TableMapping(**table, columns=columns))  # times as they stand
        if how := _times(tables, view, found["time"]):
            table["times"] = how
    for what in sorted(needed(name) - set(columns) - {"action_type"}):
        columns[what] = "TODO"
        said.append(f"TODO no column looks like {what}; it has {', '.join(types)}")
    if name == "pins" and "embedding" not in columns:
        wanted = TEXTS.split()
        likely = [c for c, kind in types.items() if kind == "VARCHAR" and c not in columns.values()]
        table["texts"] = [c for c in likely if any(w in _letters(c) for w in wanted)] or likely[:3]
    return name, table | {"columns": columns}, said


def _opened(tables: Tables, path: Path, view: str) -> dict:
    """Open a file as a view; return how it is read, for the mapping."""
    table: dict = {"files": str(path.resolve())}
    for encoding in ("utf-8", "latin-1"):
        try:
            tables.open_files(view, TableMapping(**table, columns={}, encoding=encoding))
            tables.database.sql(f'SELECT count(*) FROM "{view}"').fetchall()
            break
        except duckdb.Error as error:
            if encoding == "latin-1" or "unicode" not in str(error):
                raise ConfigurationError(
                    f"{path} cannot be read: {str(error).splitlines()[0]}; expected a table with a "
                    f"header, as CSV, Parquet or JSON; leave it out, or correct it"
                ) from None
    return table if encoding == "utf-8" else table | {"encoding": encoding}


def _kind_of(
    tables: Tables, view: str, types: dict[str, str]
) -> tuple[TableName, dict[str, str], list[str]]:
    """Return which table a view may be, its columns by what they are, and what is said of it.

    Where no name tells, what is recommended has a value of its own in each row, and what was done
    a time.
    """
    plain = {_letters(column): column for column in reversed(types)}
    called = {w: [n for n in map(_letters, NAMES[w].split()) if n in plain] for w in NAMES}
    found = {what: plain[names[0]] for what, names in called.items() if names}
    if {"user_id", "pin_id"} <= set(found):
        is_shown = {"position", "request_id"} & set(found) and "action_type" not in found
        name: TableName = "impressions" if is_shown else "actions"
        return name, found, [f"read as {name}"]
    if "user_id" in found:
        return "users", found, ["read as users"]
    if "pin_id" in found:
        return "pins", found, ["read as pins"]
    if key := _first_unique(tables, view, types):
        said = ["read as pins", f"TODO is {key} the item's id? it has a value for each row"]
        return "pins", found | {"pin_id": key}, said
    if timed := [column for column, kind in types.items() if kind.startswith("TIMESTAMP")]:
        return "actions", found | {"time": timed[0]}, ["read as actions"]
    return "pins", found, ["read as pins"]


def _first_unique(tables: Tables, view: str, types: dict[str, str]) -> str:
    """Return the first column of texts or whole numbers with a value of its own in every row."""
    for column in (each for each, kind in types.items() if kind in ("VARCHAR", "BIGINT")):
        sql = quoted(column)
        sample = f'(SELECT {sql} FROM "{view}" LIMIT {_SAMPLE})'
        query = f"SELECT count(DISTINCT {sql}) = count(*) AND count(*) > 0 FROM {sample}"
        if tables.database.sql(query).fetchall()[0][0]:
            return column
    return ""


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _times(tables: Tables, view: str, column: str) -> dict[str, str]:
    """Return how the times of a column are written; {} where it needs no saying."""
    sql = quoted(column)
    sample = f'(SELECT {sql} FROM "{view}" WHERE {sql} IS NOT NULL LIMIT {_SAMPLE})'
    if (kind := tables.types_of(view)[column]).startswith(("TIMESTAMP", "DATE")):
        return {}
    number = f"try_cast({sql} AS DOUBLE)"
    query = f"SELECT median({number}), count({number}) = count(*) FROM {sample}"
    [(middle, is_number)] = tables.database.sql(query).fetchall()
    if is_number and middle is not None:
        unit = next((unit for least, unit in _UNITS if middle >= least), "")
        is_day = _FIRST_DAY <= middle <= _LAST_DAY
        return {"format": "%Y%m%d"} if is_day else {"unit": unit} if unit else {}
    for written in (Times(), *(Times(format=each) for each in FORMATS)):
        read = time_sql(sql, kind, written)
        try:
            tables.database.sql(f"SELECT max({read}) FROM {sample}").fetchall()
        except duckdb.Error:
            continue
        return {"format": written.format} if written.format else {}
    return {"format": "TODO"}


def _main_type(database: duckdb.DuckDBPyConnection, table: dict, number: int) -> str:
    """Return the most frequent type of actions; click where no column has them."""
    if (column := table["columns"].get("action_type")) is None:
        return "click"
    source = f'FROM "source of {number}" WHERE kind IS NOT NULL'
    query = f"SELECT {quoted(column)}::VARCHAR AS kind {source}"
    rows = database.sql(f"{query} GROUP BY kind ORDER BY count(*) DESC, kind LIMIT 1").fetchall()
    return rows[0][0] if rows else "click"


def _written(tables: dict[TableName, dict], notes: list[str], texts: list[str], main: str) -> str:
    """Return the mapping as YAML, with what was found and what is missing as comments."""
    value: dict = {"embedding_version": "mine-1"}
    if "impressions" not in tables:
        value["candidates"] = {"action": main}
        notes.append("no file has what was shown: candidates are drawn around each visit's actions")
    if "pins" in tables and "embedding" not in tables["pins"]["columns"]:
        value["vectors"] = {"texts": texts or ["TODO"]}
        notes.append("no file has embeddings: they are made of the texts that vectors names")
    notes += [f"TODO no file of {name}" for name in ("actions", "pins") if name not in tables]
    value["tables"] = tables
    lines = "".join(f"# {note}\n" for note in notes)
    return f"{lines}{yaml.safe_dump(value, sort_keys=False, width=100)}"
