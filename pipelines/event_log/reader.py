"""Read the event log: Parquet files at any pyarrow filesystem URI, only rows known before as_of.

Where its files lie is in `log_files`, and how they are opened in `parquet_files`. The day of a
partition is the day on which its rows *happened*; their `known_at` may be days later. So the time
of the event alone decides which partitions are read, and `known_at` decides which of their rows are
kept. Not for the meaning of rows (`pipelines.snapshot`) nor for making an event log
(`pipelines.sources`).
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_TIME, contract_of
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EVENT_TIME_COLUMNS, EventLog, LogFile, day_of
from pipelines.event_log.parquet_files import (
    CODED_TEXT,
    Before,
    Wanted,
    count_rows,
    open_file,
    open_together,
)
from pipelines.event_log.rules import (
    Finding,
    cast_to_schema,
    column_problems,
    day_problems,
    pin_times_in_some,
    require_none,
    value_problems,
)

log = logging.getLogger(__name__)

FUTURE_DAYS_CHECKED = 7
"""Partitions this many days past as_of are searched for rows that claim to be known already."""


@dataclass(frozen=True)
class EventFilter:
    """Which rows of impressions or actions are wanted, and which of their columns."""

    as_of_ms: int  # wanted rows have known_at < as_of_ms
    start_ms: int  # and start_ms <= the event's time < end_ms
    end_ms: int
    extra_columns: tuple[str, ...] = ()  # features that the recipe declares beyond the schema
    number_columns: tuple[str, ...] = ()  # those of them that are numbers
    columns: tuple[str, ...] = ()  # of the schema; all where none is named
    action_types: tuple[str, ...] = ()  # the vocabulary that every action must be in
    are_texts_coded: bool = False  # see `read_rows`


def read_events(event_log: EventLog, files: Sequence[LogFile], wanted: EventFilter) -> pa.Table:
    """Read the wanted rows of impressions or actions from some files of a table, and check them.

    Many small files are read and checked as one, which takes a fraction of the time. A message
    then names the first of them: whoever is told that something is wrong reads them one by one.

    Returns:
        The schema's columns, or those of them that are wanted, then the extra ones.

    Raises:
        DataContractError: a file breaks the contract, or several have columns of different types;
            the message names the file where it is the only one.
    """
    path, table = files[0].path, files[0].table
    time_column, is_known = EVENT_TIME_COLUMNS[table], Before("known_at", wanted.as_of_ms)
    scan = _Scan(
        wanted.extra_columns,
        is_known,
        wanted.number_columns,
        wanted.columns,
        wanted.are_texts_coded,
    )
    rows, num_rows = scan.read(event_log, files)
    # Every column is looked at several times from here on, and would be put together each time.
    rows = rows.combine_chunks()
    require_none(value_problems(path, table, rows, wanted.action_types))
    _check_days(rows[time_column], files, num_rows)
    when = np.asarray(rows[time_column])
    is_wanted = (when >= wanted.start_ms) & (when < wanted.end_ms)
    return rows if is_wanted.all() else rows.filter(pa.array(is_wanted))


def _check_days(times: pa.ChunkedArray, files: Sequence[LogFile], num_rows: Sequence[int]) -> None:
    """Check that each file's rows lie in the day of its partition."""
    low_high, start = np.asarray(times), 0
    for file, count in zip(files, num_rows, strict=True):
        assert file.day is not None  # `_day_of_path` lists no event without its day
        of_file = low_high[start : start + count]
        if count and not day_of(int(of_file.min())) == file.day == day_of(int(of_file.max())):
            name = EVENT_TIME_COLUMNS[file.table]
            require_none(day_problems(file.path, pa.chunked_array([of_file]), name, file.day))
        start += count


def read_rows(
    event_log: EventLog,
    file: LogFile,
    extra_columns: Sequence[str],
    wanted: Wanted,
    number_columns: Sequence[str] = (),
    columns: Sequence[str] = (),
    are_texts_coded: bool = False,
) -> pa.Table:
    """Read the wanted rows of one file in the contract's types.

    Args:
        event_log: The log.
        file: One of its files.
        extra_columns: What is read beyond the schema, as text.
        wanted: Which rows.
        number_columns: What is read beyond the schema, as numbers.
        columns: Of the schema, those that are read; all of them where none is named.
        are_texts_coded: Texts may come as dictionaries, but for request ids.

    Returns:
        The columns of the table's schema, PIN_TIME where pins have it, then the extra ones and the
        numbers, each once. Embeddings are as they are in the file; `embedding_matrix` reads
        them.

    Raises:
        DataContractError: a column is missing or of another kind, a value does not fit, or a null
            stands where none may; the message names the file.
    """
    scan = _Scan(extra_columns, wanted, number_columns, columns, are_texts_coded)
    return scan.read(event_log, [file]).rows


class _ScannedRows(NamedTuple):
    """Rows of some files in the contract's types."""

    rows: pa.Table
    num_rows: tuple[int, ...]  # of each file


@dataclass(frozen=True)
class _Scan:
    """What is read of some files, as the arguments of `read_rows` say."""

    extra_columns: Sequence[str]
    wanted: Wanted
    number_columns: Sequence[str]
    columns: Sequence[str]
    are_texts_coded: bool

    def read(self, event_log: EventLog, files: Sequence[LogFile]) -> _ScannedRows:
        """Return the wanted rows of some files.

        Raises:
            DataContractError: see `read_rows`; the first file is named.
        """
        path = files[0].path
        coded = self._coded(files[0].table)
        with open_together(event_log, files, coded) as opened:
            found, schema = opened.schema, contract_of(files[0].table, opened.schema.names)
            extra, numbers = self.extra_columns, self.number_columns
            require_none(column_problems(path, found, schema, extra, numbers))
            names = list(dict.fromkeys((*(self.columns or schema.names), *extra, *numbers)))
            in_file_order = [name for name in found.names if name in names]
            parts = opened.read(in_file_order, self.wanted)
        found = pa.schema([found.field(name) for name in in_file_order])
        rows = pa.Table.from_batches([batch for part in parts for batch in part], found)
        expected = _with_codes(schema, found, coded)
        rows = cast_to_schema(path, rows.select(names), expected)
        return _ScannedRows(rows, tuple(sum(map(len, part)) for part in parts))

    def _coded(self, table: str) -> list[str]:
        """Return the columns in which a few texts are repeated: all but that of request ids."""
        if not self.are_texts_coded:
            return []
        texts = [field.name for field in contract_of(table, ()) if field.type == pa.string()]
        read = [name for name in texts if name in (self.columns or texts)]
        return [*(name for name in read if name != "request_id"), *self.extra_columns]


def _with_codes(expected: pa.Schema, found: pa.Schema, coded: Sequence[str]) -> pa.Schema:
    """Return a contract that takes some texts as dictionaries, where they came so."""
    for place, field in enumerate(expected):
        if field.name in coded and found.field(field.name).type == CODED_TEXT:
            expected = expected.set(place, field.with_type(CODED_TEXT))
    return expected


def pin_time_problems(event_log: EventLog) -> Iterator[Finding]:
    """Yield what is said of pins of which some files have PIN_TIME, and others not.

    A file that cannot be read says nothing here; whoever reads its rows tells of it.
    """
    has_times: dict[str, bool] = {}
    for file in event_log.files_of("pins"):
        with contextlib.suppress(DataContractError):
            has_times[file.path] = PIN_TIME.name in open_file(event_log, file).schema.names
    with_times = [path for path, has_time in has_times.items() if has_time]
    yield from pin_times_in_some(with_times, [p for p in has_times if p not in with_times])


def check_nothing_from_the_future(event_log: EventLog, table: str, as_of_ms: int) -> None:
    """Refuse rows that happen at or after as_of and claim to be known before it.

    Only the files of the next days are searched, and only by these two columns. A snapshot as of
    now needs nothing else from those files, so an unreadable one is passed over.

    Raises:
        DataContractError: there is such a row; the message names its file.
    """
    end_ms = as_of_ms + FUTURE_DAYS_CHECKED * DAY_MS
    time_column = EVENT_TIME_COLUMNS[table]
    for file in event_log.files_between(table, as_of_ms, end_ms):
        is_early = (ds.field("known_at") < as_of_ms) & (ds.field(time_column) >= as_of_ms)
        try:
            dataset = open_file(event_log, file)
            types = {field.name: field.type for field in dataset.schema}
            if types.get("known_at") != pa.int64() or types.get(time_column) != pa.int64():
                continue
            num_early = count_rows(dataset, file, is_early)
        except DataContractError as error:
            log.warning("not searched for future events: %s", error)
            continue
        if num_early:
            raise DataContractError(
                f"{table}: {num_early} rows of {file.path} happen at or after as_of "
                f"{day_of(as_of_ms)} though their known_at is before it; expected known_at >= "
                f"{time_column}; correct the clock or the column that filled {time_column}"
            )
