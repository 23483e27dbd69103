"""A batch as people have it (pandas, polars, Arrow, numpy) as rows in the contract's types.

Whatever has `__arrow_c_stream__` is read through it, so that no such library is imported here.
Columns that were not given get the defaults of DEFAULTS, which `EventLogWriter` documents; a column
that the contract does not know is passed on, as a feature. Every problem of a batch is told at
once. Not for rows of several batches together: `pipelines.sources.writer.kept_rows`.

The id of a name is the BLAKE2b digest of its UTF-8 bytes, 8 bytes long, read as a signed integer
with the most significant byte first: the same on every machine, for ever. The names are kept beside
the log, so that two names with one id are found out.
"""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_TIME, contract_of
from pipelines.contracts.time import with_utc
from pipelines.event_log.record import NAMES, EventLogRecord, IdKind
from pipelines.event_log.rules import EVENT_TIME_COLUMNS, embedding_matrix, value_problems

MAX_BYTES = 128 << 20
"""Rows of a larger table are taken in several parts, so that memory stays bounded."""
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
        "embedding": None,  # zeros, which are made when the pins' width is known
        "state": "unknown",
        "location": None,
    },
}
"""By table: the columns that need not be given. For a time, the column whose value it takes."""
NAMES_SCHEMA = pa.schema(
    [pa.field("id", pa.int64(), nullable=False), pa.field("name", pa.string(), nullable=False)]
)
"""Columns of the tables below names/."""

_INDEX = "__index_level_"
"""How pandas names the columns that it makes of an index; an index is no column of the log."""
_ALL_OR_NONE = {"pins": PIN_TIME.name, "users": "embedding"}
"""The column of a table that all of its batches have, or none."""
_OTHER = {"pins": "users", "users": "pins"}
"""The tables with embeddings, which all lie in one space, and whose width is compared with them."""
_MOST_SHOWN = 12


def id_of(name: str) -> int:
    """Return the id of a name, in [-2^63, 2^63)."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@dataclass
class Settled:
    """What a log and the batches so far have settled for the batches that follow.

    A batch settles more in a copy, which counts once the batch is kept.
    """

    embedding_version: str  # the writer's
    closed_days: Mapping[str, Collection[str]] = field(default_factory=dict)  # by table; none new
    id_kinds: dict[str, IdKind] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)  # of the pins' and users' embeddings
    own_types: dict[str, dict[str, str]] = field(default_factory=dict)  # beyond the contract
    has_column: dict[str, bool] = field(default_factory=dict)  # of _ALL_OR_NONE, by table

    @classmethod
    def by_log(cls, record: EventLogRecord, embedding_version: str, replaces_days: bool) -> Self:
        """Return what a log has settled for a writer of that version."""
        pins, users = record.embedding_versions.get(embedding_version), record.user_embeddings
        vectors = {"pins": pins, "users": users}
        return cls(
            embedding_version,
            closed_days={} if replaces_days else record.days,
            id_kinds=dict(record.id_kinds),
            widths={table: each.embedding_dim for table, each in vectors.items() if each},
            own_types={table: dict(types) for table, types in record.extra_columns.items()},
            has_column={"pins": record.have_pins_times},
        )


def tables_of(batch: Any, place: str) -> Iterator[pa.Table]:
    """Yield the rows of a batch in order, as tables of about MAX_BYTES at most.

    Args:
        batch: a pandas or polars DataFrame, an Arrow table, record batch or reader, or a mapping
            from column names to arrays, of which a two-dimensional one holds a list per row.
        place: what to call the batch in a message, such as 'impressions, batch 3'.

    Raises:
        DataContractError: it is none of these, or one of its columns has no single type.
    """
    try:
        if isinstance(batch, Mapping):
            is_matrix = {name: getattr(values, "ndim", 1) == 2 for name, values in batch.items()}
            batch = {
                name: to_list_column(np.ascontiguousarray(values)) if is_matrix[name] else values
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
                f"Arrow table, record batch or reader, or a dictionary of columns; give it as one "
                f"of these"
            )
        for given in parts:
            names = enumerate(given.column_names)
            columns = [number for number, name in names if not name.startswith(_INDEX)]
            table = given.select(columns).replace_schema_metadata(None)
            step = max(1, len(table) * MAX_BYTES // max(1, table.nbytes))
            for start in range(0, len(table), step):
                yield table.slice(start, step)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataContractError(
            f"{place} cannot be read as an Arrow table: {error}; expected one type in each column, "
            f"as in a column of ids that are all integers or all strings; cast the column that "
            f"mixes them"
        ) from error


def normalise(
    table: str, given: pa.Table, settled: Settled, place: str
) -> tuple[pa.Table, dict[str, pa.Table], Settled]:
    """Return a batch in the contract's types, checked as the reader checks a file.

    Args:
        table: one of EVENT_LOG_TABLES.
        given: rows as they were given.
        settled: what is settled before.
        place: what to call the batch in a message.

    Returns:
        The rows, of which users may lack their embeddings; the names that ids were made from, by
        their folder; and what is settled where the rows are kept.

    Raises:
        DataContractError: all that is wrong with the batch.
    """
    names, settled = given.column_names, deepcopy(settled)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        _refuse(place, f"columns {repeated} come more than once; expected each once; drop others")
    schema, defaults = contract_of(table, names), DEFAULTS[table]
    problems = list(_other_columns(table, names, schema, settled))
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    ids: dict[str, pa.Table] = {}
    for name, values in zip(names, map(_plain, given.columns), strict=True):
        wanted = schema.field(name) if name in schema.names else None
        try:
            if wanted is None:
                columns[name] = _own_column(table, name, values, settled)
            elif name == "embedding":
                columns[name] = _embeddings(table, given, values, settled)
            elif values.null_count and not wanted.nullable:
                remedy = ", leave out the column" if name in defaults else ""
                expected = f"a value in each row; fill it{remedy}, or leave out these rows"
                problems.append(_of_rows(name, values.is_null(), values, expected))
            elif name in NAMES:
                columns[name], ids[NAMES[name]] = _ids(name, values, settled)
            else:
                columns[name] = _cast(wanted, values)
        except DataContractError as error:
            problems.append(str(error))
        except pa.ArrowInvalid as error:
            remedy = "give such ids as strings" if name in NAMES else "leave out these rows"
            problems.append(
                f"column {name!r} is {values.type} with a value that does not fit ({error}); "
                f"expected {wanted.type if wanted else 'one type'}; correct the values, or {remedy}"
            )
    _refuse(place, *problems)
    for name, default in defaults.items():
        if name == "known_at":
            columns.setdefault(name, columns[default])
        elif name != "embedding":
            value = settled.embedding_version if name == "embedding_version" else default
            scalar = pa.scalar(value, schema.field(name).type)
            columns.setdefault(name, pa.repeat(scalar, len(given)))
    rows = pa.table(columns)
    problems += [finding.message for finding in value_problems("", table, rows)]
    _refuse(place, *(problems or _other_rows(table, rows, settled)))
    return rows, ids, settled


def _refuse(place: str, *problems: str) -> None:
    """Raise for the problems of a batch, if there are any."""
    if len(problems) == 1:
        raise DataContractError(f"{place}: {problems[0]}")
    if problems:
        text = " ".join(f"({n}) {each}." for n, each in enumerate(problems[:_MOST_SHOWN], 1))
        rest = len(problems) - _MOST_SHOWN
        more = f" And {rest} more." if rest > 0 else ""
        raise DataContractError(f"{place}: {len(problems)} problems. {text}{more}")


def _of_rows(
    column: str,
    is_bad: pa.ChunkedArray,
    values: pa.ChunkedArray,
    expected: str,
    show: Callable[[Any], str] = repr,
) -> str:
    """Say what is wrong with the rows that are marked, by the first of them."""
    row = pc.index(is_bad, True).as_py()
    value = "null" if (found := values[row].as_py()) is None else show(found)
    return (
        f"column {column!r} is {value} in row {row} ({pc.sum(is_bad).as_py()} such rows); expected "
        f"{expected}"
    )


def _other_columns(
    table: str, names: list[str], schema: pa.Schema, settled: Settled
) -> Iterator[str]:
    """Yield that columns are missing, or that one is there which other batches have not."""
    if missing := [name for name in schema.names if name not in (*names, *DEFAULTS[table])]:
        yield (
            f"missing columns {missing}; found {names}; expected also those; add them or rename "
            f"yours"
        )
    if (column := _ALL_OR_NONE.get(table)) is not None:
        has = column in names
        if settled.has_column.setdefault(table, has) != has:
            there, here = ("have not", "has") if has else ("have", "has not")
            yield (
                f"the {table} so far {there} the column {column!r}, and this batch {here}; "
                f"expected it in all {table} or in none; give it to all or to none, or write a new "
                f"log"
            )


def _other_rows(table: str, rows: pa.Table, settled: Settled) -> Iterator[str]:
    """Yield that rows are of another version than the writer's, or of days that the log has."""
    if table == "pins":
        versions, ours = rows["embedding_version"], settled.embedding_version
        if pc.any(is_bad := pc.not_equal(versions, ours)).as_py():
            expected = f"{ours!r}, the writer's embedding_version; open a writer for each version"
            yield _of_rows("embedding_version", is_bad, versions, expected)
    if closed := settled.closed_days.get(table):
        times = rows[EVENT_TIME_COLUMNS[table]]
        days = pc.strftime(times.cast(pa.timestamp("ms")), format="%Y-%m-%d")
        is_bad = pc.is_in(days, pa.array(list(closed)))
        if there := sorted(pc.unique(days.filter(is_bad)).to_pylist()):
            expected = (
                f"days that the log does not have yet, and it has {', '.join(there[:5])} already; "
                f"leave out these rows, or give all rows of these days to EventLogWriter(..., "
                f"replace_days=True)"
            )
            yield _of_rows(EVENT_TIME_COLUMNS[table], is_bad, times, expected, with_utc)


def _is_text(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(type_) for is_kind in kinds)


_KINDS: dict[Any, tuple[tuple[Callable[[pa.DataType], bool], ...], str]] = {
    pa.int64(): (
        (pa.types.is_timestamp, pa.types.is_date, pa.types.is_integer),
        "int64 milliseconds since the epoch or a timestamp; parse texts into timestamps, and leave "
        "out rows without a time (they turn integers into floats in pandas)",
    ),
    "request_id": (
        (_is_text, pa.types.is_integer),
        "strings or integers; nulls turn integers into floats in pandas: cast the column with "
        "astype('Int64') before it has nulls, or to strings",
    ),
    pa.string(): ((_is_text,), "string; cast it"),
    pa.bool_(): ((pa.types.is_boolean,), "bool; cast it"),
    pa.int16(): ((pa.types.is_integer,), "int16; cast it"),
    pa.float32(): ((pa.types.is_floating, pa.types.is_integer), "float; cast it"),
}
"""By a column's name or its type in the contract: what may be cast to it, and that in words."""


def _cast(wanted: pa.Field, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in the contract's type.

    A time without a zone is in UTC, and parts of a millisecond are cut off. Where every value is
    missing, pandas and numpy make a column of floats, and so they do of texts.

    Raises:
        DataContractError: it is of another kind.
        ArrowInvalid: a value does not fit.
    """
    type_, nan_is_null = values.type, not pa.types.is_floating(wanted.type)
    if wanted.nullable and pc.all(values.is_null(nan_is_null=nan_is_null)).as_py():
        return pa.chunked_array([pa.nulls(len(values), wanted.type)])
    kinds, expected = _KINDS.get(wanted.name) or _KINDS[wanted.type]
    if not any(is_kind(type_) for is_kind in kinds):
        raise DataContractError(f"column {wanted.name!r} is {type_}; expected {expected}")
    if pa.types.is_temporal(type_):
        zone = type_.tz if pa.types.is_timestamp(type_) else None
        to_ms = pc.CastOptions(pa.timestamp("ms", zone), allow_time_truncate=True)
        values = values.cast(options=to_ms)
    return values.cast(wanted.type, safe=not pa.types.is_floating(wanted.type))


def _ids(name: str, values: pa.ChunkedArray, settled: Settled) -> tuple[pa.ChunkedArray, pa.Table]:
    """Return ids as int64, and the names that they were made from (NAMES_SCHEMA)."""
    kind: IdKind = "string" if _is_text(values.type) else "integer"
    if kind == "integer" and not pa.types.is_integer(values.type):
        raise DataContractError(
            f"column {name!r} is {values.type}; expected integers or strings; cast it, and leave "
            f"out rows without an id (they turn integers into floats in pandas)"
        )
    before = settled.id_kinds.setdefault(name, kind)
    if before != kind:
        raise DataContractError(
            f"column {name!r} has {kind} ids, and this log has {before} ids there; expected one "
            f"kind in a log, because the same user or pin would have two ids; give "
            f"{'texts' if before == 'string' else 'integers'}, or write a log of its own"
        )
    if kind == "integer":
        return values.cast(pa.int64()), NAMES_SCHEMA.empty_table()
    encoded = pc.dictionary_encode(values.cast(pa.string()).combine_chunks())
    ids = pa.array([id_of(text) for text in encoded.dictionary.to_pylist()], pa.int64())
    names = pa.table([ids, encoded.dictionary], schema=NAMES_SCHEMA)
    return pa.chunked_array([ids.take(encoded.indices)]), names


def _embeddings(table: str, given: pa.Table, values: pa.ChunkedArray, settled: Settled) -> pa.Array:
    """Return embeddings as fixed-size lists of float32, of the width that is settled."""
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
    matrix = embedding_matrix("", rows, settled.widths.get(table, 0))
    width = settled.widths.setdefault(table, matrix.shape[1])
    other = settled.widths.get(_OTHER[table], width)
    if width != other:
        users, pins = (width, other) if table == "users" else (other, width)
        raise DataContractError(
            f"the users' embeddings have {users} numbers, and the pins' of version "
            f"{settled.embedding_version!r} have {pins}; expected one width, because the users' "
            f"embeddings lie in the pins' space and a model multiplies them; embed users and pins "
            f"in one space, or leave out the users' column 'embedding', which then is zeros, or "
            f"write another width into a log of its own"
        )
    return to_list_column(matrix.astype(np.float32, copy=False))


def _own_column(
    table: str, name: str, values: pa.ChunkedArray, settled: Settled
) -> pa.ChunkedArray:
    """Return a column beyond the contract, in the type that it had before; texts are strings."""
    if _is_text(values.type) or pa.types.is_null(values.type):
        values = values.cast(pa.string())
    before = settled.own_types.setdefault(table, {}).setdefault(name, str(values.type))
    if values.null_count == len(values) and str(values.type) != before:
        with contextlib.suppress(ValueError):  # a list, say
            return pa.chunked_array([pa.nulls(len(values), pa.type_for_alias(before))])
    if str(values.type) != before:
        raise DataContractError(
            f"column {name!r} is {values.type}, and {before} in earlier rows of this table; "
            f"expected one type; cast it"
        )
    return values


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without Arrow's extension types, and texts without a dictionary."""
    if isinstance(column.type, pa.BaseExtensionType):
        storage = column.type.storage_type
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], storage)
    if isinstance(column.type, pa.DictionaryType):
        column = column.cast(column.type.value_type)
    return column
