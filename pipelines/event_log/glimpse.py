"""What an event log shows at a glance: its columns, action types and embedding versions.

A light task asks this before anything is built, so it reads footers and single columns, each file
once. Not for rows (`pipelines.event_log.reader`). Tested in
tests/pipelines/event_log/test_glimpse.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import EVENT_LOG_TABLES, contract_of
from pipelines.event_log import checks
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.parquet_files import is_before, iterate_batches, open_file

_NUM_READERS = 8
"""Files that are read at a time: on an object store each of them is a few requests."""
_BATCH_ROWS = 1 << 16
"""Rows of a file that are in memory at a time."""
Answer = TypeVar("Answer")


class Glimpse:
    """An event log as of an instant, looked at from outside."""

    def __init__(self, event_log: EventLog, as_of_ms: int) -> None:
        """Take a listed log; rows known before `as_of_ms` (since the epoch) count."""
        self.event_log, self._as_of_ms = event_log, as_of_ms
        self._types: dict[LogFile, frozenset[str]] = {}

    def column_problems(
        self, files: Sequence[LogFile], extra: Sequence[str], numbers: Sequence[str] = ()
    ) -> list[str]:
        """Return what is wrong with the columns of a table's files, once for files alike.

        Args:
            files: Files of one table.
            extra: Columns of text that a recipe's features need beyond the contract's.
            numbers: Columns of numbers that they need.

        Raises:
            TransientStorageError: the storage failed.
        """

        def ask(file: LogFile) -> list[str]:
            try:
                found = open_file(self.event_log, file).schema
            except DataContractError as error:
                return [str(error)]
            contract = contract_of(file.table, found.names)
            problems = checks.column_problems(file.path, found, contract, extra, numbers)
            return [problem.message for problem in problems]

        alike: dict[str, list[str]] = {}
        for file, problems in zip(files, _asked(ask, files), strict=True):
            for problem in problems:
                alike.setdefault(problem.replace(file.path, ""), []).append(problem)
        return [
            f"{found[0]} (and {len(found) - 1} more files)" if len(found) > 1 else found[0]
            for found in alike.values()
        ]

    def action_types(self, files: Iterable[LogFile]) -> dict[str, LogFile]:
        """Return the action types among the known rows of files, each with a file that has it.

        A file that cannot be read is passed over: `column_problems` tells of it.

        Raises:
            TransientStorageError: the storage failed.
        """
        wanted = list(files)
        fresh = [file for file in wanted if file not in self._types]
        self._types.update(zip(fresh, _asked(self._types_in, fresh), strict=True))
        return {name: file for file in reversed(wanted) for name in self._types[file]}

    def _types_in(self, file: LogFile) -> frozenset[str]:
        try:
            dataset = open_file(self.event_log, file)
            checks.check_columns(file.path, dataset.schema, EVENT_LOG_TABLES[file.table])
            is_known = is_before("known_at", self._as_of_ms)
            return _distinct(dataset, file, "action_type", is_known)
        except DataContractError:
            return frozenset()

    @cached_property
    def embedding_versions(self) -> frozenset[str]:
        """The embedding versions of the pins.

        Raises:
            TransientStorageError: the storage failed.
        """

        def ask(file: LogFile) -> frozenset[str]:
            try:
                dataset = open_file(self.event_log, file)
                return _distinct(dataset, file, "embedding_version", None)
            except DataContractError:
                return frozenset()

        return frozenset().union(*_asked(ask, self.event_log.files_of("pins")))


def _distinct(
    dataset: ds.FileSystemDataset, file: LogFile, column: str, wanted: ds.Expression | None
) -> frozenset[str]:
    """Return the values of a text column; nothing where there is no such column."""
    if column not in dataset.schema.names:
        return frozenset()
    found: set[str] = set()
    for batch in iterate_batches(dataset, file, [column], _BATCH_ROWS, wanted):
        found.update(pc.unique(batch[column].cast(pa.string())).drop_null().to_pylist())
    return frozenset(found)


def _asked(ask: Callable[[LogFile], Answer], files: Sequence[LogFile]) -> Iterator[Answer]:
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        yield from pool.map(ask, files)
