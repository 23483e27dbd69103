"""What of a recipe an event log cannot feed: windows, columns, action types, embeddings.

The log is looked at from outside: footers and single columns, each file once, because a light task
asks this before anything is built. The same is asked for a champion of another recipe, which is
scored on features of its own (`pipelines.preconditions.champion`). Not for rows
(`pipelines.log_check`). Tested in tests/pipelines/preconditions/test_event_log.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cached_property
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.contracts.config import Head, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.features import LOG_TABLES
from pipelines.contracts.schemas import EVENT_LOG_TABLES, contract_of
from pipelines.contracts.time import to_ms
from pipelines.event_log.declared import extra_columns
from pipelines.event_log.log_files import EventLog, LogFile, day_of, open_event_log
from pipelines.event_log.reader import is_before, iterate_batches, open_file, pin_time_problems
from pipelines.event_log.rules import Finding, column_problems
from pipelines.places.store_errors import require_bucket
from pipelines.preconditions.recipe_alone import refusal
from pipelines.snapshot.build import check_covered
from pipelines.snapshot.plan import SnapshotPlan, plan_of
from pipelines.snapshot.spill import files_read
from pipelines.storage import list_names

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

        def ask(file: LogFile) -> list[tuple[tuple[str, ...], str]]:
            try:
                found = open_file(self.event_log, file).schema
            except DataContractError as error:
                return [((file.path,), str(error))]
            contract = contract_of(file.table, found.names)
            problems = column_problems(file.path, found, contract, extra, numbers)
            return [(_alike(each), each.message) for each in problems]

        told: dict[tuple[str, ...], list[str]] = {}
        for problems in _asked(ask, files):
            for alike, message in problems:
                told.setdefault(alike, []).append(message)
        return [
            f"{found[0]} (and {len(found) - 1} more files)" if len(found) > 1 else found[0]
            for found in told.values()
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
            if any(column_problems(file.path, dataset.schema, EVENT_LOG_TABLES[file.table])):
                return frozenset()
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


def _alike(problem: Finding) -> tuple[str, ...]:
    """Return what the files have in common whose columns are told together."""
    return problem.rule, problem.column, problem.problem, problem.remedy


def require_event_log(uri: str) -> None:
    """Refuse a place that is no event log.

    Raises:
        DataContractError: tables are missing.
        ConfigurationError: the event log's bucket is not there.
        TransientStorageError: the storage failed.
    """
    found = set(list_names(uri))
    missing = sorted(set(EVENT_LOG_TABLES) - found)
    if not found:
        require_bucket(uri)
    if missing:
        raise DataContractError(
            f"event log {uri}: tables {missing} are missing, found "
            f"{sorted(found) or 'nothing'}; expected {sorted(EVENT_LOG_TABLES)}; write one with "
            f"`homefeed ingest completejourney --to {uri}` or set HOMEFEED_EVENT_LOG"
        )


def look_at(event_log_uri: str, as_of: datetime) -> Glimpse:
    """List an event log and return it, to be asked.

    Raises:
        DataContractError: the log or a table of it is missing or empty.
        TransientStorageError: the storage failed.
    """
    return Glimpse(open_event_log(event_log_uri), to_ms(as_of))


def require_fed(config: RunConfig, log: Glimpse, as_of: datetime) -> None:
    """Refuse a recipe that the event log cannot feed.

    Raises:
        DataContractError: all that is missing is listed.
        TransientStorageError: the storage failed.
    """
    if found := log_problems(config, log, as_of):
        lead = (
            f"the event log at {log.event_log.uri} cannot feed recipe {config.reference} as of "
            f"{as_of:%Y-%m-%d}:"
        )
        raise refusal(DataContractError, lead, found)


def log_problems(config: RunConfig, log: Glimpse, as_of: datetime) -> list[str]:
    """Return in sentences what the log lacks that a recipe needs.

    Raises:
        TransientStorageError: the storage failed.
    """
    plan = plan_of(config, as_of)
    try:
        check_covered(log.event_log, plan)
    except DataContractError as error:
        return [str(error)]  # no other answer means anything in days without a log
    return [
        *columns_missing(plan, log),
        *head_problems(plan, log, config.features.heads),
        *vocabulary_problems(plan, log),
        *version_problems(plan, log),
    ]


def columns_missing(plan: SnapshotPlan, log: Glimpse) -> list[str]:
    """Return which columns the files that a snapshot reads lack, or have in another type.

    Of impressions before the training window only columns of the contract are read.
    """
    found = []
    window = (plan.training.start_ms, plan.as_of_ms)
    _, *others = files_read(log.event_log, plan)
    impressions = log.event_log.files_between("impressions", *window)
    for files in (impressions, *others, log.event_log.files_of("pins")):
        if not files:
            continue
        table = files[0].table
        extra = extra_columns(EVENT_LOG_TABLES[table], plan.features.categorical_of(table))
        numbers = plan.number_columns(table) if table in LOG_TABLES else ()
        found += log.column_problems(files, extra, numbers)
    return found + [problem.message for problem in pin_time_problems(log.event_log)]


def vocabulary_problems(plan: SnapshotPlan, log: Glimpse) -> list[str]:
    """Return which action types of the log the vocabulary lacks, so that reading refuses them."""
    shown = _types_shown(plan, log)
    foreign = sorted(set(shown) - {*plan.features.action_types, *plan.passed_over})
    if not foreign:
        return []
    return [
        f"the log has actions of type {', '.join(map(repr, foreign))}, first in "
        f"{shown[foreign[0]].path}, which is not in features.action_types "
        f"{list(plan.features.action_types)}; add it there, or drop these rows where the table is "
        f"written"
    ]


def version_problems(plan: SnapshotPlan, log: Glimpse) -> list[str]:
    """Return that no pin has an embedding of the plan's version."""
    wanted, there = plan.config.embedding_version, log.embedding_versions
    if wanted in there:
        return []
    return [
        f"snapshot.embedding_version is {wanted!r}, and no pin has an embedding of it; found "
        f"{sorted(there) or 'none'}; add that version to the table pins, or correct the recipe"
    ]


def head_problems(plan: SnapshotPlan, log: Glimpse, heads: tuple[Head, ...]) -> list[str]:
    """Return which heads have an action type that the days which a snapshot reads never show."""
    shown = _types_shown(plan, log)
    start = day_of(plan.actions_start_ms)
    return [
        f"head {head.name!r} predicts action type {head.action_type!r}, which no action from "
        f"{start} to {plan.as_of:%Y-%m-%d} has; found {sorted(shown) or 'no actions'}; correct "
        f"the head, or add these actions to the log"
        for head in heads
        if head.action_type not in shown
    ]


def _types_shown(plan: SnapshotPlan, log: Glimpse) -> dict[str, LogFile]:
    files = log.event_log.files_between("actions", plan.actions_start_ms, plan.as_of_ms)
    return log.action_types(files)
