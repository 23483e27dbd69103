"""Checks of one event log file: columns, types, nulls, times, vocabulary, embeddings.

Every check raises a `DataContractError` that names the file and says what was found, what was
expected and what to change. Not for judging whether the data looks healthy: the data gate does.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.time import DAY_MS, to_ms

EARLIEST_PLAUSIBLE_MS = 946_684_800_000  # 2000-01-01
LATEST_PLAUSIBLE_MS = 4_102_444_800_000  # 2100-01-01


class FoundWidth(NamedTuple):
    """The width of the embeddings in a file, and the first row that has it."""

    path: str
    row_key: str  # such as pin_id=20
    embedding_dim: int


def check_columns(
    path: str,
    found: pa.Schema,
    expected: pa.Schema,
    extra_columns: Sequence[str] = (),
    number_columns: Sequence[str] = (),
) -> None:
    """Check that a file has the contract's columns, each in a type of the contract's kind.

    A type may be wider or narrower, such as int32 for int64 or float64 for float32. It may not be
    of another kind, such as float for int, a timestamp for int64 milliseconds or text for an id.

    Raises:
        DataContractError: a column is missing or of another kind.
    """
    declared = (*extra_columns, *number_columns)
    missing = [name for name in (*expected.names, *declared) if name not in found.names]
    if missing:
        hint = " (declared as features by the recipe)" if set(missing) & set(declared) else ""
        raise DataContractError(
            f"{path}: missing column {missing[0]!r}{hint}; found {sorted(found.names)}; expected "
            f"also {missing}; add the column where the table is written"
        )
    for field in expected:
        _check_kind(path, field.name, found.field(field.name).type, field.type)
    for name in extra_columns:
        if _kind(found.field(name).type) not in ("text", "integer"):
            raise DataContractError(
                f"{path}: column {name!r} is {found.field(name).type}; expected string (a "
                f"categorical feature); cast it where the table is written"
            )
    for name in number_columns:
        type_ = found.field(name).type
        if _kind(type_) not in ("integer", "float") and not pa.types.is_null(type_):
            raise DataContractError(
                f"{path}: column {name!r} is {type_}; expected an integer or a float (a numeric "
                f"feature); cast it where the table is written, or take it out of features.numeric"
            )


def cast_to_schema(path: str, rows: pa.Table, expected: pa.Schema) -> pa.Table:
    """Return the rows in the contract's types, extra columns and embeddings as they are.

    Embeddings have a width of their own; `embedding_matrix` checks and reads them.

    Raises:
        DataContractError: a value does not fit, or a null stands where none may.
    """
    for index, name in enumerate(rows.schema.names):
        if name not in expected.names or name == "embedding":
            continue
        field = expected.field(name)
        if not field.nullable and rows[name].null_count:
            raise DataContractError(
                f"{path}: column {name!r} has {rows[name].null_count} nulls in {len(rows)} rows; "
                f"expected none; fill or drop these rows where the table is written"
            )
        if rows[name].type != field.type:
            rows = rows.set_column(index, field, _cast(path, name, rows[name], field.type))
    return rows


def check_times(path: str, rows: pa.Table, time_column: str) -> None:
    """Check that times are milliseconds and that nothing was known before it happened.

    Raises:
        DataContractError: a time is implausible or later than its own `known_at`.
    """
    for name in (time_column, "known_at"):
        check_plausible_ms(path, name, rows[name])
    is_future = pc.greater(rows[time_column], rows["known_at"])
    num_future = pc.sum(is_future).as_py() or 0
    if num_future:
        row = pc.index(is_future, True).as_py()
        first = rows.slice(row, 1).to_pylist()[0]
        raise DataContractError(
            f"{path}: {num_future} of {len(rows)} rows have {time_column} after known_at, first "
            f"row {row} with {time_column}={first[time_column]}, known_at={first['known_at']}; "
            f"expected {time_column} <= known_at (nothing is known before it happens); correct the "
            f"clock or the column that filled them"
        )


def check_plausible_ms(path: str, name: str, times: pa.ChunkedArray) -> None:
    """Check that times lie between the years 2000 and 2100 when read as milliseconds.

    Raises:
        DataContractError: some do not; the message guesses the unit that was written.
    """
    if len(times) == 0:
        return
    low, high = pc.min_max(times).as_py().values()
    for value in (low, high):
        if EARLIEST_PLAUSIBLE_MS <= value < LATEST_PLAUSIBLE_MS:
            continue
        row = pc.index(times, value).as_py()
        raise DataContractError(
            f"{path}: {name}={value} in row {row} is not a plausible time in milliseconds "
            f"since the epoch{_guess_unit(value)}; expected {EARLIEST_PLAUSIBLE_MS} (year 2000) to "
            f"{LATEST_PLAUSIBLE_MS} (year 2100); convert it where the table is written"
        )


def check_day(path: str, rows: pa.Table, time_column: str, day: date) -> None:
    """Check that rows lie in the day of their partition: pruning by day relies on it.

    Raises:
        DataContractError: a row is filed under another day.
    """
    if len(rows) == 0:
        return
    start_ms = to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))
    low, high = pc.min_max(rows[time_column]).as_py().values()
    if low < start_ms or high >= start_ms + DAY_MS:
        raise DataContractError(
            f"{path}: rows with {time_column} from {low} to {high} in the partition day={day}; "
            f"expected [{start_ms}, {start_ms + DAY_MS}), the UTC day; partition the table by the "
            f"UTC day of {time_column}"
        )


def check_vocabulary(path: str, rows: pa.Table, action_types: Sequence[str]) -> None:
    """Check that every action type is in the configured vocabulary.

    Raises:
        DataContractError: an unknown one was found, which is never mapped to padding.
    """
    found = set(pc.unique(rows["action_type"]).to_pylist())
    unknown = sorted(found - set(action_types))
    if unknown:
        raise DataContractError(
            f"{path}: unknown action type {unknown[0]!r} (all unknown: {unknown}); expected one "
            f"of {list(action_types)}; add it to features.action_types of the recipe or drop "
            f"these rows where the table is written"
        )


def check_propensities(path: str, rows: pa.Table) -> None:
    """Check that logged chances are chances: above 0, at most 1; null where none was logged.

    Raises:
        DataContractError: one is not, by which an estimator would divide.
    """
    chance = rows["propensity"]
    is_good = pc.and_(pc.greater(chance, 0.0), pc.less_equal(chance, 1.0))
    bad = rows.filter(pc.invert(pc.fill_null(is_good, True)))
    if len(bad):
        first = bad.slice(0, 1).to_pylist()[0]
        raise DataContractError(
            f"{path}: {len(bad)} of {len(rows)} rows have a propensity outside (0, 1], first "
            f"{first['propensity']} of request_id={first['request_id']!r}, "
            f"pin_id={first['pin_id']}; expected the chance that the pin was shown, or null where "
            f"it is not known; correct it where the table is written"
        )


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
    if pa.types.is_fixed_size_list(column.type):
        widths = np.full(len(column), column.type.list_size)
    else:
        widths = np.asarray(pc.fill_null(pc.list_value_length(column), -1))
    wanted = embedding_dim or _usual_width(column.type, widths)
    refuse = partial(_refuse_embeddings, path, key, rows)
    refuse(
        np.asarray(column.is_null()),
        lambda row: "is null",
        f"{wanted} numbers; leave out the row, or give it an embedding",
    )
    refuse(
        (widths != wanted) | (widths == 0),
        lambda row: f"has {widths[row]} numbers",
        f"{wanted or 'at least 1'}, the width of this embedding version; embed the row anew, or "
        f"give embeddings of another width a version of their own",
    )
    numbers = column.flatten().cast(pa.float32(), safe=False)
    matrix = np.asarray(numbers.to_numpy(zero_copy_only=False)).reshape(len(column), wanted)
    refuse(
        ~np.isfinite(matrix).all(axis=1),
        lambda row: "has a null, NaN or infinite number",
        f"{wanted} finite float32 numbers; write these embeddings again",
    )
    return matrix


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


def _usual_width(type_: pa.DataType, widths: np.ndarray) -> int:
    """Return the width that most rows have, the smallest of several; 0 where there is no row."""
    if pa.types.is_fixed_size_list(type_):
        return int(type_.list_size)
    found, counts = np.unique(widths[widths >= 0], return_counts=True)
    return int(found[counts.argmax()]) if len(found) else 0


def _refuse_embeddings(
    path: str,
    key: str,
    rows: pa.Table,
    is_bad: np.ndarray,
    describe: Callable[[int], str],
    expected: str,
) -> None:
    if is_bad.any():
        row = int(np.flatnonzero(is_bad)[0])
        raise DataContractError(
            f"{path}: embedding of {key}={rows[key][row].as_py()} {describe(row)} (row {row}, "
            f"{int(is_bad.sum())} such rows); expected {expected}"
        )


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


def _check_kind(path: str, name: str, found: pa.DataType, expected: pa.DataType) -> None:
    is_empty_nullable = pa.types.is_null(found)  # how writers store a column of nulls alone
    if _kind(found) != _kind(expected) and not is_empty_nullable:
        hint = " milliseconds since the epoch" if pa.types.is_timestamp(found) else ""
        wanted = f"{expected}{hint}"
        if pa.types.is_fixed_size_list(expected):
            wanted = f"fixed_size_list of {expected.value_type} or halffloat, all of one width"
        raise DataContractError(
            f"{path}: column {name!r} is {found}; expected {wanted}; cast it where the table is "
            f"written"
        )


def _cast(path: str, name: str, column: pa.ChunkedArray, expected: pa.DataType) -> pa.ChunkedArray:
    try:
        return column.cast(expected, safe=not pa.types.is_floating(expected))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataContractError(
            f"{path}: column {name!r} ({column.type}) has a value that does not fit {expected} "
            f"({error}); correct it where the table is written"
        ) from error
