"""One batch's columns in the contract's types, with defaults for what was not given.

The defaults stand in DEFAULTS, and `EventLogWriter` documents them. A column that the contract does
not know is passed on, as a feature. Every problem of a batch is told at once. Not for rows of
several batches together: `pipelines.sources.writer.assemble`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.schemas import EVENT_LOG_TABLES, PIN_TIME
from pipelines.event_log.record import IdKind, Vectors
from pipelines.event_log.rules import value_problems
from pipelines.sources.writer.identifiers import is_text, to_ids
from pipelines.sources.writer.problems import Problems
from pipelines.sources.writer.vectors import given_width, to_vectors, width_problem

TIMES = ("impressed_at", "acted_at", "known_at", "as_of")
DEFAULT_SURFACE = "homefeed"
DEFAULT_STATE = "unknown"
DEFAULTS: dict[str, dict[str, Any]] = {
    "impressions": {
        "known_at": "impressed_at",
        "position": None,  # counted when all rows of the request are there
        "surface": DEFAULT_SURFACE,
        "is_exploration": False,
        "propensity": None,
    },
    "actions": {"known_at": "acted_at", "request_id": None},
    "pins": {"embedding_version": None},  # the writer's
    "users": {
        "embedding": None,  # zeros, which are made when the pins' width is known
        "state": DEFAULT_STATE,
        "location": None,
    },
}
"""By table: the columns that need not be given. For a time, the column whose value it takes."""


class UsersGiven(NamedTuple):
    """What the first batch of users was like."""

    place: str  # what to call it
    has_embeddings: bool


@dataclass(frozen=True)
class Known:
    """What the log and the batches before have settled."""

    embedding_version: str
    id_kinds: dict[str, IdKind]
    vectors: Vectors | None  # of this table's embeddings
    other_vectors: Vectors | None  # of the pins' where the table is users, and of the users'
    users_given: UsersGiven | None  # None before the first batch of users
    extra: dict[str, str] | None  # types by column; None where nothing was given yet
    may_have_more: bool  # whether columns that were not there before may come
    has_pin_times: bool | None


@dataclass
class Normalised:
    """A batch in the contract's types; users may lack their embeddings."""

    place: str  # what to call it
    rows: pa.Table
    names: dict[str, pa.Table] = field(default_factory=dict)  # by column of ids
    id_kinds: dict[str, IdKind] = field(default_factory=dict)
    vectors: Vectors | None = None
    extra: dict[str, str] = field(default_factory=dict)


def normalise(table: str, batch: pa.Table, known: Known, problems: Problems) -> Normalised:
    """Return a batch in the contract's types, checked as the reader checks a file.

    Args:
        table: one of EVENT_LOG_TABLES.
        batch: rows as they were given.
        known: what is settled.
        problems: receives what is wrong.

    Raises:
        DataContractError: all that is wrong with the batch.
    """
    _refuse_repeated_names(batch.column_names, problems)
    schema = EVENT_LOG_TABLES[table]
    if table == "pins" and _wants_pin_times(batch, known, problems):
        schema = schema.append(PIN_TIME)
    if table == "users":
        _refuse_mixed_users(batch, known, problems)
    missing = [n for n in schema.names if n not in (*batch.column_names, *DEFAULTS[table])]
    if missing:
        problems.add(
            f"missing columns {missing}; found {batch.column_names}; expected also those; add them "
            f"or rename yours"
        )
    found = Normalised(problems.place, rows=batch.slice(0, 0))
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for wanted in schema:
        if wanted.name in batch.column_names:
            column = _without_values(_plain(batch[wanted.name]), wanted)
            if not _refuse_nulls(wanted, column, wanted.name in DEFAULTS[table], problems):
                continue
            read = _READERS.get(wanted.name, _read_by_type)
            made = read(_Column(table, wanted, column, batch, known, found, problems))
            if made is not None:
                columns[wanted.name] = made
    extra = _extra_columns(batch, schema, known, problems)
    problems.refuse()
    for name, default in DEFAULTS[table].items():
        if name not in columns and name != "embedding":
            columns[name] = _default(name, default, columns, schema.field(name).type, len(batch))
    if "embedding_version" in schema.names and "embedding_version" not in batch.column_names:
        columns["embedding_version"] = pa.repeat(known.embedding_version, len(batch))
    rows = pa.table({name: columns[name] for name in schema.names if name in columns} | extra)
    _check_rows(table, rows, problems)
    problems.refuse()
    found.rows = rows
    found.extra = {name: str(column.type) for name, column in extra.items()}
    return found


def _refuse_repeated_names(names: list[str], problems: Problems) -> None:
    """Raise for columns of one name, of which nobody could say which one counts."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        problems.add(
            f"columns {repeated} come more than once; expected one column of each name; rename or "
            f"drop the others"
        )
        problems.refuse()


@dataclass(frozen=True)
class _Column:
    """One column of a batch, with all that reading it may need."""

    table: str
    wanted: pa.Field
    values: pa.ChunkedArray
    batch: pa.Table
    known: Known
    found: Normalised
    problems: Problems

    def refuse(self, expected: str) -> None:
        """Note that the column's type is wrong."""
        self.problems.add(f"column {self.wanted.name!r} is {self.values.type}; expected {expected}")


def _read_ids(column: _Column) -> pa.ChunkedArray | None:
    name = column.wanted.name
    made = to_ids(name, column.values, column.known.id_kinds.get(name), column.problems)
    if made is None:
        return None
    ids, names = made
    column.found.names[name] = names
    column.found.id_kinds[name] = "string" if is_text(column.values.type) else "integer"
    return ids


def _read_time(column: _Column) -> pa.ChunkedArray | None:
    """Return a time in ms; what has no zone is in UTC, and parts of a millisecond are cut off."""
    values, type_ = column.values, column.values.type
    zone = type_.tz if pa.types.is_timestamp(type_) else None
    to_ms = pc.CastOptions(pa.timestamp("ms", zone), allow_time_truncate=True)
    try:
        if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
            return values.cast(options=to_ms).cast(pa.int64())
        if pa.types.is_integer(type_):
            return values.cast(pa.int64())
    except pa.ArrowInvalid as error:
        column.refuse(
            f"times that fit int64 milliseconds since the epoch ({error}); correct them, or leave "
            f"out these rows"
        )
        return None
    column.refuse(
        "int64 milliseconds since the epoch or a timestamp; parse texts into timestamps, and leave "
        "out rows without a time (they turn integers into floats in pandas)"
    )
    return None


def _read_request_id(column: _Column) -> pa.ChunkedArray | None:
    if is_text(column.values.type) or pa.types.is_integer(column.values.type):
        return column.values.cast(pa.string())
    if pa.types.is_null(column.values.type):
        return column.values.cast(pa.string())
    column.refuse(
        "strings or integers; nulls turn integers into floats in pandas: cast the column with "
        "astype('Int64') before it has nulls, or to strings"
    )
    return None


def _read_version(column: _Column) -> pa.ChunkedArray | None:
    ours = column.known.embedding_version
    texts = _read_by_type(column)
    if texts is None:
        return None
    is_other = np.asarray(pc.not_equal(texts, ours))
    remedy = f"{ours!r}, the writer's embedding_version; open a writer for each version"
    return None if column.problems.add_rows("embedding_version", is_other, texts, remedy) else texts


def _read_embedding(column: _Column) -> pa.Array | None:
    known, key = column.known, _key_of(column.batch)
    if column.table == "users" and _refuse_other_width(column, given_width(column.values)):
        return None
    made = to_vectors(key, column.values, column.batch, known.vectors, column.problems)
    if made is None:
        return None
    column.found.vectors, vectors = made
    if column.table == "pins":
        _refuse_other_width(column, column.found.vectors.embedding_dim)
    return vectors


def _refuse_other_width(column: _Column, width: int) -> bool:
    """Note embeddings of users and of pins that have two widths, and return whether they do."""
    other = column.known.other_vectors
    if other is None or width in (0, other.embedding_dim):
        return False
    widths = (width, other.embedding_dim)
    users, pins = widths if column.table == "users" else widths[::-1]
    column.problems.add(width_problem(users, pins, column.known.embedding_version))
    return True


def _read_by_type(column: _Column) -> pa.ChunkedArray | None:
    """Return a column in the contract's type, where its own is of the same kind."""
    wanted, type_ = column.wanted.type, column.values.type
    is_same_kind = {
        pa.string(): is_text,
        pa.bool_(): pa.types.is_boolean,
        pa.int16(): pa.types.is_integer,
        pa.float32(): lambda t: pa.types.is_floating(t) or pa.types.is_integer(t),
    }[wanted]
    if not is_same_kind(type_) and not pa.types.is_null(type_):
        column.refuse(f"{wanted}; cast it")
        return None
    try:
        return column.values.cast(wanted, safe=not pa.types.is_floating(wanted))
    except pa.ArrowInvalid as error:
        column.refuse(f"values that fit {wanted} ({error}); correct them")
        return None


_READERS: dict[str, Callable[[_Column], Any]] = {
    "user_id": _read_ids,
    "pin_id": _read_ids,
    "request_id": _read_request_id,
    "embedding": _read_embedding,
    "embedding_version": _read_version,
    **dict.fromkeys(TIMES, _read_time),
}


def _key_of(batch: pa.Table) -> str:
    """Return the column that names a row of embeddings, which may be missing as well."""
    names = [name for name in ("pin_id", "user_id") if name in batch.column_names]
    return names[0] if names else batch.column_names[0]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without Arrow's extension types, and texts without a dictionary."""
    if isinstance(column.type, pa.BaseExtensionType):
        storage = column.type.storage_type
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], storage)
    if isinstance(column.type, pa.DictionaryType):
        column = column.cast(column.type.value_type)
    return column


def _without_values(column: pa.ChunkedArray, wanted: pa.Field) -> pa.ChunkedArray:
    """Return a column that may be empty and is, whatever its type, as one without a type.

    Where every value is missing, pandas and numpy make a column of floats, and so they do of texts.
    """
    nan_is_null = not pa.types.is_floating(wanted.type)
    if not wanted.nullable or not pc.all(column.is_null(nan_is_null=nan_is_null)).as_py():
        return column
    return pa.chunked_array([pa.nulls(len(column))])


def _refuse_nulls(
    wanted: pa.Field, column: pa.ChunkedArray, has_default: bool, problems: Problems
) -> bool:
    """Note nulls where none may be, and return whether there are none; embeddings say it better."""
    if wanted.nullable or not column.null_count or wanted.name == "embedding":
        return True
    row = int(np.flatnonzero(np.asarray(column.is_null()))[0])
    remedy = ", leave out the column" if has_default else ""
    problems.add(
        f"column {wanted.name!r} is null in row {row} ({column.null_count} such rows); expected a "
        f"value in each row; fill it{remedy}, or leave out these rows"
    )
    return False


def _refuse_mixed_users(batch: pa.Table, known: Known, problems: Problems) -> None:
    """Note a batch of users with embeddings where another has none, or the other way round."""
    first, has_them = known.users_given, "embedding" in batch.column_names
    if first is not None and first.has_embeddings != has_them:
        there, here = ("has not", "has") if has_them else ("has", "has not")
        problems.add(
            f"{first.place} {there} the column 'embedding', and this batch {here}; expected it in "
            f"all batches of users or in none, where all of them get zeros; give it to all or to "
            f"none"
        )


def _wants_pin_times(batch: pa.Table, known: Known, problems: Problems) -> bool:
    has_times = PIN_TIME.name in batch.column_names
    if known.has_pin_times not in (None, has_times):
        there, here = ("have", "has not") if known.has_pin_times else ("have not", "has")
        problems.add(
            f"the pins so far {there} the column 'known_at', and this batch {here}; expected it in "
            f"all of a log's pins or in none; give it to all, or write a new log"
        )
    return has_times


def _extra_columns(
    batch: pa.Table, schema: pa.Schema, known: Known, problems: Problems
) -> dict[str, pa.ChunkedArray]:
    """Return the columns beyond the contract; texts of every kind become strings."""
    extra = {}
    for name in batch.column_names:
        if name in schema.names:
            continue
        column = _plain(batch[name])
        if is_text(column.type) or pa.types.is_null(column.type):
            column = column.cast(pa.string())
        if column.null_count == len(column):
            column = _nulls_as_before(column, (known.extra or {}).get(name, ""))
        extra[name] = column
    if known.extra is None:
        return extra
    before = known.extra
    for name in sorted(set(before) | set(extra)):
        if name not in extra:
            problems.add(
                f"column {name!r} is missing, which earlier rows of this table have; expected it "
                f"in every batch; add it, with nulls where it is not known"
            )
        elif name not in before and not known.may_have_more:
            problems.add(
                f"column {name!r} was not in the batches before; expected the same columns in "
                f"every batch; add it to those, with nulls where it is not known"
            )
        elif name in before and str(extra[name].type) != before[name]:
            problems.add(
                f"column {name!r} is {extra[name].type}, and {before[name]} in earlier rows of "
                f"this table; expected one type; cast it"
            )
    return extra


def _nulls_as_before(column: pa.ChunkedArray, type_: str) -> pa.ChunkedArray:
    """Return a column of nulls in the type that earlier rows have, where it is a plain one."""
    try:
        return pa.chunked_array([pa.nulls(len(column), pa.type_for_alias(type_))])
    except ValueError:  # there is no earlier one, or a list, say
        return column


def _default(
    name: str, default: Any, columns: dict[str, Any], type_: pa.DataType, num_rows: int
) -> Any:
    if name in TIMES:
        return columns[default]
    return (
        pa.nulls(num_rows, type_)
        if default is None
        else pa.repeat(pa.scalar(default, type_), num_rows)
    )


def _check_rows(table: str, rows: pa.Table, problems: Problems) -> None:
    """Note every value that breaks a rule of the contract."""
    for finding in value_problems("", table, rows):
        problems.add(finding.message)
