"""A batch as people have it (pandas, polars, Arrow, numpy) as rows in the contract's types.

Whatever has `__arrow_c_stream__` is read through it, so that no such library is imported here.
Here is what people may give otherwise than a file of the log has it; what is left has to keep the
rules of `pipelines.event_log.rules`, and every problem of a batch is told at once. Not for rows of
several batches together: `pipelines.sources.writer.event_log_writer`.

The id of a name is the BLAKE2b digest of its UTF-8 bytes, 8 bytes long, read as a signed integer
with the most significant byte first: the same on every machine, for ever. The names are kept beside
the log, so that two names with one id are found out.
"""

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_TIME, contract_of
from pipelines.event_log.record import NAMES
from pipelines.event_log.rules import (
    EVENT_TIME_COLUMNS,
    column_problems,
    embedding_matrix,
    finding,
    fitted,
    value_problems,
)

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
    "users": {
        "embedding": None,  # zeros, when the pins' width is known
        "state": "unknown",
        "location": None,
    },
}
"""By table: the columns that need not be given. For a time, the column whose value it takes."""
NAMES_SCHEMA = pa.schema(
    [pa.field("id", pa.int64(), nullable=False), pa.field("name", pa.string(), nullable=False)]
)
"""Columns of the tables below names/."""
USERS_WIDTH = "users.embedding"
"""What is settled of the width of the users' embeddings."""

_INDEX = "__index_level_"
"""How pandas names the columns that it makes of an index; an index is no column of the log."""


def id_of(name: str) -> int:
    """Return the id of a name, in [-2^63, 2^63)."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def pins_width(version: str) -> str:
    """Return what is settled of the width of a version's embeddings, which users share."""
    return f"embeddings of {version}"


def tables_of(batch: Any, place: str) -> Iterator[pa.Table]:
    """Yield the rows of a batch in order: those of a reader or a stream part by part.

    Args:
        batch: a pandas or polars DataFrame, an Arrow table, record batch or reader, or a mapping
            from column names to arrays, of which a two-dimensional one holds a list per row.
        place: what to call the batch in a message, such as 'impressions, batch 3'.

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
        if isinstance(batch, dict | pa.Table) or hasattr(batch, "__arrow_c_array__"):
            parts: Iterable[pa.Table] = [pa.table(batch)]
        elif hasattr(batch, "__arrow_c_stream__"):
            reader = pa.RecordBatchReader.from_stream(batch)
            parts = (pa.Table.from_batches([part]) for part in reader)
        else:
            raise DataContractError(
                f"{place} is a {type(batch).__name__}; expected a pandas or polars DataFrame, an "
                f"Arrow table, record batch or reader, or a dictionary of columns; give it as one"
            )
        for given in parts:
            names = enumerate(given.column_names)
            columns = [number for number, name in names if not name.startswith(_INDEX)]
            if len(given):
                yield given.select(columns).replace_schema_metadata(None)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataContractError(
            f"{place} cannot be read as an Arrow table: {error}; expected one type in each column, "
            f"as ids that are all integers or all strings; cast the column that mixes them"
        ) from error


@dataclass
class Block:
    """What the batches of a block, and of a log, agree on."""

    version: str  # of the pins' embeddings
    settled: dict[str, str | int]
    """What the log and the batches so far have settled, to which each batch adds: what ids are made
    from, widths of embeddings, and the types of columns that a table has beyond the contract."""
    closed_days: Mapping[str, Collection[str]]  # by table: days of which no rows are taken

    def settle(self, what: str, found: str | int, remedy: str) -> None:
        """Settle something, or refuse it where it was settled otherwise."""
        before = self.settled.setdefault(what, found)
        if found != before:
            raise DataContractError(
                f"{what} is {found}, and {before} in earlier rows of the log; expected the same in "
                f"all of a log; {remedy}, or write a log of its own"
            )


def normalise(table: str, given: pa.Table, block: Block) -> tuple[pa.Table, dict[str, pa.Table]]:
    """Return a batch in the contract's types, checked as the reader checks a file.

    Args:
        table: one of EVENT_LOG_TABLES.
        given: rows as they were given.
        block: what they have to agree with.

    Returns:
        The rows, of which users may lack their embeddings; and the names that ids were made from,
        by their folder.

    Raises:
        DataContractError: all that is wrong with the batch.
    """
    names, ids, problems = given.column_names, dict[str, pa.Table](), list[str]()
    schema, defaults = contract_of(table, names), DEFAULTS[table]
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataContractError(f"{twice} come more than once; expected each column once")
    plain = (
        each.cast(each.type.value_type) if isinstance(each.type, pa.DictionaryType) else each
        for each in given.columns
    )
    for name, values in zip(names, plain, strict=True):
        try:
            if name in NAMES:
                columns[name], ids[NAMES[name]] = _ids(name, values, block)
            elif name not in schema.names:
                columns[name] = _own_column(f"{table}.{name}", values, block)
            elif name == "embedding":
                columns[name] = _embeddings(table, given, values, block)
            else:
                columns[name] = _column(schema.field(name), values)
        except DataContractError as error:
            problems.append(str(error))
        except pa.ArrowInvalid as error:
            wanted = schema.field(name).type if name in schema.names else "one type"
            told = {"found": values.type, "expected": wanted, "error": error}
            problems.append(finding("does_not_fit", column=name, **told).message)
    for name, default in defaults.items():
        if name == "known_at" and default in columns:
            columns.setdefault(name, columns[default])
        elif name not in (*names, "known_at", "embedding"):
            value = block.version if name == "embedding_version" else default
            columns[name] = pa.repeat(pa.scalar(value, schema.field(name).type), len(given))
    rows = pa.table(columns)
    # What has been told already is not missing besides.
    asked = [f for f in schema if f.name in columns or f.name not in (*names, *defaults)]
    findings = list(column_problems("", rows.schema, pa.schema(asked)))
    is_wrong = {each.column for each in findings}
    fit = [f.with_nullable(f.nullable or f.name == "position") for f in asked]
    rows, more = fitted("", rows, pa.schema([f for f in fit if f.name not in is_wrong]))
    findings = [*findings, *more] or list(value_problems("", table, rows))
    problems += [each.message for each in findings]
    if problems := problems or list(_other_rows(table, rows, block)):
        numbered = " ".join(f"({number}) {each}." for number, each in enumerate(problems, 1))
        several = f"{len(problems)} problems. {numbered}"
        raise DataContractError(problems[0] if len(problems) == 1 else several)
    return pa.table(dict(zip(rows.column_names, rows.columns, strict=True))), ids


def _other_rows(table: str, rows: pa.Table, block: Block) -> Iterator[str]:
    """Yield that rows are of another version than the writer's, or of days that the log has."""
    if table == "pins":
        others = {*rows["embedding_version"].unique().to_pylist()} - {block.version}
        if others:
            yield (
                f"embedding_version is {sorted(others)}; expected {block.version!r}, the writer's; "
                f"open a writer for each version"
            )
        has = "given" if PIN_TIME.name in rows.column_names else "not given"
        block.settle(f"pins.{PIN_TIME.name}", has, "give it to all pins or to none")
    if closed := block.closed_days.get(table):
        times = rows[EVENT_TIME_COLUMNS[table]].cast(pa.timestamp("ms"))
        days = {*pc.unique(pc.strftime(times, format="%Y-%m-%d")).to_pylist()}
        if there := sorted(days & {*closed}):
            yield (
                f"rows of {', '.join(there[:5])} are in the log already ({len(there)} such days); "
                f"expected days of {EVENT_TIME_COLUMNS[table]} that it does not have; leave out "
                f"these rows, or give all rows of these days to EventLogWriter(..., "
                f"replace_days=True)"
            )


def _is_text(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(type_) for is_kind in kinds)


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


def _ids(name: str, values: pa.ChunkedArray, block: Block) -> tuple[pa.ChunkedArray, pa.Table]:
    """Return ids as integers, and the names that they were made from (NAMES_SCHEMA)."""
    kind, names = "integer", NAMES_SCHEMA.empty_table()
    if _is_text(values.type):
        encoded = pc.dictionary_encode(values.cast(pa.string()).combine_chunks())
        ids = pa.array([id_of(text) for text in encoded.dictionary.to_pylist()], pa.int64())
        kind, names = "string", pa.table([ids, encoded.dictionary], schema=NAMES_SCHEMA)
        values = pa.chunked_array([ids.take(encoded.indices)])
    elif not pa.types.is_integer(values.type):
        raise DataContractError(
            f"column {name!r} is {values.type}; expected integers or strings; cast it, and leave "
            f"out rows without an id (they turn integers into floats in pandas)"
        )
    remedy = "give one kind, because the same user or pin would have two ids"
    block.settle(f"kind of {name}", kind, remedy)
    return values, names


def _embeddings(table: str, given: pa.Table, values: pa.ChunkedArray, block: Block) -> pa.Array:
    """Return embeddings as fixed-size lists of float32, of the width that is settled.

    The users' lie in the pins' space, and a model multiplies them: one width for both.
    """
    type_ = values.type
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    is_list = any(is_kind(type_) for is_kind in kinds)
    if not is_list or not pa.types.is_floating(type_.value_type):
        raise DataContractError(
            f"column 'embedding' is {type_}; expected lists of float16, float32 or float64 "
            f"numbers, all of one width; cast it"
        )
    keys = [name for name in ("pin_id", "user_id") if name in given.column_names]
    rows = given.select(keys).append_column("embedding", values)
    for width in (pins_width(block.version), USERS_WIDTH)[: 2 if table == "users" else 1]:
        matrix = embedding_matrix("", rows, int(block.settled.get(width, 0)))
        block.settled[width] = matrix.shape[1]
    return to_list_column(matrix.astype(np.float32, copy=False))


def _own_column(what: str, values: pa.ChunkedArray, block: Block) -> pa.ChunkedArray:
    """Return a column beyond the contract, in the type that it had before; texts are strings."""
    if _is_text(values.type) or pa.types.is_null(values.type):
        values = values.cast(pa.string())
    elif values.type == pa.float16():  # which DuckDB does not know
        values = values.cast(pa.float32())
    before = str(block.settled.get(what, values.type))
    if values.null_count == len(values) and str(values.type) != before:
        with contextlib.suppress(ValueError):  # a list, say
            return pa.chunked_array([pa.nulls(len(values), pa.type_for_alias(before))])
    block.settle(what, str(values.type), "cast it")
    return values
