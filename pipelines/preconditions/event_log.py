"""What of a recipe an event log cannot feed: windows, columns, action types, embeddings.

The log is looked at from outside: footers and single columns, each file once, because a light task
asks this before anything is built. The same is asked for a champion of another recipe, which is
scored on features of its own (`cycle`). Not for rows (`pipelines.log_check`). Tested in
tests/pipelines/preconditions/test_event_log.py.
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.contracts.config import Head
from pipelines.contracts.errors import DataContractError, HomefeedError
from pipelines.contracts.features import LOG_TABLES
from pipelines.contracts.schemas import EVENT_LOG_TABLES, contract_of
from pipelines.contracts.time import to_ms
from pipelines.event_log.declared import extra_columns
from pipelines.event_log.log_files import EventLog, LogFile, day_of, find_event_log
from pipelines.event_log.reader import iterate_batches, open_file, pin_time_problems
from pipelines.event_log.rules import Finding, column_problems
from pipelines.places.store_errors import require_bucket
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.spill import files_read

_NUM_READERS = 8
"""Files that are read at a time: on an object store each of them is a few requests."""
_BATCH_ROWS = 1 << 16
"""Rows of a file that are in memory at a time."""
_TEXTS = {"actions": ("action_type", "known_at"), "pins": ("embedding_version",)}
"""The column that is read of a table, and the one that says from when on a row counts."""
Refused = TypeVar("Refused", bound=HomefeedError)


class Glimpse:
    """An event log as of an instant, looked at from outside."""

    def __init__(self, event_log: EventLog, as_of_ms: int) -> None:
        """Take a listed log; rows known before `as_of_ms` (since the epoch) count."""
        self.event_log, self._as_of_ms = event_log, as_of_ms
        self._known: dict[LogFile, set[str]] = {}

    def column_problems(
        self, files: Sequence[LogFile], extra: Sequence[str], numbers: Sequence[str] = ()
    ) -> list[str]:
        """Return what is wrong with the columns of a table's files, once for files alike.

        `extra` are the columns of text that features need beyond the contract's, `numbers` those
        of numbers.
        """

        def ask(file: LogFile) -> list[Finding]:
            try:
                found = open_file(self.event_log, file).schema
            except DataContractError as error:
                return [Finding("unreadable", "", str(error), "")]
            contract = contract_of(file.table, found.names)
            return list(column_problems(file.path, found, contract, extra, numbers))

        told: dict[tuple[str, str, str], list[str]] = {}
        with ThreadPoolExecutor(_NUM_READERS) as pool:
            for each in itertools.chain.from_iterable(pool.map(ask, files)):
                told.setdefault((each.rule, each.column, each.problem), []).append(each.message)
        return [
            first + (f" (and {len(others)} more files)" if others else "")
            for first, *others in told.values()
        ]

    def texts(self, files: Sequence[LogFile]) -> dict[str, LogFile]:
        """Return action types (of known rows) or embedding versions, each with its first file.

        A file that cannot be read is passed over, as is one without the column: `column_problems`
        tells of it.
        """
        fresh = [file for file in files if file not in self._known]
        with ThreadPoolExecutor(_NUM_READERS) as pool:
            self._known.update(zip(fresh, pool.map(self._read, fresh), strict=True))
        return {text: file for file in reversed(files) for text in self._known[file]}

    def _read(self, file: LogFile) -> set[str]:
        column, *times = _TEXTS[file.table]
        is_known = ds.field("known_at") < self._as_of_ms if times else None
        found = set[str]()
        try:
            dataset = open_file(self.event_log, file)
            asked = [EVENT_LOG_TABLES[file.table].field(name) for name in (column, *times)]
            if not any(column_problems(file.path, dataset.schema, pa.schema(asked))):
                for batch in iterate_batches(dataset, file, [column], _BATCH_ROWS, is_known):
                    found.update(pc.unique(batch[column].cast(pa.string())).drop_null().to_pylist())
        except DataContractError:
            return set()
        return found


def look_at(event_log_uri: str, as_of: datetime) -> Glimpse:
    """List an event log and return it, to be asked.

    Raises:
        DataContractError: the log or tables of it are missing or empty; all that is wrong with
            where its files lie is listed.
        ConfigurationError: the event log's bucket is not there.
        TransientStorageError: the storage failed.
    """
    try:
        event_log, problems = find_event_log(event_log_uri)
    except DataContractError:
        require_bucket(event_log_uri)
        raise
    if problems:
        told = [problem.message for problem in problems]
        raise refusal(DataContractError, f"the event log at {event_log_uri} cannot be read:", told)
    return Glimpse(event_log, to_ms(as_of))


def log_problems(plan: SnapshotPlan, log: Glimpse, heads: Sequence[Head]) -> list[str]:
    """Return in sentences what the log lacks, or has too much, for a snapshot of a plan.

    These are columns of the files that are read, of impressions before the training window only
    those of the contract; action types of `heads` that do not occur in the snapshot's days; action
    types that the vocabulary lacks, so that reading refuses them; and the embedding version.
    """
    features, whole, found = plan.features, log.event_log, list[str]()
    _, actions, users = files_read(whole, plan)
    pins = whole.files_of("pins")
    shown = whole.files_between("impressions", plan.training.start_ms, plan.as_of_ms)
    for files in (shown, actions, users, pins):
        if files:
            table = files[0].table
            extra = extra_columns(EVENT_LOG_TABLES[table], features.categorical_of(table))
            numbers = plan.number_columns(table) if table in LOG_TABLES else ()
            found += log.column_problems(files, extra, numbers)
    found += [problem.message for problem in pin_time_problems(whole)]
    types, start = log.texts(actions), day_of(plan.actions_start_ms)
    found += [
        f"head {head.name!r} predicts action type {head.action_type!r}, which no action from "
        f"{start} to {plan.as_of:%Y-%m-%d} has; found {sorted(types) or 'no actions'}; correct "
        f"the head, or add these actions to the log"
        for head in heads
        if head.action_type not in types
    ]
    if foreign := sorted(set(types) - {*features.action_types, *plan.passed_over}):
        found.append(
            f"the log has actions of type {', '.join(map(repr, foreign))}, first in "
            f"{types[foreign[0]].path}, which is not in features.action_types "
            f"{list(features.action_types)}; add it there, or drop these rows where the table is "
            f"written"
        )
    wanted, there = plan.config.embedding_version, log.texts(pins)
    if wanted not in there:
        found.append(
            f"snapshot.embedding_version is {wanted!r}, and no pin has an embedding of it; found "
            f"{sorted(there) or 'none'}; add that version to the table pins, or correct the recipe"
        )
    return found


def refusal(kind: type[Refused], lead: str, problems: Sequence[str]) -> Refused:
    """Return an error that lists problems after a lead, and knows them one by one."""
    error = kind(f"{lead}{listed(problems)}")
    error.problems = tuple(problems)
    return error


def listed(problems: Sequence[str]) -> str:
    """Return problems as the rest of a message: in the same line, or each in its own."""
    if len(problems) == 1:
        return f" {problems[0]}"
    return "".join(f"\n- {problem}" for problem in problems)
