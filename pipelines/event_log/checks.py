"""Rules of one event log file: columns, types, nulls, times, vocabulary, embeddings.

Each rule is a function that yields a `Finding` for what breaks it: the file, what was found, what
was expected and what to change. The `check_...` functions raise the first, for whoever reads the
log; `pipelines.log_check` collects them. Not for rules that several files break together
(`cross_rules`), nor for judging whether the data looks healthy: the data gate does.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.time import DAY_MS, to_ms
from pipelines.event_log.findings import Finding, require_none

EARLIEST_PLAUSIBLE_MS = 946_684_800_000  # 2000-01-01
LATEST_PLAUSIBLE_MS = 4_102_444_800_000  # 2100-01-01
KEY_COLUMNS = ("request_id", "user_id", "pin_id", "as_of")
"""What names a row in a report, where its table has the column."""


def check_columns(
    path: str,
    found: pa.Schema,
    expected: pa.Schema,
    extra_columns: Sequence[str] = (),
    number_columns: Sequence[str] = (),
) -> None:
    """Raise the first finding of `column_problems`.

    Raises:
        DataContractError: a column is missing or of another kind.
    """
    require_none(column_problems(path, found, expected, extra_columns, number_columns))


def column_problems(
    path: str,
    found: pa.Schema,
    expected: pa.Schema,
    extra_columns: Sequence[str] = (),
    number_columns: Sequence[str] = (),
) -> Iterator[Finding]:
    """Yield the contract's columns that a file lacks, or has in a type of another kind.

    A type may be wider or narrower, such as int32 for int64 or float64 for float32. It may not be
    of another kind, such as float for int, a timestamp for int64 milliseconds or text for an id.
    """
    declared = (*extra_columns, *number_columns)
    missing = [name for name in (*expected.names, *declared) if name not in found.names]
    hint = " (declared as features by the recipe)" if set(missing) & set(declared) else ""
    for name in missing:
        yield Finding(
            "missing_column",
            path,
            f"missing column {name!r}{hint}; found {sorted(found.names)}",
            f"also {missing}",
            "add the column where the table is written",
            column=name,
        )
    for field in expected:
        if field.name not in missing:
            yield from _kind_problems(path, field.name, found.field(field.name).type, field.type)
    for name in extra_columns:
        if name not in missing and _kind(found.field(name).type) not in ("text", "integer"):
            yield Finding(
                "wrong_kind",
                path,
                f"column {name!r} is {found.field(name).type}",
                "string (a categorical feature)",
                "cast it where the table is written",
                column=name,
                value=str(found.field(name).type),
            )
    for name in number_columns:
        if name not in missing and not _is_number(found.field(name).type):
            yield Finding(
                "wrong_kind",
                path,
                f"column {name!r} is {found.field(name).type}",
                "an integer or a float (a numeric feature)",
                "cast it where the table is written, or take it out of features.numeric",
                column=name,
                value=str(found.field(name).type),
            )


def _is_number(type_: pa.DataType) -> bool:
    return _kind(type_) in ("integer", "float") or pa.types.is_null(type_)


def cast_to_schema(path: str, rows: pa.Table, expected: pa.Schema) -> pa.Table:
    """Return the rows in the contract's types, extra columns and embeddings as they are.

    Embeddings have a width of their own; `embeddings.embedding_matrix` checks and reads them.

    Raises:
        DataContractError: a value does not fit, or a null stands where none may.
    """
    others = rows.select([name for name in rows.schema.names if name != "embedding"])
    require_none(null_problems(path, others, expected))
    rows, problems = cast_columns(path, rows, expected)
    require_none(problems)
    return rows


def null_problems(path: str, rows: pa.Table, expected: pa.Schema) -> Iterator[Finding]:
    """Yield the columns that hold nulls where the contract allows none."""
    for name in rows.schema.names:
        if name not in expected.names or expected.field(name).nullable:
            continue
        if rows[name].null_count:
            yield Finding(
                "null",
                path,
                f"column {name!r} has {rows[name].null_count} nulls in {len(rows)} rows",
                "none",
                "fill or drop these rows where the table is written",
                column=name,
                value="null",
                num_rows=rows[name].null_count,
                **_first(rows, rows[name].is_null()),
            )


def cast_columns(
    path: str, rows: pa.Table, expected: pa.Schema
) -> tuple[pa.Table, tuple[Finding, ...]]:
    """Return the rows in the contract's types, and the columns with a value that does not fit.

    A column that does not fit stays as it is.
    """
    problems = []
    for index, name in enumerate(rows.schema.names):
        if name not in expected.names or name == "embedding":
            continue
        if rows[name].type == expected.field(name).type:
            continue
        field = expected.field(name)
        try:
            cast = rows[name].cast(field.type, safe=not pa.types.is_floating(field.type))
            rows = rows.set_column(index, field, cast)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            problems.append(
                Finding(
                    "does_not_fit",
                    path,
                    f"column {name!r} ({rows[name].type}) has a value that does not fit "
                    f"{field.type} ({error})",
                    f"values of {field.type}",
                    "correct it where the table is written",
                    column=name,
                    value=str(error)[:80],
                )
            )
    return rows, tuple(problems)


def check_times(path: str, rows: pa.Table, time_column: str) -> None:
    """Check that times are milliseconds and that nothing was known before it happened.

    Raises:
        DataContractError: a time is implausible or later than its own `known_at`.
    """
    for name in (time_column, "known_at"):
        check_plausible_ms(path, name, rows[name])
    require_none(order_problems(path, rows, time_column))


def order_problems(path: str, rows: pa.Table, time_column: str) -> Iterator[Finding]:
    """Yield the rows that were known before they happened."""
    is_future = pc.greater(rows[time_column], rows["known_at"])
    num_future = pc.sum(is_future).as_py() or 0
    if num_future:
        row = pc.index(is_future, True).as_py()
        first = rows.slice(row, 1).to_pylist()[0]
        yield Finding(
            "known_before_it_happened",
            path,
            f"{num_future} of {len(rows)} rows have {time_column} after known_at, first row {row} "
            f"with {time_column}={first[time_column]}, known_at={first['known_at']}",
            f"{time_column} <= known_at (nothing is known before it happens)",
            "correct the clock or the column that filled them",
            column="known_at",
            value=str(first["known_at"]),
            num_rows=num_future,
            **_first(rows, is_future),
        )


def check_plausible_ms(path: str, name: str, times: pa.ChunkedArray) -> None:
    """Check that times lie between the years 2000 and 2100 when read as milliseconds.

    Raises:
        DataContractError: some do not; the message guesses the unit that was written.
    """
    require_none(time_problems(path, name, pa.table({name: times})))


def time_problems(path: str, name: str, rows: pa.Table) -> Iterator[Finding]:
    """Yield the times of a column that are none when read as milliseconds."""
    if len(rows) == rows[name].null_count:
        return
    times = rows[name]
    low, high = pc.min_max(times).as_py().values()
    for value in (low, high):
        if EARLIEST_PLAUSIBLE_MS <= value < LATEST_PLAUSIBLE_MS:
            continue
        is_bad = pc.or_(
            pc.less(times, EARLIEST_PLAUSIBLE_MS), pc.greater_equal(times, LATEST_PLAUSIBLE_MS)
        )
        yield Finding(
            "implausible_time",
            path,
            f"{name}={value} in row {pc.index(times, value).as_py()} is not a plausible time in "
            f"milliseconds since the epoch{_guess_unit(value)}",
            f"{EARLIEST_PLAUSIBLE_MS} (year 2000) to {LATEST_PLAUSIBLE_MS} (year 2100)",
            "convert it where the table is written",
            column=name,
            value=str(value),
            num_rows=pc.sum(is_bad).as_py(),
            **_first(rows, is_bad),
        )
        return


def check_day(path: str, rows: pa.Table, time_column: str, day: date) -> None:
    """Check that rows lie in the day of their partition: pruning by day relies on it.

    Raises:
        DataContractError: a row is filed under another day.
    """
    require_none(day_problems(path, rows, time_column, day))


def day_problems(path: str, rows: pa.Table, time_column: str, day: date) -> Iterator[Finding]:
    """Yield the rows that are filed under another day than the one on which they happened."""
    times = rows[time_column]
    if len(rows) == times.null_count:
        return
    start_ms = to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))
    low, high = pc.min_max(times).as_py().values()
    if low < start_ms or high >= start_ms + DAY_MS:
        is_bad = pc.or_(pc.less(times, start_ms), pc.greater_equal(times, start_ms + DAY_MS))
        yield Finding(
            "wrong_day",
            path,
            f"rows with {time_column} from {low} to {high} in the partition day={day}",
            f"[{start_ms}, {start_ms + DAY_MS}), the UTC day",
            f"partition the table by the UTC day of {time_column}",
            column=time_column,
            value=str(low if low < start_ms else high),
            num_rows=pc.sum(is_bad).as_py(),
            **_first(rows, is_bad),
        )


def check_vocabulary(path: str, rows: pa.Table, action_types: Sequence[str]) -> None:
    """Check that every action type is in the configured vocabulary.

    Raises:
        DataContractError: an unknown one was found, which is never mapped to padding.
    """
    require_none(vocabulary_problems(path, rows, action_types))


def vocabulary_problems(
    path: str, rows: pa.Table, action_types: Sequence[str]
) -> Iterator[Finding]:
    """Yield the actions of types that the recipe does not list."""
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
            num_rows=pc.sum(is_bad).as_py(),
            **_first(rows, is_bad),
        )


def check_propensities(path: str, rows: pa.Table) -> None:
    """Check that logged chances are chances: above 0, at most 1; null where none was logged.

    Raises:
        DataContractError: one is not, by which an estimator would divide.
    """
    require_none(propensity_problems(path, rows))


def propensity_problems(path: str, rows: pa.Table) -> Iterator[Finding]:
    """Yield the logged chances that are none."""
    chance = rows["propensity"]
    is_good = pc.and_(pc.greater(chance, 0.0), pc.less_equal(chance, 1.0))
    is_bad = pc.invert(pc.fill_null(is_good, True))
    bad = rows.filter(is_bad)
    if len(bad):
        first = bad.slice(0, 1).to_pylist()[0]
        yield Finding(
            "propensity",
            path,
            f"{len(bad)} of {len(rows)} rows have a propensity outside (0, 1], first "
            f"{first['propensity']} of request_id={first.get('request_id')!r}, "
            f"pin_id={first.get('pin_id')}",
            "the chance that the pin was shown, or null where it is not known",
            "correct it where the table is written",
            column="propensity",
            value=str(first["propensity"]),
            num_rows=len(bad),
            **_first(rows, is_bad),
        )


def _first(rows: pa.Table, is_bad: pa.ChunkedArray) -> dict[str, Any]:
    """Return number and key of the first marked row, as fields of a `Finding`."""
    row = pc.index(is_bad, True).as_py()
    if row < 0:
        return {}
    one = rows.slice(row, 1)
    names = [name for name in KEY_COLUMNS if name in rows.schema.names]
    return {"row": row, "key": ", ".join(f"{name}={one[name][0].as_py()}" for name in names)}


def _guess_unit(value: int) -> str:
    """Return which unit would make a number a plausible time, as a phrase for the message."""
    for unit, factor in (("seconds", 1000), ("microseconds", 0.001), ("nanoseconds", 1e-6)):
        if EARLIEST_PLAUSIBLE_MS <= value * factor < LATEST_PLAUSIBLE_MS:
            return f" (it looks like {unit})"
    return ""


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


def _kind_problems(
    path: str, name: str, found: pa.DataType, expected: pa.DataType
) -> Iterator[Finding]:
    is_empty_nullable = pa.types.is_null(found)  # how writers store a column of nulls alone
    if _kind(found) != _kind(expected) and not is_empty_nullable:
        hint = " milliseconds since the epoch" if pa.types.is_timestamp(found) else ""
        wanted = f"{expected}{hint}"
        if pa.types.is_fixed_size_list(expected):
            wanted = f"fixed_size_list of {expected.value_type} or halffloat, all of one width"
        yield Finding(
            "wrong_kind",
            path,
            f"column {name!r} is {found}",
            wanted,
            "cast it where the table is written",
            column=name,
            value=str(found),
        )
