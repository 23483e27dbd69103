"""The rules that rows of an event log must keep, and what is said where one is broken.

Each rule is written once and yields a `Finding`. Everybody who meets rows asks the same functions:
a reader (`reader`, `pipelines.snapshot`) and a writer raise the first finding (`require_none`), and
`pipelines.log_check` collects all findings of a log.

For each batch of rows, `column_problems` asks for columns and their types, then `fitted` for nulls
and values that do not fit their type, then `value_problems` for times, action types, chances and
numbers; `embedding_matrix` asks for embeddings. The bounds of what many rows come to, as shares and
rates, are in `pipelines.contracts.data_rules`. Not for judging whether data looks as usual:
the data gate does. Tested in tests/pipelines/event_log/test_rules.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_TIME
from pipelines.contracts.time import DAY_MS, EARLIEST_MS, LATEST_MS, to_ms

EVENT_TIME_COLUMNS = {"impressions": "impressed_at", "actions": "acted_at"}
"""The column whose UTC day is the day of a row's partition."""
KEY_COLUMNS = ("request_id", "user_id", "pin_id", "as_of")
"""What names a row in a report, where its table has the column."""
_CORRECT = "correct it where the table is written"
_CAST = "cast it where the table is written"


class Severity(StrEnum):
    """What a finding means for whoever wants to build a snapshot of the log."""

    ERROR = "error"  # the snapshot would be refused, or wrong
    WARNING = "warning"  # a person must look
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One way in which a file, or the log as a whole, breaks a rule or looks as if it did."""

    rule: str
    where: str  # the file, or '' where `problem` says it
    problem: str
    remedy: str  # what was expected, and what to change; '' where `problem` says it
    table: str = ""
    column: str = ""
    row: int | None = None  # the first such row, from 0, of the rows that were looked at
    ids: tuple[tuple[str, Any], ...] = ()  # of that row, by column
    value: str = ""  # found there
    num_rows: int = 1  # rows that break the rule
    day: date | None = None  # that it is about, where many days may have the same
    severity: Severity = Severity.ERROR

    @property
    def message(self) -> str:
        """The finding in one sentence: where, what was found, what was expected, what to change."""
        where, rows = f"{self.where}: " if self.where else "", ""
        if self.row is not None:
            named = ", ".join(
                f"{n}={v}" for n, v in (*self.ids, (self.column, self.value)) if v != ""
            )
            such = f"{self.num_rows:,} such row{'s' * (self.num_rows != 1)}"
            rows = f" ({such}, first row {self.row}: {named})"
        return f"{where}{self.problem}{rows}" + (f"; {self.remedy}" if self.remedy else "")


def require_none(findings: Iterable[Finding]) -> None:
    """Raise the first finding, if there is one.

    Raises:
        DataContractError: a rule is broken.
    """
    for finding in findings:
        error = DataContractError(finding.message)
        error.about = (finding.rule, finding.where, str(finding.day or ""))
        raise error


# Columns and their types


def column_problems(
    path: str,
    found: pa.Schema,
    expected: pa.Schema,
    extra_columns: Sequence[str] = (),
    number_columns: Sequence[str] = (),
) -> Iterator[Finding]:
    """Yield the columns that a file lacks, or has in a type of another kind.

    A type may be wider or narrower, such as int32 for int64 or float64 for float32. It may not be
    of another kind, such as float for int, a timestamp for int64 milliseconds or text for an id.

    Args:
        path: The file.
        found: Its columns.
        expected: Those of the contract.
        extra_columns: What a recipe declares as features of text beyond them.
        number_columns: What it declares as numeric features.
    """
    declared = {*extra_columns, *number_columns}
    types = dict(zip(found.names, found.types, strict=True))
    wanted: list[tuple[str, tuple[str, ...], str]] = []
    for field in expected:
        words = f"expected {field.type}"
        if pa.types.is_fixed_size_list(field.type):
            words = f"expected fixed_size_list of {field.type.value_type} or halffloat of one width"
        elif pa.types.is_timestamp(types.get(field.name, pa.null())):
            words += " milliseconds since the epoch"
        wanted.append((field.name, (_kind(field.type), "null"), f"{words}; {_CAST}"))
    text = f"expected string (a categorical feature); {_CAST}"
    wanted += [(name, ("text", "integer"), text) for name in extra_columns]
    number = (
        f"expected an integer or a float (a numeric feature); {_CAST}, or take it out of "
        f"features.numeric"
    )
    wanted += [(name, ("integer", "float", "null"), number) for name in number_columns]
    missing = [name for name, *_ in wanted if name not in types]
    hint = " (declared as features by the recipe)" if declared & {*missing} else ""
    for name in missing:
        problem = f"missing column {name!r}{hint}; found {sorted(found.names)}"
        remedy = f"expected also {missing}; add the column where the table is written"
        yield Finding("missing_column", path, problem, remedy, column=name)
    for name, kinds, remedy in wanted:
        if name in types and _kind(types[name]) not in kinds:
            said = f"column {name!r} is {types[name]}"
            yield Finding("wrong_kind", path, said, remedy, column=name, value=str(types[name]))


def _kind(type_: pa.DataType) -> str:
    """Return the family of a type's values; values may be cast within a family."""
    if isinstance(type_, pa.DictionaryType):
        return _kind(type_.value_type)
    families = (
        ("integer", pa.types.is_integer),
        ("float", pa.types.is_floating),
        ("boolean", pa.types.is_boolean),
        ("text", pa.types.is_string),
        ("text", pa.types.is_large_string),
        ("text", pa.types.is_string_view),
    )
    for family, is_member in families:
        if is_member(type_):
            return family
    is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_)
    if is_list or pa.types.is_fixed_size_list(type_):
        return f"list of {_kind(type_.value_type)}"
    return str(type_)


# Values of rows


def fitted(path: str, rows: pa.Table, expected: pa.Schema) -> tuple[pa.Table, tuple[Finding, ...]]:
    """Cast rows to the contract's types.

    Embeddings and columns beyond the contract stay as they are, as does a column that does not fit.

    Returns:
        The rows, and what is wrong with them; a column of the rule `does_not_fit` is not cast.
    """
    asked = [name for name in expected.names if name != "embedding"]
    problems = list(null_problems(path, rows, asked, expected))
    for index, (name, column) in enumerate(zip(rows.schema.names, rows.columns, strict=True)):
        if name not in expected.names or name == "embedding":
            continue
        field = expected.field(name)
        if column.type == field.type:
            continue
        try:
            cast = column.cast(field.type, safe=not pa.types.is_floating(field.type))
            rows = rows.set_column(index, field, cast)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            said = f"column {name!r} ({column.type}) has a value that does not fit {field.type}"
            remedy = f"expected values of {field.type}; {_CORRECT}"
            unfit = Finding("does_not_fit", path, f"{said} ({error})", remedy, column=name)
            problems.append(unfit)
    return rows, tuple(problems)


def null_problems(
    path: str, rows: pa.Table, names: Sequence[str], expected: pa.Schema
) -> Iterator[Finding]:
    """Yield those of some columns that hold nulls where the contract allows none."""
    for name in (name for name in names if name in rows.schema.names):
        if not expected.field(name).nullable and rows[name].null_count:
            remedy = "expected none; fill or drop these rows where the table is written"
            yield _of_rows(
                "null", path, rows, rows[name].is_null(), name, f"column {name!r} is null", remedy
            )


def cast_to_schema(path: str, rows: pa.Table, expected: pa.Schema) -> pa.Table:
    """Return the rows in the contract's types, extra columns and embeddings as they are.

    Raises:
        DataContractError: a value does not fit, or a null stands where none may.
    """
    rows, problems = fitted(path, rows, expected)
    require_none(problems)
    return rows


def value_problems(
    path: str,
    table: str,
    rows: pa.Table,
    action_types: Sequence[str] = (),
    number_columns: Sequence[str] = (),
    day: date | None = None,
) -> Iterator[Finding]:
    """Yield what the values of rows break, as far as their columns are there.

    Args:
        path: The file.
        table: One of EVENT_LOG_TABLES.
        rows: In the contract's types.
        action_types: The vocabulary that every action must be in; nothing judges no types.
        number_columns: Columns beyond the contract that are numeric features.
        day: Of the partition; None where the rows are in none.
    """
    names, when = set(rows.schema.names), EVENT_TIME_COLUMNS.get(table, "as_of")
    timed = [name for name in (when, PIN_TIME.name) if name in names]
    no_times = [finding for name in timed for finding in time_problems(path, name, rows)]
    yield from no_times
    if len(timed) == 2:
        is_bad = pc.greater(rows[when], rows[PIN_TIME.name])
        if pc.any(is_bad).as_py():
            said = f"{when} is after known_at"
            remedy = (
                f"expected {when} <= known_at (nothing is known before it happens); correct the "
                f"clock or the column that filled them"
            )
            yield _of_rows("known_before_it_happened", path, rows, is_bad, "known_at", said, remedy)
    if day is not None and when in names and not no_times:
        yield from day_problems(path, rows, when, day)
    if "action_type" in names and action_types:
        found = set(pc.unique(rows["action_type"]).drop_null().to_pylist())
        if unknown := sorted(found - set(action_types)):  # a type is never read as padding
            text = rows["action_type"].cast(pa.string())
            is_bad = pc.is_in(text, value_set=pa.array(unknown, pa.string()))
            said = f"unknown action type {unknown[0]!r} (all unknown: {unknown})"
            remedy = (
                f"expected one of {list(action_types)}; add it to features.action_types of the "
                f"recipe or drop these rows where the table is written"
            )
            yield _of_rows("unknown_action_type", path, rows, is_bad, "action_type", said, remedy)
    if "propensity" in names:
        chance = rows["propensity"]
        is_good = pc.and_(pc.greater(chance, 0.0), pc.less_equal(chance, 1.0))
        is_bad = pc.invert(pc.fill_null(is_good, True))
        if pc.any(is_bad).as_py():  # an estimator would divide by it
            said = "a propensity is outside (0, 1]"
            remedy = (
                f"expected the chance that the pin was shown, or null where it is not known; "
                f"{_CORRECT}"
            )
            yield _of_rows("propensity", path, rows, is_bad, "propensity", said, remedy)
    yield from number_problems(path, rows, [name for name in number_columns if name in names])


def time_problems(path: str, name: str, rows: pa.Table) -> Iterator[Finding]:
    """Yield that times of a column do not lie between the years 2000 and 2100 as milliseconds."""
    times = rows[name]
    if len(rows) == times.null_count:
        return
    low, high = pc.min_max(times).as_py().values()
    if EARLIEST_MS <= low and high < LATEST_MS:
        return
    value = high if EARLIEST_MS <= low else low
    units = (("seconds", 1000), ("microseconds", 0.001), ("nanoseconds", 1e-6))
    fits = [unit for unit, factor in units if EARLIEST_MS <= value * factor < LATEST_MS]
    hint = f" ({value} looks like {fits[0]})" if fits else ""
    is_bad = pc.or_(pc.less(times, EARLIEST_MS), pc.greater_equal(times, LATEST_MS))
    said = f"{name} is not a plausible time in milliseconds since the epoch{hint}"
    remedy = (
        f"expected {EARLIEST_MS} (year 2000) to {LATEST_MS} (year 2100); convert it where the "
        f"table is written"
    )
    yield _of_rows("implausible_time", path, rows, is_bad, name, said, remedy)


def day_problems(path: str, rows: pa.Table, time_column: str, day: date) -> Iterator[Finding]:
    """Yield that rows are filed under another day than theirs: pruning by day relies on it."""
    times, start_ms = rows[time_column], to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))
    if len(times) == times.null_count:
        return
    low, high = pc.min_max(times).as_py().values()
    if start_ms <= low and high < start_ms + DAY_MS:
        return
    is_bad = pc.or_(pc.less(times, start_ms), pc.greater_equal(times, start_ms + DAY_MS))
    said = f"rows with {time_column} from {low} to {high} in the partition day={day}"
    remedy = (
        f"expected [{start_ms}, {start_ms + DAY_MS}), the UTC day; partition the table by the UTC "
        f"day of {time_column}"
    )
    yield _of_rows("wrong_day", path, rows, is_bad, time_column, said, remedy)


def number_problems(path: str, rows: pa.Table, columns: Sequence[str]) -> Iterator[Finding]:
    """Yield the number columns that hold what is no finite float32 number."""
    for name in columns:
        with np.errstate(over="ignore"):
            is_bad = np.isinf(numbers_of(rows[name]).astype(np.float32))
        if is_bad.any():
            said = f"column {name!r} has a number that is infinite or too large"
            remedy = f"expected finite float32 numbers, or null where none is known; {_CORRECT}"
            yield _of_rows("infinite_number", path, rows, is_bad, name, said, remedy)


def numbers_of(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return a column of numbers; NaN is a null. An int64 beyond 2**53 is rounded."""
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())


def _of_rows(
    rule: str,
    path: str,
    rows: pa.Table,
    is_bad: Any,
    column: str,
    problem: str,
    remedy: str,
    value: str | None = None,
) -> Finding:
    """Return the finding of some marked rows, with the first one's number, ids and value."""
    is_arrow = isinstance(is_bad, pa.ChunkedArray)
    marks = np.asarray(pc.fill_null(is_bad, False) if is_arrow else is_bad)
    row = int(marks.argmax())
    return Finding(
        rule,
        path,
        problem,
        remedy,
        column=column,
        row=row,
        ids=tuple((n, rows[n][row].as_py()) for n in KEY_COLUMNS if n in rows.schema.names),
        value=str(rows[column][row].as_py()) if value is None else value,
        num_rows=int(marks.sum()),
    )


# Embeddings: lists of one width per embedding version, every number finite


class FoundWidth(NamedTuple):
    """The width of the embeddings in a file, and the first row that has it."""

    path: str
    row_key: str  # such as pin_id=20
    embedding_dim: int


def embedding_matrix(path: str, rows: pa.Table, embedding_dim: int = 0) -> np.ndarray:
    """Return the `embedding` column as float32 [rows, width]: one width, every number finite.

    Args:
        path: the file, for the message.
        rows: rows of one embedding version, their lists of float16, float32 or float64.
        embedding_dim: the width wanted; 0 takes the width that most of the rows have.

    Raises:
        DataContractError: a list is null or of another width, or a number is null, NaN or infinite;
            the message names the row.
    """
    column = rows["embedding"].combine_chunks()
    widths = widths_of(column)
    wanted = embedding_dim or usual_width(column.type, widths)
    if (widths < 0).any():
        said, remedy = (
            "an embedding is null",
            f"expected {wanted} numbers; leave out the row, or give it an embedding",
        )
        require_none([_of_rows("null", path, rows, widths < 0, "embedding", said, remedy, "null")])
    is_other = (widths != wanted) | (widths == 0)
    if is_other.any():
        width = widths[is_other.argmax()]
        remedy = (
            f"expected {wanted or 'at least 1'}, the width of this embedding version; embed the "
            f"row anew, or give embeddings of another width a version of their own"
        )
        said = f"an embedding has {width} numbers"
        require_none(
            [
                _of_rows(
                    "embedding_width",
                    path,
                    rows,
                    is_other,
                    "embedding",
                    said,
                    remedy,
                    f"{width} numbers",
                )
            ]
        )
    numbers = column.flatten().cast(pa.float32(), safe=False)
    matrix = np.asarray(numbers.to_numpy(zero_copy_only=False)).reshape(len(column), wanted)
    require_none(embedding_number_problems(path, rows, ~np.isfinite(matrix).all(axis=1)))
    return matrix


def widths_of(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return the width of each list of a column, -1 for a null."""
    if pa.types.is_fixed_size_list(column.type):
        return np.where(np.asarray(column.is_null()), -1, column.type.list_size)
    return np.asarray(pc.fill_null(pc.list_value_length(column), -1)).astype(np.int64)


def usual_width(type_: pa.DataType, widths: npt.NDArray[np.int64]) -> int:
    """Return the width that most rows have, the smallest of several; 0 where there is no row."""
    if pa.types.is_fixed_size_list(type_):
        return int(type_.list_size)
    found, counts = np.unique(widths[widths >= 0], return_counts=True)
    return int(found[counts.argmax()]) if len(found) else 0


def embedding_number_problems(
    path: str, rows: pa.Table, is_bad: npt.NDArray[np.bool_]
) -> Iterator[Finding]:
    """Yield that the embeddings of marked rows [rows] hold a null, NaN or infinite number."""
    if is_bad.any():
        said = "an embedding has a null, NaN or infinite number"
        remedy = "expected finite float32 numbers; write these embeddings again"
        yield _of_rows("embedding_number", path, rows, is_bad, "embedding", said, remedy, "")


def check_one_width(found: Sequence[FoundWidth], whose: str, remedy: str) -> None:
    """Check that embeddings that belong together have one width.

    Args:
        found: the widths of some files, the one that counts first.
        whose: what must have one width, for the message.
        remedy: what to change, for the message.

    Raises:
        DataContractError: two widths; the message names a file and a row of each.
    """
    for other in found[1:]:
        first = found[0]
        if other.embedding_dim != first.embedding_dim:
            raise DataContractError(
                f"{other.path}: embedding of {other.row_key} has {other.embedding_dim} numbers; "
                f"expected {first.embedding_dim}, as {first.row_key} in {first.path} has, because "
                f"{whose}; {remedy}"
            )


# Rules that rows of several files break together


OF_SEVERAL_FILES = {
    "request_of_two_users": (
        "impressions.request_id",
        "request {request_id!r} belongs to users {one} and {other}",
        "expected one user per request; make request_id unique",
    ),
    "action_before_request": (
        "actions.acted_at",
        "action on pin {pin_id} at {acted_at} names request {request_id!r}, which was shown later, "
        "at {impressed_at} ({num_rows} such actions)",
        "expected acted_at >= impressed_at; correct the clocks or the attribution",
    ),
    "repeated_user_row": (
        "users.as_of",
        "user {user_id} has more than one row of as_of={as_of}",
        "expected one per (user_id, as_of); remove the repeated row",
    ),
    "repeated_embedding": (
        "pins.embedding_version",
        "pin {pin_id} has more than one embedding of version {version!r} ({num_rows} such rows)",
        "expected one per (pin_id, embedding_version); remove the repeated rows",
    ),
    "pin_times_in_some": (
        f"pins.{PIN_TIME.name}",
        "{without} has no column 'known_at', and {with_times} has",
        "expected it in every file of the pins or in none; add it to the older files (a time "
        "before the pin's first impression keeps the pin known as it was), or leave it out",
    ),
    "missing_version": (
        "pins.embedding_version",
        "no embedding of version {version!r} at {uri}; found the versions {found}",
        "expected rows of that version; add it to the table or set snapshot.embedding_version in "
        "the recipe",
    ),
    "pin_without_embedding": (
        "pins.pin_id",
        "{num_rows} of {num_wanted} pins in the impressions and actions have no embedding of "
        "version {version!r}, first: {first}",
        "expected one for each; fold these pins into the version's basis and add their rows",
    ),
}
"""For each such rule: the table and column, what is said of it, and what to change."""


def across_files(
    rule: str,
    facts: Mapping[str, object],
    ids: Sequence[tuple[str, Any]] = (),
    num_rows: int = 1,
) -> Finding:
    """Return the finding of one of OF_SEVERAL_FILES.

    Args:
        rule: Which.
        facts: What the sentence names.
        ids: Rows that it is about, by column; they may stand in the sentence too.
        num_rows: Rows that break the rule.
    """
    place, said, remedy = OF_SEVERAL_FILES[rule]
    table, _, column = place.partition(".")
    problem = f"{table}: " + said.format(**facts, **dict(ids), num_rows=num_rows)
    return Finding(
        rule, "", problem, remedy, table=table, column=column, ids=tuple(ids), num_rows=num_rows
    )


def pins_without_embedding(
    missing: Sequence[int], num_missing: int, num_wanted: int, version: str
) -> Finding:
    """Return the finding of pins that were shown or acted upon and have no embedding."""
    ids = [("pin_id", each) for each in missing[:5]]
    first = ", ".join(str(each) for _, each in ids)
    facts = {"num_wanted": num_wanted, "version": version, "first": first}
    return across_files("pin_without_embedding", facts, ids, num_missing)
