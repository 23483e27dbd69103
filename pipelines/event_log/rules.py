"""The table of rules that rows of an event log must keep, and what is said where one is broken.

Each rule is written once, as a function that yields a `Finding`: the file, what was found, what was
expected, what to change. Everybody who meets rows asks the same functions:

- a reader (`reader`, `pipelines.snapshot`) and a writer raise the first finding: `require_none`;
- `pipelines.log_check` collects all findings of a log.

A writer asks, for each batch of rows, with its own name for the batch as `where`:
`column_problems` (columns and their types), then `fitted` (nulls, and values that do not fit their
type), then `value_problems` (times, action types, chances, numbers); for embeddings
`embedding_matrix`. The bounds of what many rows come to, as shares and rates, are in
`pipelines.contracts.data_rules`. Not for judging whether data looks as usual: the data gate
does. Tested in tests/pipelines/event_log/test_rules.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
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
RULES = {
    "missing_column": "a column is missing",
    "wrong_kind": "a column of another kind",
    "null": "a null where none may be",
    "does_not_fit": "a value that does not fit",
    "implausible_time": "no time in milliseconds",
    "known_before_it_happened": "known before it happened",
    "wrong_day": "in the partition of another day",
    "unknown_action_type": "an action type that the recipe does not list",
    "propensity": "no chance",
    "infinite_number": "a number that is infinite or too large",
    "embedding_width": "an embedding of another width",
    "embedding_number": "no finite numbers",
    "request_of_two_users": "a request of two users",
    "action_before_request": "an action before the request that it names",
    "repeated_user_row": "two rows of a user at one time",
    "repeated_embedding": "two embeddings of a pin in one version",
    "pin_times_in_some": "known_at in some files of the pins alone",
    "missing_version": "no pin has the embedding version",
    "pin_without_embedding": "pins in use without an embedding",
}
"""Every rule of the contract, in words."""


@dataclass(frozen=True)
class Finding:
    """One way in which a file, or the log as a whole, breaks a rule."""

    rule: str  # of RULES, or of whoever judges more than the contract
    where: str  # the file, or '' where `problem` says it
    problem: str
    expected: str  # '' where `problem` says it, as of the remedy
    remedy: str
    table: str = ""
    column: str = ""
    row: int | None = None  # the first such row, from 0, of the rows that were looked at
    ids: tuple[tuple[str, Any], ...] = ()  # of that row, by column
    value: str = ""  # found there
    num_rows: int = 1  # rows that break the rule
    day: date | None = None  # that it is about, where many days may have the same

    @property
    def key(self) -> str:
        """What names the row, such as 'pin_id=7'."""
        return ", ".join(f"{name}={value}" for name, value in self.ids)

    @property
    def message(self) -> str:
        """The finding in one sentence: where, what was found, what was expected, what to change."""
        where = f"{self.where}: " if self.where else ""
        expected = f"expected {self.expected}" if self.expected else ""
        return where + "; ".join(part for part in (self.problem, expected, self.remedy) if part)


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
    declared = (*extra_columns, *number_columns)
    missing = [name for name in (*expected.names, *declared) if name not in found.names]
    hint = " (declared as features by the recipe)" if set(missing) & set(declared) else ""
    for name in missing:
        problem = f"missing column {name!r}{hint}; found {sorted(found.names)}"
        remedy = "add the column where the table is written"
        yield Finding("missing_column", path, problem, f"also {missing}", remedy, column=name)
    wanted = [(field.name, _is_kind_of(found, field), *_wanted(found, field)) for field in expected]
    cast = "cast it where the table is written"
    for name in extra_columns:
        is_text = name in missing or _kind(found.field(name).type) in ("text", "integer")
        wanted.append((name, is_text, "string (a categorical feature)", cast))
    for name in number_columns:
        kind = "integer" if name in missing else _kind(found.field(name).type)
        is_number = kind in ("integer", "float", "null")
        number = "an integer or a float (a numeric feature)"
        wanted.append((name, is_number, number, f"{cast}, or take it out of features.numeric"))
    for name, is_good, words, remedy in wanted:
        if name not in missing and not is_good:
            type_ = str(found.field(name).type)
            problem = f"column {name!r} is {type_}"
            yield Finding("wrong_kind", path, problem, words, remedy, column=name, value=type_)


def _is_kind_of(found: pa.Schema, field: pa.Field) -> bool:
    """Return whether a file's column is of the contract's kind; nulls alone are of each kind."""
    if field.name not in found.names:
        return False
    return _kind(found.field(field.name).type) in (_kind(field.type), "null")


def _wanted(found: pa.Schema, field: pa.Field) -> tuple[str, str]:
    """Return what a column of the contract must be, and what to do where it is not."""
    cast = "cast it where the table is written"
    if pa.types.is_fixed_size_list(field.type):
        return f"fixed_size_list of {field.type.value_type} or halffloat, all of one width", cast
    is_time = field.name in found.names and pa.types.is_timestamp(found.field(field.name).type)
    return f"{field.type}{' milliseconds since the epoch' * is_time}", cast


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


def fitted(
    path: str, rows: pa.Table, expected: pa.Schema
) -> tuple[pa.Table, tuple[Finding, ...], tuple[str, ...]]:
    """Cast rows to the contract's types.

    Embeddings and columns beyond the contract stay as they are, as does a column that does not fit.

    Returns:
        The rows, what is wrong with them, and the columns that do not fit.
    """
    unfit = []
    others = rows.select([name for name in rows.schema.names if name != "embedding"])
    nulls = tuple(null_problems(path, others, expected))
    for index, name in enumerate(rows.schema.names):
        if name not in expected.names or name == "embedding":
            continue
        field, column = expected.field(name), rows[name]
        if column.type == field.type:
            continue
        try:
            cast = column.cast(field.type, safe=not pa.types.is_floating(field.type))
            rows = rows.set_column(index, field, cast)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            said = f"column {name!r} ({column.type}) has a value that does not fit {field.type}"
            unfit.append(
                Finding(
                    "does_not_fit",
                    path,
                    f"{said} ({error})",
                    f"values of {field.type}",
                    "correct it where the table is written",
                    column=name,
                    value=str(error)[:80],
                )
            )
    return rows, (*nulls, *unfit), tuple(finding.column for finding in unfit)


def null_problems(path: str, rows: pa.Table, expected: pa.Schema) -> Iterator[Finding]:
    """Yield the columns that hold nulls where the contract allows none."""
    for name in rows.schema.names:
        if name in expected.names and not expected.field(name).nullable and rows[name].null_count:
            yield Finding(
                "null",
                path,
                f"column {name!r} has {rows[name].null_count} nulls in {len(rows)} rows",
                "none",
                "fill or drop these rows where the table is written",
                column=name,
                value="null",
                **_first(rows, rows[name].is_null()),
            )


def cast_to_schema(path: str, rows: pa.Table, expected: pa.Schema) -> pa.Table:
    """Return the rows in the contract's types, extra columns and embeddings as they are.

    Raises:
        DataContractError: a value does not fit, or a null stands where none may.
    """
    rows, problems, _ = fitted(path, rows, expected)
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
    names = set(rows.schema.names)
    when = EVENT_TIME_COLUMNS.get(table, "as_of")
    is_timed = True
    for name in (when, PIN_TIME.name):
        for finding in time_problems(path, name, rows) if name in names else ():
            is_timed = False
            yield finding
    if {when, "known_at"} <= names:
        yield from _order_problems(path, rows, when)
    if day is not None and when in names and is_timed:
        yield from day_problems(path, rows[when], when, day, rows)
    if "action_type" in names and action_types:
        yield from _vocabulary_problems(path, rows, action_types)
    if "propensity" in names:
        yield from _propensity_problems(path, rows)
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
    unit = ""
    for guess, factor in (("seconds", 1000), ("microseconds", 0.001), ("nanoseconds", 1e-6)):
        if not unit and EARLIEST_MS <= value * factor < LATEST_MS:
            unit = f" (it looks like {guess})"
    is_bad = pc.or_(pc.less(times, EARLIEST_MS), pc.greater_equal(times, LATEST_MS))
    yield Finding(
        "implausible_time",
        path,
        f"{name}={value} in row {pc.index(times, value).as_py()} is not a plausible time in "
        f"milliseconds since the epoch{unit}",
        f"{EARLIEST_MS} (year 2000) to {LATEST_MS} (year 2100)",
        "convert it where the table is written",
        column=name,
        value=str(value),
        **_first(rows, is_bad),
    )


def _order_problems(path: str, rows: pa.Table, time_column: str) -> Iterator[Finding]:
    """Yield the rows that were known before they happened."""
    is_future = pc.greater(rows[time_column], rows["known_at"])
    if not pc.any(is_future).as_py():
        return
    found = _first(rows, is_future)
    at, known = (rows[name][found["row"]].as_py() for name in (time_column, "known_at"))
    yield Finding(
        "known_before_it_happened",
        path,
        f"{found['num_rows']} of {len(rows)} rows have {time_column} after known_at, first row "
        f"{found['row']} with {time_column}={at}, known_at={known}",
        f"{time_column} <= known_at (nothing is known before it happens)",
        "correct the clock or the column that filled them",
        column="known_at",
        value=str(known),
        **found,
    )


def day_problems(
    path: str, times: pa.ChunkedArray, time_column: str, day: date, rows: pa.Table | None = None
) -> Iterator[Finding]:
    """Yield that rows are filed under another day than theirs: pruning by day relies on it.

    Args:
        path: The file.
        times: When its rows happened.
        time_column: What that column is called.
        day: Of the partition.
        rows: All columns, to name the first such row; None does not name it.
    """
    if len(times) == times.null_count:
        return
    start_ms = to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))
    low, high = pc.min_max(times).as_py().values()
    if start_ms <= low and high < start_ms + DAY_MS:
        return
    is_bad = pc.or_(pc.less(times, start_ms), pc.greater_equal(times, start_ms + DAY_MS))
    yield Finding(
        "wrong_day",
        path,
        f"rows with {time_column} from {low} to {high} in the partition day={day}",
        f"[{start_ms}, {start_ms + DAY_MS}), the UTC day",
        f"partition the table by the UTC day of {time_column}",
        column=time_column,
        value=str(low if low < start_ms else high),
        **_first(pa.table({time_column: times}) if rows is None else rows, is_bad),
    )


def _vocabulary_problems(
    path: str, rows: pa.Table, action_types: Sequence[str]
) -> Iterator[Finding]:
    """Yield the actions of types that the recipe does not list, which are never padding."""
    found = set(pc.unique(rows["action_type"]).drop_null().to_pylist())
    unknown = sorted(found - set(action_types))
    if unknown:
        text = rows["action_type"].cast(pa.string())
        is_bad = pc.is_in(text, value_set=pa.array(unknown, pa.string()))
        yield Finding(
            "unknown_action_type",
            path,
            f"unknown action type {unknown[0]!r} (all unknown: {unknown})",
            f"one of {list(action_types)}",
            "add it to features.action_types of the recipe or drop these rows where the table is "
            "written",
            column="action_type",
            value=unknown[0],
            **_first(rows, is_bad),
        )


def _propensity_problems(path: str, rows: pa.Table) -> Iterator[Finding]:
    """Yield the logged chances that are none, by which an estimator would divide."""
    chance = rows["propensity"]
    is_good = pc.and_(pc.greater(chance, 0.0), pc.less_equal(chance, 1.0))
    is_bad = pc.invert(pc.fill_null(is_good, True))
    if pc.any(is_bad).as_py():
        found = _first(rows, is_bad)
        first = rows.slice(found["row"], 1).to_pylist()[0]
        yield Finding(
            "propensity",
            path,
            f"{found['num_rows']} of {len(rows)} rows have a propensity outside (0, 1], first "
            f"{first['propensity']} of request_id={first.get('request_id')!r}, "
            f"pin_id={first.get('pin_id')}",
            "the chance that the pin was shown, or null where it is not known",
            "correct it where the table is written",
            column="propensity",
            value=str(first["propensity"]),
            **found,
        )


def number_problems(path: str, rows: pa.Table, columns: Sequence[str]) -> Iterator[Finding]:
    """Yield the number columns that hold what is no finite float32 number."""
    for name in columns:
        values = numbers_of(rows[name])
        with np.errstate(over="ignore"):
            is_bad = np.isinf(values.astype(np.float32))
        if is_bad.any():
            row = int(np.flatnonzero(is_bad)[0])
            yield Finding(
                "infinite_number",
                path,
                f"column {name!r} has {int(is_bad.sum())} numbers that are infinite or too "
                f"large, first {values[row]}",
                "finite float32 numbers, or null where none is known",
                "correct it where the table is written",
                column=name,
                value=str(values[row]),
                num_rows=int(is_bad.sum()),
                row=row,
            )


def numbers_of(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return a column of numbers; NaN is a null. An int64 beyond 2**53 is rounded."""
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())


def _first(rows: pa.Table, is_bad: pa.ChunkedArray) -> dict[str, Any]:
    """Return how many rows are marked, and the first one's number and ids, for a `Finding`."""
    row = pc.index(is_bad, True).as_py()
    names = [name for name in KEY_COLUMNS if name in rows.schema.names]
    ids = tuple((name, rows[name][row].as_py()) for name in names)
    return {"row": row, "ids": ids, "num_rows": pc.sum(is_bad).as_py()}


# Embeddings: lists of one width per embedding version, every number finite


class FoundWidth(NamedTuple):
    """The width of the embeddings in a file, and the first row that has it."""

    path: str
    row_key: str  # such as pin_id=20
    embedding_dim: int


def embedding_matrix(path: str, key: str, rows: pa.Table, embedding_dim: int = 0) -> np.ndarray:
    """Return the `embedding` column as float32 [rows, width]: one width, every number finite.

    Args:
        path: the file, for the message.
        key: the column that names a row, for the message.
        rows: rows of one embedding version, their lists of float16, float32 or float64.
        embedding_dim: the width wanted; 0 takes the width that most of the rows have.

    Raises:
        DataContractError: a list is null or of another width, or a number is null, NaN or infinite;
            the message names the row.
    """
    column = rows["embedding"].combine_chunks()
    widths = widths_of(column)
    wanted = embedding_dim or usual_width(column.type, widths)
    bad = ((widths < 0) | (widths != wanted) | (widths == 0)).nonzero()[0]
    # Nulls are told first, wherever they stand.
    for row in sorted(bad.tolist(), key=lambda row: (widths[row] >= 0, row))[:1]:
        is_null = widths[row] < 0
        num_rows = int((widths[bad] < 0).sum() if is_null else len(bad))
        require_none([_of_embedding(path, key, rows[key], row, num_rows, widths[row], wanted)])
    numbers = column.flatten().cast(pa.float32(), safe=False)
    matrix = np.asarray(numbers.to_numpy(zero_copy_only=False)).reshape(len(column), wanted)
    require_none(embedding_number_problems(path, key, rows[key], matrix))
    return matrix


def _of_embedding(
    path: str, key: str, keys: pa.ChunkedArray, row: int, num_rows: int, width: int, wanted: int
) -> Finding:
    """Return what is said of an embedding that is null (-1 wide), or of another width."""
    what = "is null" if width < 0 else f"has {width} numbers"
    expected = f"{wanted or 'at least 1'}, the width of this embedding version"
    remedy = "embed the row anew, or give embeddings of another width a version of their own"
    return Finding(
        "null" if width < 0 else "embedding_width",
        path,
        f"embedding of {key}={keys[row].as_py()} {what} (row {row}, {num_rows} such rows)",
        f"{wanted} numbers" if width < 0 else expected,
        "leave out the row, or give it an embedding" if width < 0 else remedy,
        column="embedding",
        row=row,
        ids=((key, keys[row].as_py()),),
        value=what,
        num_rows=num_rows,
    )


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
    path: str, key: str, keys: pa.ChunkedArray, matrix: npt.NDArray[np.floating]
) -> Iterator[Finding]:
    """Yield that embeddings [rows, width] hold a null, NaN or infinite number."""
    is_bad = ~np.isfinite(matrix).all(axis=1)
    if is_bad.any():
        row, what = int(is_bad.argmax()), "has a null, NaN or infinite number"
        named, num_rows = keys[row].as_py(), int(is_bad.sum())
        yield Finding(
            "embedding_number",
            path,
            f"embedding of {key}={named} {what} (row {row}, {num_rows} such rows)",
            f"{matrix.shape[1]} finite float32 numbers",
            "write these embeddings again",
            column="embedding",
            row=row,
            ids=((key, named),),
            value=what,
            num_rows=num_rows,
        )


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


def request_of_two_users(request_id: str, one: int, other: int, num_requests: int = 1) -> Finding:
    """Return what is said of a request whose impressions belong to two users."""
    return Finding(
        "request_of_two_users",
        "",
        f"impressions: request {request_id!r} belongs to users {one} and {other}",
        "one user per request",
        "make request_id unique",
        table="impressions",
        column="request_id",
        ids=(("user_id", one), ("user_id", other)),
        value=f"users {one} and {other}",
        num_rows=num_requests,
    )


def action_before_request(
    pin_id: int, acted_at: int, request_id: str, impressed_at: int, num_actions: int
) -> Finding:
    """Return what is said of actions that happened before the request that they name."""
    return Finding(
        "action_before_request",
        "",
        f"actions: action on pin {pin_id} at {acted_at} names request {request_id!r}, which was "
        f"shown later, at {impressed_at} ({num_actions} such actions)",
        "acted_at >= impressed_at",
        "correct the clocks or the attribution",
        table="actions",
        column="acted_at",
        ids=(("pin_id", pin_id),),
        value=str(acted_at),
        num_rows=num_actions,
    )


def repeated_user_row(user_id: int, as_of: int, num_rows: int = 1) -> Finding:
    """Return what is said of a user with two rows of the same as_of."""
    return Finding(
        "repeated_user_row",
        "",
        f"users: user {user_id} has more than one row of as_of={as_of}",
        "one per (user_id, as_of)",
        "remove the repeated row",
        table="users",
        column="as_of",
        ids=(("user_id", user_id),),
        value=str(as_of),
        num_rows=num_rows,
    )


def repeated_embedding(pin_id: int, version: str, num_rows: int) -> Finding:
    """Return what is said of a pin with two embeddings of one version."""
    return Finding(
        "repeated_embedding",
        "",
        f"pins: pin {pin_id} has more than one embedding of version {version!r} ({num_rows} such "
        f"rows)",
        "one per (pin_id, embedding_version)",
        "remove the repeated rows",
        table="pins",
        column="embedding_version",
        ids=(("pin_id", pin_id),),
        value=version,
        num_rows=num_rows,
    )


def pin_times_in_some(with_times: Sequence[str], without: Sequence[str]) -> Iterator[Finding]:
    """Yield what is said where some files of the pins have the optional known_at, and some not."""
    if with_times and without:
        yield Finding(
            "pin_times_in_some",
            "",
            f"pins: {without[0]} has no column {PIN_TIME.name!r}, and {with_times[0]} has",
            "it in every file of the pins or in none",
            "add it to the older files (a time before the pin's first impression keeps the pin "
            "known as it was), or leave it out",
            table="pins",
            column=PIN_TIME.name,
            num_rows=len(without),
        )


def missing_version(uri: str, version: str, found: Sequence[str]) -> Finding:
    """Return what is said of an embedding version that no pin has."""
    return Finding(
        "missing_version",
        "",
        f"pins: no embedding of version {version!r} at {uri}; found the versions {list(found)}",
        f"rows of version {version!r}",
        "add that version to the table or set snapshot.embedding_version in the recipe",
        table="pins",
        column="embedding_version",
        value=", ".join(found),
    )


def pins_without_embedding(
    missing: Sequence[int], num_missing: int, num_wanted: int, version: str
) -> Finding:
    """Return what is said of pins that were shown or acted upon and have no embedding."""
    return Finding(
        "pin_without_embedding",
        "",
        f"pins: {num_missing} of {num_wanted} pins in the impressions and actions have no "
        f"embedding of version {version!r}, first: {', '.join(map(str, missing[:5]))}",
        "one for each",
        "fold these pins into the version's basis and add their rows",
        table="pins",
        column="pin_id",
        ids=tuple(("pin_id", each) for each in missing[:5]),
        num_rows=num_missing,
    )
