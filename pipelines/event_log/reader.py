"""Reads the event log's Parquet files, from a disk or a bucket: rows known before as_of, checked.

Where its files lie is in `log_files`. The day of a partition is the day on which its rows
*happened*; their `known_at` may be days later. So the time of the event alone decides which
partitions are read, and `known_at` decides which of their rows are kept. A damaged file, which no
retry helps, is told from failing storage. What the files were is listed, so that later changes can
be named, and columns that a recipe declares become codes and numbers. Not for the meaning of rows
(`pipelines.snapshot`) nor for making an event log (`pipelines.sources`). Tested in
tests/pipelines/event_log/test_reader.py.
"""

import contextlib
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_TIME, categorical_column, contract_of
from pipelines.contracts.time import LATEST_MS
from pipelines.event_log.log_files import EVENT_TIME_COLUMNS, EventLog, LogFile, day_of
from pipelines.event_log.record import NAMES, EventLogRecord, read_record
from pipelines.event_log.rules import (
    Finding,
    column_problems,
    day_problems,
    finding,
    fitted,
    number_problems,
    numbers_of,
    require_none,
    value_problems,
)
from pipelines.places import store_errors
from pipelines.plain_text import shortened
from pipelines.storage import open_filesystem, translated_errors

KNOWN_COLUMNS = {
    "impressions": "known_at",
    "actions": "known_at",
    "users": "as_of",
    "pins": PIN_TIME.name,  # which a log need not have
}
"""The column that says from when on a row counts."""
IdColumn = Literal["user_id", "pin_id"]
CODED_TEXT = pa.dictionary(pa.int32(), pa.string())
_BATCH_ROWS = 1 << 17
"""Rows of a file that are looked at together."""
_NUM_FROM_STORE = 8
"""Files of a bucket, or footers, that are read at a time, because each waits for answers."""

_VERIFIED = {"page_checksum_verification": True}
_SCANNED = ds.ParquetFragmentScanOptions(**_VERIFIED)
"""Of pages that have a checksum, as those of our writers; a flipped bit is no data."""


@dataclass(frozen=True)
class Before:
    """The rows whose time is before an instant.

    Null and absurd times pass on purpose: the checks that follow must refuse them, and a filter
    that dropped them would hide them.
    """

    time_column: str
    end_ms: int

    def of(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows that pass. Mostly all do, and then nothing is copied."""
        times = rows[self.time_column]
        is_late = pc.and_(pc.greater_equal(times, self.end_ms), pc.less(times, LATEST_MS))
        if not pc.any(is_late).as_py():
            return rows
        return rows.filter(pc.fill_null(pc.invert(is_late), True))


@dataclass(frozen=True)
class Among:
    """The rows whose id is one of some. A null passes too, so that the checks can refuse it."""

    column: str
    ids: pa.Array

    def of(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows that pass; where all do, nothing is copied."""
        found = pc.is_in(rows[self.column], value_set=self.ids)
        is_wanted = pc.or_(found, pc.is_null(rows[self.column]))
        return rows if pc.all(is_wanted).as_py() else rows.filter(is_wanted)


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
    rows, num_rows = read_rows(
        event_log,
        files,
        Before("known_at", wanted.as_of_ms),
        wanted.extra_columns,
        wanted.number_columns,
        wanted.columns,
        wanted.are_texts_coded,
    )
    # Every column is looked at several times from here on, and would be put together each time.
    rows = rows.combine_chunks()
    require_none(value_problems(files[0].path, files[0].table, rows, wanted.action_types))
    name, start = EVENT_TIME_COLUMNS[files[0].table], 0
    when = np.asarray(rows[name])
    for file, count in zip(files, num_rows, strict=True):
        assert file.day is not None  # no event is listed without its day
        own = when[start : start + count]
        if count and not day_of(int(own.min())) == file.day == day_of(int(own.max())):
            require_none(day_problems(file.path, rows.slice(start, count), name, file.day))
        start += count
    is_wanted = (when >= wanted.start_ms) & (when < wanted.end_ms)
    return rows if is_wanted.all() else rows.filter(pa.array(is_wanted))


def read_rows(
    event_log: EventLog,
    files: Sequence[LogFile],
    wanted: Before | Among,
    extra_columns: Sequence[str] = (),
    number_columns: Sequence[str] = (),
    columns: Sequence[str] = (),
    are_texts_coded: bool = False,
) -> tuple[pa.Table, list[int]]:
    """Read the wanted rows of some files of a table in the contract's types.

    `extra_columns` are texts beyond the schema, `number_columns` numbers; of the schema, `columns`
    are read, all where none is named. With `are_texts_coded` texts come as CODED_TEXT, but for
    request ids: Parquet stores them so, and a few that are repeated take half the time.

    Returns:
        The columns of the table's schema, PIN_TIME where pins have it, then the extra ones and the
        numbers, each once; and how many rows are of each file. Embeddings are as they are in the
        file; `embedding_matrix` reads them.

    Raises:
        DataContractError: a column is missing or of another kind, a value does not fit, or a null
            stands where none may; the message names the file.
    """
    filesystem, _ = open_filesystem(event_log.uri)
    path, table = files[0].path, files[0].table
    texts = [field.name for field in contract_of(table, ()) if field.type == pa.string()]
    read = [name for name in texts if name in (columns or texts) and name != "request_id"]
    coded = [*read, *extra_columns] if are_texts_coded else []
    with damage_told_from_failure(filesystem, files[0]):
        with _open(filesystem, path, coded) as opened:
            found = opened.schema_arrow
        schema = contract_of(table, found.names)
        require_none(column_problems(path, found, schema, extra_columns, number_columns))
        names = list(dict.fromkeys((*(columns or schema.names), *extra_columns, *number_columns)))
        in_file_order = [name for name in found.names if name in names]

        def read_one(file: LogFile) -> list[pa.RecordBatch]:
            with _open(filesystem, file.path, coded) as opened:
                if not opened.schema_arrow.equals(found):
                    raise DataContractError(
                        f"{table}: {file.path} has other columns than {path}; expected the same of "
                        f"files that are read together; read them one by one"
                    )
                batches = opened.iter_batches(_BATCH_ROWS, columns=in_file_order, use_threads=False)
                return [wanted.of(batch) for batch in batches]

        if filesystem.type_name == "local":  # other threads read other files
            parts = list(map(read_one, files))
        else:
            with ThreadPoolExecutor(_NUM_FROM_STORE) as pool:
                parts = list(pool.map(read_one, files))
    batches = [batch for part in parts for batch in part]
    rows = pa.Table.from_batches(batches, pa.schema([found.field(name) for name in in_file_order]))
    for place, field in enumerate(schema):
        if field.name in coded and found.field(field.name).type == CODED_TEXT:
            schema = schema.set(place, field.with_type(CODED_TEXT))
    rows, problems = fitted(path, rows.select(names), schema)
    require_none(problems)
    return rows, [sum(map(len, part)) for part in parts]


def _open(filesystem: fs.FileSystem, path: str, coded: Sequence[str]) -> pq.ParquetFile:
    # Fetching bytes before they are needed, in other threads, pays where a store answers late.
    is_late = filesystem.type_name != "local"
    source = {"filesystem": filesystem if is_late else None, "pre_buffer": is_late, **_VERIFIED}
    try:
        return pq.ParquetFile(path, read_dictionary=list(coded), **source)
    except KeyError:  # One of them is missing, which whoever checks the columns tells.
        return pq.ParquetFile(path, **source)


def open_file(event_log: EventLog, file: LogFile) -> ds.FileSystemDataset:
    """Open one Parquet file.

    Raises:
        DataContractError: it is not a readable Parquet file.
        TransientStorageError: the storage failed.
    """
    filesystem, _ = open_filesystem(event_log.uri)
    with damage_told_from_failure(filesystem, file):
        kind = ds.ParquetFileFormat(default_fragment_scan_options=_SCANNED)
        fragment = kind.make_fragment(file.path, filesystem)  # which reads its footer once
        return ds.FileSystemDataset([fragment], fragment.physical_schema, kind, filesystem)


def read_file(
    dataset: ds.FileSystemDataset,
    file: LogFile,
    columns: Sequence[str],
    wanted: ds.Expression | None,
) -> pa.Table:
    """Read wanted rows of an opened file, in this thread alone, because a worker has one core.

    Raises:
        DataContractError: its pages are damaged.
        TransientStorageError: the storage failed.
    """
    with damage_told_from_failure(dataset.filesystem, file):
        return dataset.to_table(columns=list(columns), filter=wanted, use_threads=False)


def iterate_batches(
    dataset: ds.FileSystemDataset,
    file: LogFile,
    columns: Sequence[str],
    num_rows: int,
    wanted: ds.Expression | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield an opened file's rows in their order, in batches of `num_rows` rows at most.

    Few of them are in memory at a time. `wanted` chooses rows; None takes all.

    Raises:
        DataContractError: its pages are damaged.
        TransientStorageError: the storage failed.
    """
    buffered = {"pre_buffer": False, "use_buffered_stream": True}
    options = ds.ParquetFragmentScanOptions(**buffered, **_VERIFIED)
    ahead = {"batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
    with damage_told_from_failure(dataset.filesystem, file):
        yield from dataset.to_batches(
            columns=list(columns),
            filter=wanted,
            batch_size=num_rows,
            fragment_scan_options=options,
            **ahead,
        )


@contextlib.contextmanager
def damage_told_from_failure(filesystem: fs.FileSystem, file: LogFile) -> Iterator[None]:
    """Raise for a damaged file, which no retry helps, another error than for failing storage.

    Arrow reports both as the same OSError without a number. Where its words do not say that it was
    the store, the bytes are read: those of a damaged file can be read to their end, and those of
    failing storage cannot.
    """
    place = f"s3://{file.path}" if filesystem.type_name == "s3" else file.path
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        is_told = isinstance(error, OSError) and store_errors.is_from_store(error)
        if isinstance(error, pa.ArrowInvalid) or (error.errno is None and not is_told):
            with (
                translated_errors(place, "reading"),
                filesystem.open_input_stream(file.path) as stream,
            ):
                while stream.read(1 << 20):
                    pass
            reason = shortened(" ".join(str(error).split()), 300)
            raise DataContractError(
                f"{file.table}: {file.path} is not a readable Parquet file ({reason}); "
                f"expected a whole one; write the file again or remove it"
            ) from error
        with translated_errors(place, "reading"):
            raise


def pin_time_problems(event_log: EventLog) -> Iterator[Finding]:
    """Yield what is said of pins of which some files have PIN_TIME, and others not.

    A file that cannot be read says nothing here; whoever reads its rows tells of it.
    """
    with_times, without = list[str](), list[str]()
    for file in event_log.files_of("pins"):
        with contextlib.suppress(DataContractError):
            has_times = PIN_TIME.name in open_file(event_log, file).schema.names
            (with_times if has_times else without).append(file.path)
    if with_times and without:
        told = {"with_times": with_times[0], "without": without[0], "num_rows": len(without)}
        yield finding("pin_times_in_some", **told)


def name_files(uri: str, record: EventLogRecord) -> tuple[LogFile, ...]:
    """Return a log's files of names; a file's table is its folder, one of NAMES' values."""
    _, root = open_filesystem(uri)
    return tuple(
        LogFile(folder, f"{root}/{name}", None, 0)
        for folder in NAMES.values()
        for name in record.files
        if name.startswith(f"{folder}/")
    )


def names_of(event_log: EventLog, column: IdColumn, ids: Iterable[int]) -> dict[int, str]:
    """Return the names that some ids of a column were made from, as far as the log has names.

    Raises:
        DataContractError: the log's record or a file of names is damaged.
        TransientStorageError: the storage failed.
    """
    wanted = sorted({each for each in ids if -(2**63) <= each < 2**63})
    record = read_record(event_log.uri) if wanted else None
    if record is None:
        return {}
    found: dict[int, str] = {}
    is_wanted = ds.field("id").isin(pa.array(wanted, pa.int64()))
    for file in name_files(event_log.uri, record):
        if file.table == NAMES[column]:
            rows = read_file(open_file(event_log, file), file, ["id", "name"], is_wanted)
            found.update(zip(rows["id"].to_pylist(), rows["name"].to_pylist(), strict=True))
    return found


# What the files were when a snapshot was built, so that later changes can be named. A file's rows
# are read only where its footer cannot tell which of them were known, and then one column of them.


class ListedFile(Frozen):
    """One file of an event log, as it was."""

    path: str = Field(description="Relative to the event log.")
    num_bytes: int
    modified_at: AwareDatetime | None = Field(description="None where the storage does not say.")
    footer: str = Field(description="sha256 of the Parquet footer; '' where there is none.")
    num_rows: int | None = Field(description="None where the footer cannot be read.")
    num_known: int | None = Field(description="Of these, rows known before as_of.")


class Listing(Frozen):
    """The files that a snapshot was built from, before any of them was read."""

    event_log_uri: str
    files: tuple[ListedFile, ...]


def list_files(event_log: EventLog, files: Sequence[LogFile], as_of_ms: int) -> Listing:
    """Return what some files of an event log are; rows known before `as_of_ms` are counted.

    Raises:
        TransientStorageError: the storage failed. A damaged file is no error here; whoever reads
            its rows tells of it.
    """
    _, root = open_filesystem(event_log.uri)

    def listed(file: LogFile) -> ListedFile:
        footer, num_rows, num_known = io.BytesIO(), None, None
        with contextlib.suppress(DataContractError):
            dataset = open_file(event_log, file)
            (fragment,) = dataset.get_fragments()
            fragment.metadata.write_metadata_file(footer)
            num_rows, column = fragment.metadata.num_rows, KNOWN_COLUMNS[file.table]
            if column in dataset.schema.names:
                # Arrow says that it is not implemented where no value is before another one.
                with (
                    contextlib.suppress(pa.ArrowNotImplementedError),
                    damage_told_from_failure(dataset.filesystem, file),
                ):
                    num_known = dataset.count_rows(filter=ds.field(column) < as_of_ms)
            elif file.table == "pins":
                num_known = num_rows
        return ListedFile(
            path=file.path.removeprefix(root).lstrip("/"),
            num_bytes=file.num_bytes,
            modified_at=file.modified_at,
            footer=hashlib.sha256(footer.getvalue()).hexdigest() if footer.getvalue() else "",
            num_rows=num_rows,
            num_known=num_known,
        )

    with ThreadPoolExecutor(_NUM_FROM_STORE) as pool:
        return Listing(event_log_uri=event_log.uri, files=tuple(pool.map(listed, files)))


# Columns that a recipe declares as features: texts, and numbers


def extra_columns(schema: pa.Schema, features: Sequence[CategoricalFeature]) -> tuple[str, ...]:
    """Return the features' columns that a table has beyond its schema."""
    return tuple(feature.name for feature in features if feature.name not in schema.names)


def append_codes(
    table: pa.Table, rows: pa.Table, features: Sequence[CategoricalFeature]
) -> pa.Table:
    """Return the table with a column of int16 codes appended for each feature of its rows' texts.

    A code is the position of the value in the feature's list + 1; a null and a value that is not
    listed have 0.
    """
    for feature in features:
        codes = pa.array(positions(rows[feature.name], feature.values) + 1).cast(pa.int16())
        field = pa.field(categorical_column(feature.name), pa.int16(), nullable=False)
        table = table.append_column(field, codes)
    return table


def positions(texts: pa.ChunkedArray, values: Sequence[str]) -> npt.NDArray[np.int32]:
    """Return the position of each text among some values; -1 for a null, or where it is not there.

    The texts of a dictionary are looked up once each.
    """

    def among(each: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int32]:
        places = pc.index_in(each.cast(pa.string()), value_set=pa.array(values, pa.string()))
        return np.asarray(pc.fill_null(places, -1))

    if not pa.types.is_dictionary(texts.type):
        return among(texts)
    found = [np.array([], dtype=np.int32)]
    for chunk in texts.chunks:
        codes = np.asarray(pc.fill_null(chunk.indices, len(chunk.dictionary)))
        found.append(np.append(among(chunk.dictionary), np.int32(-1))[codes])
    return np.concatenate(found)


def raw_column(name: str) -> str:
    """Return the column that holds a table's number as it was logged, until the kernel is done."""
    return f"raw_{name}"


def append_numbers(path: str, table: pa.Table, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return the table with a float64 column appended for each number column; NaN is a null.

    The rows come from the file at `path` and are those of the table.

    Raises:
        DataContractError: a number is infinite, or too large for a feature.
    """
    require_none(number_problems(path, rows, columns))
    for name in columns:
        field = pa.field(raw_column(name), pa.float64(), nullable=False)
        values = pa.array(numbers_of(rows[name]), pa.float64(), from_pandas=False)
        table = table.append_column(field, values)
    return table
