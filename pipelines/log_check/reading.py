"""Reads one file of an event log batch by batch, and collects what breaks the contract.

Only one batch is in memory at a time. Not for what the rows come to (`events`, `exposures`).
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.features.categorical import CategoricalFeature
from pipelines.contracts.schemas import contract_of
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.parquet_files import iterate_batches, open_file
from pipelines.event_log.rules import (
    KEY_COLUMNS,
    Finding,
    column_problems,
    fitted,
    null_problems,
    value_problems,
)
from pipelines.log_check.categories import Counts, add_counts, count_unlisted

BATCH_ROWS = 1 << 18
Uint64s = np.ndarray


class Collector:
    """Findings of many batches and files: one for each rule, file and column.

    Values that a recipe does not list are counted beside them.
    """

    def __init__(self) -> None:
        self.found: dict[tuple[str, str, str], Finding] = {}
        self.unlisted: Counts = {}

    def count(self, rows: pa.Table, features: Iterable[CategoricalFeature]) -> None:
        """Count a batch's values of those features whose columns can be used."""
        for feature in features:
            if feature.name in rows.schema.names:
                own = count_unlisted(rows, feature)
                add_counts(self.unlisted, {f"{feature.table}.{feature.name}": own})

    def add(self, findings: Iterable[Finding], table: str, offset: int = 0) -> None:
        """Add findings of a batch whose first row is `offset` rows from the start of its file."""
        for finding in findings:
            key = (finding.rule, finding.where or finding.value, finding.column)
            known = self.found.get(key)
            if known is None:
                row = None if finding.row is None else finding.row + offset
                self.found[key] = dataclasses.replace(finding, table=table, row=row)
            else:
                num_rows = known.num_rows + finding.num_rows
                self.found[key] = dataclasses.replace(known, num_rows=num_rows)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the recipe of the check asks of the rows, where there is one."""

    action_types: tuple[str, ...] = ()
    extra_columns: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (table, columns of text)
    number_columns: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (table, columns of numbers)
    categorical: tuple[CategoricalFeature, ...] = ()


def read_checked(
    event_log: EventLog, file: LogFile, wanted: Wanted, collector: Collector
) -> Iterator[tuple[int, pa.Table]]:
    """Yield each batch of a file with the number of its first row, as far as it can be used.

    The columns are those of the contract that the file has in a type of the right kind. Rows stay
    even where they break a rule, so that row numbers are those of the file.
    """
    extra = dict(wanted.extra_columns).get(file.table, ())
    numbers = dict(wanted.number_columns).get(file.table, ())
    try:
        dataset = open_file(event_log, file)
        schema = contract_of(file.table, dataset.schema.names)
        problems = list(column_problems(file.path, dataset.schema, schema, extra, numbers))
        collector.add(problems, file.table)
        bad = {problem.column for problem in problems}
        features = [each for each in wanted.categorical if each.table == file.table]
        wished = dict.fromkeys((*schema.names, *numbers, *(each.name for each in features)))
        columns = [name for name in wished if name not in bad]
        offset = 0
        for batch in iterate_batches(dataset, file, columns, BATCH_ROWS):
            rows = pa.Table.from_batches([batch])
            found, rows = _row_problems(file, rows, schema, wanted)
            collector.add(found, file.table, offset)
            collector.count(rows, features)
            yield offset, rows
            offset += len(rows)
    except DataContractError as error:
        collector.add([_unreadable(file, error)], file.table)


def _unreadable(file: LogFile, error: DataContractError) -> Finding:
    # The reader's message is whole: it says what was expected and what to change.
    problem, _, remedy = str(error).rpartition("; ")
    return Finding("unreadable", "", problem, "a Parquet file", remedy, value=file.path)


def _row_problems(
    file: LogFile, rows: pa.Table, schema: pa.Schema, wanted: Wanted
) -> tuple[list[Finding], pa.Table]:
    """Return what a batch's rows break, and the rows in the contract's types."""
    fit, problems, unfit = fitted(file.path, rows, schema)
    found = list(problems)
    if "embedding" in rows.schema.names:
        names = [name for name in rows.schema.names if name in (*KEY_COLUMNS, "embedding")]
        nulls = null_problems(file.path, rows.select(names), schema)
        found += [each for each in nulls if each.column == "embedding"]
    fit = fit.select([name for name in fit.schema.names if name not in unfit])
    numbers = dict(wanted.number_columns).get(file.table, ())
    found += value_problems(file.path, file.table, fit, wanted.action_types, numbers, file.day)
    return found, fit


def usable(rows: pa.Table, columns: Sequence[str]) -> np.ndarray | None:
    """Return which rows have all these columns; None where a column is missing."""
    if not set(columns) <= set(rows.schema.names):
        return None
    is_usable = np.ones(len(rows), dtype=bool)
    for name in columns:
        if rows[name].null_count:
            is_usable &= np.asarray(rows[name].is_valid())
    return is_usable


def numbers(rows: pa.Table, name: str) -> np.ndarray:
    """Return a column of whole numbers as int64, 0 for null."""
    column = rows[name]
    filled = pc.fill_null(column, 0) if column.null_count else column
    return np.asarray(filled.combine_chunks()).astype(np.int64, copy=False)


def hash_texts(column: pa.ChunkedArray) -> Uint64s:
    """Return 64 bits for each text, equal for equal texts in every process; 0 for null."""
    from pandas.util import hash_array

    encoded = column.combine_chunks()
    if not isinstance(encoded, pa.DictionaryArray):
        encoded = encoded.dictionary_encode()
    texts = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
    codes = np.asarray(pc.fill_null(encoded.indices, len(texts)))
    hashed = np.append(hash_array(texts, categorize=False).astype(np.uint64), np.uint64(0))
    return hashed[codes]


def distinct(values: np.ndarray) -> np.ndarray:
    """Return the distinct values, sorted. For many values, numpy's own way is much slower."""
    in_order = np.sort(values)
    is_new = np.ones(len(in_order), dtype=bool)
    is_new[1:] = in_order[1:] != in_order[:-1]
    return in_order[is_new]


def request_id_in(event_log: EventLog, file: LogFile, row: int) -> str:
    """Return the request that a row of a file names; '?' where that cannot be read any more.

    Only for a message: the file is read up to the row.
    """
    with contextlib.suppress(DataContractError):
        for batch in iterate_batches(open_file(event_log, file), file, ["request_id"], BATCH_ROWS):
            if row < len(batch):
                return str(batch["request_id"][row].as_py())
            row -= len(batch)
    return "?"


def request_of_hash(event_log: EventLog, files: Iterable[LogFile], request: int) -> str:
    """Return the request whose text has a hash; '?' where no file that can be read names it.

    Only for a message: the files are read until it is found.
    """
    for file in files:
        with contextlib.suppress(DataContractError):
            dataset = open_file(event_log, file)
            for batch in iterate_batches(dataset, file, ["request_id"], BATCH_ROWS):
                texts = pa.chunked_array([batch["request_id"]])
                at = np.flatnonzero(hash_texts(texts) == np.uint64(request))
                if len(at):
                    return str(texts[int(at[0])].as_py())
    return "?"


def day_number(day: date) -> int:
    """Return a day as days since the epoch."""
    return (day - date(1970, 1, 1)).days
