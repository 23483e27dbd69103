"""The rows of some days of an event log, as the data gate measures them.

They are read by the same readers, and refused by the same rules, as a snapshot's. Not for what is
measured: that is `validation.data_gate.days`.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.schemas import EVENT_LOG_TABLES, IMPRESSIONS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.declared import extra_columns
from pipelines.event_log.log_files import EventLog, LogFile, day_of
from pipelines.event_log.reader import Before, EventFilter, read_events, read_rows
from pipelines.event_log.rules import embedding_matrix
from pipelines.log_days.known_days import KnownDays
from pipelines.snapshot.plan import SnapshotPlan

if TYPE_CHECKING:
    from validation.data_gate.days.measure import DayRows

log = logging.getLogger(__name__)

BYTES_AT_ONCE = 96 << 20
"""Of the log's files; in the database their rows take several times as much."""
EVENTS = ("impressions", "actions")


def measure_log(
    event_log: EventLog,
    plan: SnapshotPlan,
    days: range,
    scratch: Path,
    known: KnownDays | None = None,
) -> tuple[DayProfile, ...]:
    """Return the profiles of some days, of rows known before as_of.

    Args:
        event_log: The log.
        plan: The recipe's, for as_of, action types and categories.
        days: Which, since the epoch.
        scratch: Existing folder, for what does not fit into memory.
        known: Profiles of days that need not be measured again.

    Raises:
        DataContractError: a file breaks the contract; the message names it.
        TransientStorageError: the storage failed.
    """
    from validation.data_gate.days.measure import measure_days, open_engine

    profiles = known.of(days) if known else {}
    log.info("of %d days of the event log, %d were measured before", len(days), len(profiles))
    with open_engine(str(scratch)) as engine:
        has_users = False
        for part in parts_of(event_log, [day for day in days if day not in profiles]):
            rows = rows_of(event_log, plan, part, with_users=not has_users)
            has_users = True
            found = measure_days(engine, rows, part.start, part.stop, categories_of(plan))
            profiles |= {each.day: each for each in found}
    return tuple(each for _, each in sorted(profiles.items()) if each is not None)


def parts_of(event_log: EventLog, days: list[int]) -> Iterator[range]:
    """Yield runs of days whose files are at most about BYTES_AT_ONCE together, at least one day."""
    part, num_bytes = range(0), 0
    for day in days:
        start, end = day * DAY_MS, (day + 1) * DAY_MS
        files = [f for table in EVENTS for f in event_log.files_between(table, start, end)]
        size = sum(file.num_bytes for file in files)
        if part and (part.stop != day or num_bytes + size > BYTES_AT_ONCE):
            yield part
            part, num_bytes = range(0), 0
        part, num_bytes = range(part.start if part else day, day + 1), num_bytes + size
    if part:
        yield part


def files_of_days(event_log: EventLog, days: range) -> tuple[LogFile, ...]:
    """Return the files from which some days are measured."""
    first, last = day_of((days.start - 1) * DAY_MS), day_of((days.stop - 1) * DAY_MS)
    return tuple(
        file
        for file in event_log.files
        if file.table == "users"
        or (file.table in EVENTS and file.day and first <= file.day <= last)
    )


def rows_of(
    event_log: EventLog, plan: SnapshotPlan, days: range, with_users: bool = True
) -> "DayRows":
    """Return the rows of some days and of the day before them, which are read as they are used.

    Args:
        event_log: The log.
        plan: As for `measure_log`.
        days: Since the epoch.
        with_users: Whether users' rows are among them, which are the same for all days.
    """
    from validation.data_gate.days.measure import DayRows

    impressions, actions = (_events(event_log, plan, days, table) for table in EVENTS)
    return DayRows(impressions, actions, _users(event_log, plan) if with_users else None)


def categories_of(plan: SnapshotPlan) -> tuple[str, ...]:
    """Return the recipe's categories of impressions that the contract does not have."""
    return extra_columns(IMPRESSIONS, plan.features.categorical_of("impressions"))


def _events(event_log: EventLog, plan: SnapshotPlan, days: range, table: str) -> Iterator[pa.Table]:
    """Yield the events of the days and of the day before them, to which the first ones reach back.

    An empty table comes first, which tells the columns where there is no file. Categories are text,
    however the file holds them.
    """
    extra = categories_of(plan) if table == "impressions" else ()
    fields = (pa.field(name, pa.string()) for name in extra)
    yield pa.schema([*EVENT_LOG_TABLES[table], *fields]).empty_table()
    wanted = EventFilter(
        as_of_ms=plan.as_of_ms,
        start_ms=(days.start - 1) * DAY_MS,
        end_ms=days.stop * DAY_MS,
        extra_columns=extra,
        action_types=(*plan.features.action_types, *plan.passed_over),
    )
    for file in event_log.files_between(table, wanted.start_ms, wanted.end_ms):
        rows = read_events(event_log, (file,), wanted)
        for name in extra:
            index = rows.schema.get_field_index(name)
            rows = rows.set_column(index, name, rows[name].cast(pa.string()))
        yield rows


def _users(event_log: EventLog, plan: SnapshotPlan) -> Iterator[pa.Table]:
    for file in event_log.files_of("users"):
        rows = read_rows(event_log, file, (), Before("as_of", plan.as_of_ms))
        if len(rows):
            vectors = to_list_column(embedding_matrix(file.path, rows))
            kept = rows.select(["user_id", "as_of", "state"])
            yield kept.append_column("embedding", vectors)
