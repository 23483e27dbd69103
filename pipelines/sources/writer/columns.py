"""One batch's columns in the contract's types, with defaults for what was not given.

The defaults stand in DEFAULTS, and `EventLogWriter` documents them. A column that the contract does
not know is passed on, as a feature. Every problem of a batch is told at once. Not for rows of
several batches together: `pipelines.sources.writer.kept_rows`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import EVENT_LOG_TABLES, PIN_TIME
from pipelines.event_log.record import NAMES, EventLogRecord, IdKind, Vectors
from pipelines.event_log.rules import (
    embedding_matrix,
    usual_width,
    value_problems,
    widths_of,
)
from pipelines.sources.writer.batches import Problems
from pipelines.sources.writer.identifiers import is_text, to_ids

TIMES = ("impressed_at", "acted_at", "known_at", "as_of")
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
_OTHER = {"pins": "users", "users": "pins"}
"""The tables with embeddings, which all lie in one space, and whose width is compared with them."""


class UsersGiven(NamedTuple):
    """What the first batch of users was like."""

    place: str  # what to call it
    has_embeddings: bool


@dataclass(frozen=True)
class Settled:
    """What a log and the batches so far have settled for the batches that follow.

    A value never changes; a batch that is kept gives the next one. So a refused batch settles
    nothing.
    """

    embedding_version: str  # the writer's
    id_kinds: dict[str, IdKind] = field(default_factory=dict)
    vectors: dict[str, Vectors | None] = field(default_factory=lambda: dict.fromkeys(_OTHER))
    extra: dict[str, dict[str, str]] = field(default_factory=dict)  # of tables given in this block
    extra_before: dict[str, dict[str, str]] = field(default_factory=dict)  # of those in the log
    has_pin_times: bool | None = None
    users_given: UsersGiven | None = None  # of this block
    widths_before: frozenset[int] = frozenset()  # of the log's pins, of whatever version

    @classmethod
    def by_log(cls, record: EventLogRecord, embedding_version: str) -> Self:
        """Return what a log has settled for a writer of that version."""
        pins = record.embedding_versions.get(embedding_version)
        has_rows = [table for table, num_rows in record.num_rows.items() if num_rows]
        return cls(
            embedding_version,
            id_kinds=dict(record.id_kinds),
            vectors={"pins": pins, "users": record.user_embeddings},
            extra_before={table: record.extra_columns[table] for table in has_rows},
            has_pin_times=record.have_pins_times,
            widths_before=frozenset(v.embedding_dim for v in record.embedding_versions.values()),
        )

    def zeros_of_users(self) -> Vectors | None:
        """Return what the zeros look like that users without embeddings get.

        None where the users of this block have embeddings, or none of them was given.

        Raises:
            DataContractError: they have none, and no pins say how wide the zeros are.
        """
        if self.users_given is None or self.users_given.has_embeddings:
            return None
        known = self.vectors["users"] or self.vectors["pins"]
        if known is not None:
            return known
        if len(self.widths_before) == 1:
            return Vectors(embedding_dim=min(self.widths_before), type="float32")
        version = self.embedding_version
        raise DataContractError(
            f"the users have no column 'embedding', and no pins of version {version!r} say how "
            f"wide their zeros are; the log's versions have the widths "
            f"{sorted(self.widths_before)}; expected one width; give pins of version {version!r}, "
            f"or the users' embeddings"
        )


class Normalised(NamedTuple):
    """A batch in the contract's types; users may lack their embeddings."""

    rows: pa.Table
    names: dict[str, pa.Table]  # what ids were made from, by the folder of names
    settled: Settled  # where the rows are kept


def normalise(table: str, given: pa.Table, settled: Settled, problems: Problems) -> Normalised:
    """Return a batch in the contract's types, checked as the reader checks a file.

    Args:
        table: one of EVENT_LOG_TABLES.
        given: rows as they were given.
        settled: what is settled before.
        problems: receives what is wrong.

    Raises:
        DataContractError: all that is wrong with the batch.
    """
    names = given.column_names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        problems.add(
            f"columns {repeated} come more than once; expected one column of each name; rename or "
            f"drop the others"
        )
        problems.refuse()
    batch = _Batch(table, given, settled, problems)
    columns, extra = batch.columns(), batch.extra_columns()
    problems.refuse()
    for name, default in DEFAULTS[table].items():
        type_ = batch.schema.field(name).type
        if name in columns or name == "embedding":
            continue
        if name in TIMES:
            columns[name] = columns[default]
        else:
            value = settled.embedding_version if name == "embedding_version" else default
            columns[name] = pa.repeat(pa.scalar(value, type_), len(given))
    rows = pa.table({name: columns[name] for name in batch.schema.names if name in columns} | extra)
    for finding in value_problems("", table, rows):
        problems.add(finding.message)
    problems.refuse()
    return Normalised(rows, batch.names, batch.settled_with(extra))


class _Batch:
    """A batch while its columns are read one by one."""

    def __init__(self, table: str, given: pa.Table, settled: Settled, problems: Problems) -> None:
        self._table, self._given, self._settled, self._problems = table, given, settled, problems
        self.schema = EVENT_LOG_TABLES[table]
        self.names: dict[str, pa.Table] = {}
        self._id_kinds: dict[str, IdKind] = {}
        self._vectors: Vectors | None = None
        if table == "pins" and PIN_TIME.name in given.column_names:
            self.schema = self.schema.append(PIN_TIME)

    def columns(self) -> dict[str, pa.ChunkedArray | pa.Array]:
        """Return the contract's columns that were given, as far as they can be read."""
        self._refuse_other_columns()
        found = {}
        for wanted in self.schema:
            if wanted.name in self._given.column_names:
                values = _without_values(_plain(self._given[wanted.name]), wanted)
                read = _READERS.get(wanted.name, _Batch._read_by_type)
                if self._refuse_nulls(wanted, values):
                    continue
                if (made := read(self, wanted, values)) is not None:
                    found[wanted.name] = made
        return found

    def extra_columns(self) -> dict[str, pa.ChunkedArray]:
        """Return the columns beyond the contract; texts of every kind become strings."""
        given, before = self._settled.extra, self._settled.extra_before
        known = given.get(self._table, before.get(self._table))
        extra = {}
        for name in self._given.column_names:
            if name in self.schema.names:
                continue
            column = _plain(self._given[name])
            if is_text(column.type) or pa.types.is_null(column.type):
                column = column.cast(pa.string())
            if column.null_count == len(column):
                column = _nulls_as_before(column, (known or {}).get(name, ""))
            extra[name] = column
        if known is None:
            return extra
        for name in sorted({*known, *extra}):
            if name not in extra:
                self._problems.add(
                    f"column {name!r} is missing, which earlier rows of this table have; expected "
                    f"it in every batch; add it, with nulls where it is not known"
                )
            elif name not in known and self._table in given:
                self._problems.add(
                    f"column {name!r} was not in the batches before; expected the same columns in "
                    f"every batch; add it to those, with nulls where it is not known"
                )
            elif name in known and str(extra[name].type) != known[name]:
                self._problems.add(
                    f"column {name!r} is {extra[name].type}, and {known[name]} in earlier rows of "
                    f"this table; expected one type; cast it"
                )
        return extra

    def settled_with(self, extra: dict[str, pa.ChunkedArray]) -> Settled:
        """Return what is settled when this batch is kept."""
        before, names = self._settled, self._given.column_names
        users = before.users_given
        if self._table == "users" and users is None:
            users = UsersGiven(self._problems.place, "embedding" in names)
        vectors = before.vectors | ({self._table: self._vectors} if self._vectors else {})
        types = {name: str(column.type) for name, column in extra.items()}
        has_pin_times = PIN_TIME.name in names if self._table == "pins" else before.has_pin_times
        return replace(
            before,
            id_kinds=before.id_kinds | self._id_kinds,
            vectors=vectors,
            extra=before.extra | {self._table: types},
            has_pin_times=has_pin_times,
            users_given=users,
        )

    def _refuse_other_columns(self) -> None:
        """Note columns that are missing, and those that only some batches of the table have."""
        names, add = self._given.column_names, self._problems.add
        missing = [n for n in self.schema.names if n not in (*names, *DEFAULTS[self._table])]
        if missing:
            add(
                f"missing columns {missing}; found {names}; expected also those; add them or "
                f"rename yours"
            )
        users, has_embeddings = self._settled.users_given, "embedding" in names
        if self._table == "users" and users and users.has_embeddings != has_embeddings:
            there, here = ("has not", "has") if has_embeddings else ("has", "has not")
            add(
                f"{users.place} {there} the column 'embedding', and this batch {here}; expected it "
                f"in all batches of users or in none, where all of them get zeros; give it to all "
                f"or to none"
            )
        had_times, has_times = self._settled.has_pin_times, PIN_TIME.name in names
        if self._table == "pins" and had_times not in (None, has_times):
            there, here = ("have", "has not") if had_times else ("have not", "has")
            add(
                f"the pins so far {there} the column 'known_at', and this batch {here}; expected "
                f"it in all of a log's pins or in none; give it to all, or write a new log"
            )

    def _refuse_nulls(self, wanted: pa.Field, column: pa.ChunkedArray) -> bool:
        """Note nulls where none may be, and return whether there are; embeddings say it better."""
        if wanted.nullable or not column.null_count or wanted.name == "embedding":
            return False
        row = int(np.flatnonzero(np.asarray(column.is_null()))[0])
        remedy = ", leave out the column" if wanted.name in DEFAULTS[self._table] else ""
        self._problems.add(
            f"column {wanted.name!r} is null in row {row} ({column.null_count} such rows); "
            f"expected a value in each row; fill it{remedy}, or leave out these rows"
        )
        return True

    def _refuse(self, wanted: pa.Field, values: pa.ChunkedArray, expected: str) -> None:
        self._problems.add(f"column {wanted.name!r} is {values.type}; expected {expected}")

    def _read_ids(self, wanted: pa.Field, values: pa.ChunkedArray) -> pa.ChunkedArray | None:
        name = wanted.name
        made = to_ids(name, values, self._settled.id_kinds.get(name), self._problems)
        if made is None:
            return None
        ids, self.names[NAMES[name]], self._id_kinds[name] = made
        return ids

    def _read_time(self, wanted: pa.Field, values: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """Return a time in ms; what has no zone is in UTC, and parts of a millisecond are cut."""
        type_ = values.type
        zone = type_.tz if pa.types.is_timestamp(type_) else None
        to_ms = pc.CastOptions(pa.timestamp("ms", zone), allow_time_truncate=True)
        try:
            if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
                return values.cast(options=to_ms).cast(pa.int64())
            if pa.types.is_integer(type_):
                return values.cast(pa.int64())
        except pa.ArrowInvalid as error:
            expected = (
                f"times that fit int64 milliseconds since the epoch ({error}); correct them, or "
                f"leave out these rows"
            )
        else:
            expected = (
                "int64 milliseconds since the epoch or a timestamp; parse texts into timestamps, "
                "and leave out rows without a time (they turn integers into floats in pandas)"
            )
        self._refuse(wanted, values, expected)
        return None

    def _read_request_id(self, wanted: pa.Field, values: pa.ChunkedArray) -> pa.ChunkedArray | None:
        type_ = values.type
        if is_text(type_) or pa.types.is_integer(type_) or pa.types.is_null(type_):
            return values.cast(pa.string())
        expected = (
            "strings or integers; nulls turn integers into floats in pandas: cast the column with "
            "astype('Int64') before it has nulls, or to strings"
        )
        self._refuse(wanted, values, expected)
        return None

    def _read_version(self, wanted: pa.Field, values: pa.ChunkedArray) -> pa.ChunkedArray | None:
        ours, texts = self._settled.embedding_version, self._read_by_type(wanted, values)
        if texts is None:
            return None
        is_other = np.asarray(pc.not_equal(texts, ours))
        remedy = f"{ours!r}, the writer's embedding_version; open a writer for each version"
        return None if self._problems.add_rows(wanted.name, is_other, texts, remedy) else texts

    def _read_embedding(self, wanted: pa.Field, values: pa.ChunkedArray) -> pa.Array | None:
        """Return embeddings as fixed-size lists; float64 becomes float32.

        Where the version has float32, lists of float16 are widened, which changes no number.
        """
        known, type_ = self._settled.vectors[self._table], values.type
        kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        is_list = any(is_kind(type_) for is_kind in kinds)
        if is_list and self._refuse_other_width(values.combine_chunks(), known):
            return None
        if not is_list or not pa.types.is_floating(type_.value_type):
            expected = "lists of float16 or float32 numbers, all of one width; cast it"
            self._refuse(wanted, values, expected)
            return None
        is_half = pa.types.is_float16(type_.value_type)
        if known is not None and known.type == "float16" and not is_half:
            self._problems.add(
                f"column 'embedding' has {type_.value_type} numbers, and this embedding version "
                f"has float16; expected float16, because the others would lose digits; cast it, or "
                f"write a new version"
            )
            return None
        names = self._given.column_names
        key = next((name for name in ("pin_id", "user_id") if name in names), names[0])
        rows = pa.table({key: self._given[key], "embedding": values})
        width = known.embedding_dim if known else 0
        matrix = self._problems.note(embedding_matrix, self._problems.place, rows, width)
        if matrix is None:
            return None
        self._vectors = known or Vectors(
            embedding_dim=matrix.shape[1], type="float16" if is_half else "float32"
        )
        return to_list_column(matrix.astype(self._vectors.type, copy=False))

    def _refuse_other_width(self, lists: pa.Array, known: Vectors | None) -> bool:
        """Note embeddings of users and of pins that have two widths, and return whether they do."""
        other, width = self._settled.vectors[_OTHER[self._table]], 0
        if other is not None and (known is None or self._table == "users"):
            width = usual_width(lists.type, widths_of(lists))
        if other is None or width in (0, other.embedding_dim):
            return False
        widths = (width, other.embedding_dim)
        users, pins = widths if self._table == "users" else widths[::-1]
        self._problems.add(
            f"the users' embeddings have {users} numbers, and the pins' of version "
            f"{self._settled.embedding_version!r} have {pins}; expected one width, because the "
            f"users' embeddings lie in the pins' space and a model multiplies them; embed users "
            f"and pins in one space, or leave out the users' column 'embedding', which then is "
            f"zeros, or write another width into a log of its own"
        )
        return True

    def _read_by_type(self, wanted: pa.Field, values: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """Return a column in the contract's type, where its own is of the same kind."""
        type_ = wanted.type
        is_same_kind = {
            pa.string(): is_text,
            pa.bool_(): pa.types.is_boolean,
            pa.int16(): pa.types.is_integer,
            pa.float32(): lambda t: pa.types.is_floating(t) or pa.types.is_integer(t),
        }[type_]
        if not is_same_kind(values.type) and not pa.types.is_null(values.type):
            self._refuse(wanted, values, f"{type_}; cast it")
            return None
        try:
            return values.cast(type_, safe=not pa.types.is_floating(type_))
        except pa.ArrowInvalid as error:
            self._refuse(wanted, values, f"values that fit {type_} ({error}); correct them")
        return None


_READERS: dict[str, Callable[[_Batch, pa.Field, pa.ChunkedArray], Any]] = {
    "user_id": _Batch._read_ids,
    "pin_id": _Batch._read_ids,
    "request_id": _Batch._read_request_id,
    "embedding": _Batch._read_embedding,
    "embedding_version": _Batch._read_version,
    **dict.fromkeys(TIMES, _Batch._read_time),
}


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


def _nulls_as_before(column: pa.ChunkedArray, type_: str) -> pa.ChunkedArray:
    """Return a column of nulls in the type that earlier rows have, where it is a plain one."""
    try:
        return pa.chunked_array([pa.nulls(len(column), pa.type_for_alias(type_))])
    except ValueError:  # there is no earlier one, or a list, say
        return column
