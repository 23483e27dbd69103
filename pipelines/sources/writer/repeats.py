"""Rows of pins and users that came before: the same again are passed over, changed ones refused.

People hand over all their pins with each day, of which most are in the log. A row is the same where
its key is and every column has the same bits. Not for sorting rows nor for filing them:
`pipelines.sources.writer.assemble`.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.time import with_utc
from pipelines.event_log.event_index import EventIndex
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.parquet_files import iterate_batches, open_file, read_file
from pipelines.sources.writer.runs import KeyRange

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
KEYS = {"pins": ("pin_id",), "users": ("user_id", "as_of")}
"""The columns whose values come once: of pins in a version, of users in a log."""
_COMPARED_BY_ARROW = (pa.types.is_string, pa.types.is_integer, pa.types.is_boolean)
_BATCH_BYTES = 16 << 20
"""Of the rows of a log's file, about as many are in memory at a time."""


def without_repeats(table: str, rows: pa.Table, version: str) -> pa.Table:
    """Return rows without those that are the same as the row before them.

    Args:
        table: 'pins' or 'users'.
        rows: sorted by the key.
        version: the embedding version of the pins.

    Raises:
        DataContractError: a key comes again with another value in some column.
    """
    is_repeat = np.ones(max(0, len(rows) - 1), dtype=bool)
    for name in KEYS[table]:
        is_repeat &= np.diff(np.asarray(rows[name])) == 0
    if not is_repeat.any():
        return rows
    places = np.flatnonzero(is_repeat)
    again, before = rows.take(pa.array(places + 1)), rows.take(pa.array(places))
    _refuse_changed(table, again, before, "these batches", version)
    return rows.filter(pa.array(np.concatenate([[True], ~is_repeat])))


def without_known(
    table: str, rows: pa.Table, log: EventLog, keys: KeyRange, version: str
) -> pa.Table:
    """Return rows without those that a log has already.

    Of the log, the keys of a file are in memory at a time, and few of its rows. Where no key is
    known, nothing but keys is read.

    Args:
        table: 'pins' or 'users'.
        rows: each key once; all lie in the range.
        log: where they may be.
        keys: the first and the last value of the key's first column.
        version: the embedding version of the pins.

    Raises:
        DataContractError: the log has a row of that key with another value in some column.
    """
    for file in log.files_of(table):
        if len(rows) == 0:
            break
        there = read_file(open_file(log, file), file, KEYS[table], _wanted(table, keys, version))
        ids, times = _ids_and_times(table, rows)
        is_known = EventIndex(*_ids_and_times(table, there)).count(ids, times, times + 1) > 0
        if is_known.any():
            _refuse_changed_since(table, rows, log, file, _wanted(table, keys, version), version)
            rows = rows.filter(pa.array(~is_known))
    return rows


def _refuse_changed_since(
    table: str, rows: pa.Table, log: EventLog, file: LogFile, wanted: pc.Expression, version: str
) -> None:
    """Refuse rows that a file of the log has with another value in some column."""
    dataset = open_file(log, file)
    names = [name for name in rows.column_names if name in dataset.schema.names]
    index = EventIndex(*_ids_and_times(table, rows))
    num_rows = max(1, _BATCH_BYTES * len(rows) // max(1, rows.nbytes))
    for batch in iterate_batches(dataset, file, names, num_rows, wanted):
        there = pa.Table.from_batches([batch])
        ids, times = _ids_and_times(table, there)
        is_wanted = index.count(ids, times, times + 1) > 0
        places = index.order[index.position(ids[is_wanted], times[is_wanted])]
        again, before = rows.take(pa.array(places)), there.filter(pa.array(is_wanted))
        _refuse_changed(table, again, before, file.path, version)


def _refuse_changed(
    table: str, again: pa.Table, before: pa.Table, where: str, version: str
) -> None:
    """Refuse rows of which the row before, of the same key, has another value in some column."""
    differs = {name: _differs(again, before, name) for name in again.column_names}
    is_changed = np.logical_or.reduce([*differs.values()])
    if not is_changed.any():
        return
    row = int(np.flatnonzero(is_changed)[0])
    column = next(name for name, is_other in differs.items() if is_other[row])
    key = ", ".join(f"{name}={_named(name, again[name][row].as_py())}" for name in KEYS[table])
    if table == "pins":
        of, rule = f" of version {version!r}", "one row per (pin, embedding version)"
        remedy = "write changed pins as a new version"
    else:
        of, rule = "", "one per (user, as_of)"
        remedy = "give them a later as_of"
    raise DataContractError(
        f"{table}: {key}{of} has another row in {where}, with another value in column {column!r} "
        f"({int(is_changed.sum())} such rows); expected {rule}, or the same row again, which is "
        f"passed over; leave out the changed rows, or {remedy}"
    )


def _named(column: str, value: int) -> str:
    return with_utc(value) if column == "as_of" else str(value)


def _ids_and_times(table: str, rows: pa.Table) -> tuple[Ints, Ints]:
    """Return the two halves of each row's key; a pin's has no time."""
    ids = np.asarray(rows[KEYS[table][0]])
    return ids, np.asarray(rows["as_of"]) if table == "users" else np.zeros(len(ids), np.int64)


def _wanted(table: str, keys: KeyRange, version: str) -> pc.Expression:
    """Return a filter for the log's rows whose keys are in a range."""
    key = pc.field(KEYS[table][0])
    is_within = (key >= keys.first) & (key <= keys.last)
    return is_within & (pc.field("embedding_version") == version) if table == "pins" else is_within


def _differs(again: pa.Table, before: pa.Table, name: str) -> Bools:
    """Return which rows of two tables, row by row, have other values in a column.

    A column that only the later rows have differs where they have a value.
    """
    here = again[name]
    if name not in before.column_names:
        return np.asarray(here.is_valid())
    there = before[name]
    if there.type != here.type:
        there = there.cast(here.type)
    is_null, was_null = np.asarray(here.is_null()), np.asarray(there.is_null())
    if pa.types.is_fixed_size_list(here.type) and not is_null.any() and not was_null.any():
        values, earlier = (_bits(c.combine_chunks().flatten()) for c in (here, there))
        if values is not None and earlier is not None:
            shape = (len(here), here.type.list_size)
            return np.asarray((values.reshape(shape) != earlier.reshape(shape)).any(axis=1))
    return (is_null != was_null) | (~is_null & ~was_null & _values_differ(here, there))


def _values_differ(here: pa.ChunkedArray, there: pa.ChunkedArray) -> Bools:
    """Return which values differ; where one is null, the answer says nothing."""
    if any(is_kind(here.type) for is_kind in _COMPARED_BY_ARROW):
        return np.asarray(pc.fill_null(pc.not_equal(here, there), False))
    if pa.types.is_floating(here.type):
        values, earlier = (_bits(pc.fill_null(c, 0).combine_chunks()) for c in (here, there))
        return np.asarray(values != earlier, dtype=bool)
    # Of lists and the like, the texts of NaN are equal, and those of 0.0 and -0.0 are not.
    return np.array(
        [repr(a.as_py()) != repr(b.as_py()) for a, b in zip(here, there, strict=True)], dtype=bool
    )


def _bits(values: pa.Array) -> npt.NDArray[np.generic] | None:
    """Return numbers without nulls as integers of their bits; None for anything else."""
    is_number = pa.types.is_floating(values.type) or pa.types.is_integer(values.type)
    if not is_number or values.null_count:
        return None
    numbers = np.asarray(values)
    return numbers.view(f"u{numbers.dtype.itemsize}")
