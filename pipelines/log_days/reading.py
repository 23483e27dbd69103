"""The rows of some days of an event log, as the data gate measures them.

They are read by the same readers, and refused by the same rules, as a snapshot's. Not for what is
measured: that is `validation.data_gate.days`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.schemas import EVENT_LOG_TABLES, IMPRESSIONS, USERS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.declared import extra_columns
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.reader import Before, EventFilter, read_events, read_rows
from pipelines.event_log.rules import embedding_matrix
from pipelines.log_days.known_days import KnownDays
from pipelines.snapshot.plan import SnapshotPlan

log = logging.getLogger(__name__)

BYTES_AT_ONCE = 96 << 20
"""Of the log's files; in the database their rows take several times as much."""
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class DayRange:
    """Days since the epoch, half-open."""

    first: int
    end: int


def measure_log(
    event_log: EventLog,
    plan: SnapshotPlan,
    days: DayRange,
    scratch: Path,
    known: KnownDays | None = None,
) -> tuple[DayProfile, ...]:
    """Return the profiles of some days, of rows known before as_of.

    Args:
        event_log: The log.
        plan: The recipe's, for as_of, action types and categories.
        days: Which.
        scratch: Existing folder, for what does not fit into memory.
        known: Profiles of days that need not be measured again.

    Raises:
        DataContractError: a file breaks the contract; the message names it.
        TransientStorageError: the storage failed.
    """
    from validation.data_gate.days.measure import DayRows, measure_days, open_engine

    profiles, runs = (known or KnownDays()).split(range(days.first, days.end))
    num_days = days.end - days.first
    log.info("of %d days of the event log, %d were measured before", num_days, len(profiles))
    parts = [part for run in runs for part in _parts(event_log, DayRange(*run))]
    with open_engine(str(scratch)) as engine:
        for number, part in enumerate(parts):
            rows = DayRows(
                impressions=_events(event_log, plan, part, "impressions"),
                actions=_events(event_log, plan, part, "actions"),
                users=None if number else _users(event_log, plan),
            )
            measured = measure_days(engine, rows, part.first, part.end, categories_of(plan))
            profiles |= {each.day: each for each in measured}
    return tuple(each for day in sorted(profiles) if (each := profiles[day]) is not None)


def examples_of(
    event_log: EventLog, plan: SnapshotPlan, scratch: Path, day: int, names: Sequence[str]
) -> Mapping[str, Sequence[str]]:
    """Return phrases about rows of a day that show what some of its numbers are.

    Args:
        event_log: The log.
        plan: As for `measure_log`.
        scratch: As for `measure_log`.
        day: Days since the epoch.
        names: Of numbers.
    """
    from validation.data_gate.days.examples import find_examples
    from validation.data_gate.days.measure import DayRows, open_engine

    one = DayRange(day, day + 1)
    with open_engine(str(scratch)) as engine:
        rows = DayRows(
            impressions=_events(event_log, plan, one, "impressions"),
            actions=_events(event_log, plan, one, "actions"),
            users=_users(event_log, plan),
        )
        return find_examples(engine, rows, day, names, categories_of(plan))


def files_of_days(event_log: EventLog, days: DayRange) -> tuple[LogFile, ...]:
    """Return the files from which some days are measured."""
    start, end = (days.first - 1) * DAY_MS, days.end * DAY_MS
    events = (event_log.files_between(table, start, end) for table in ("impressions", "actions"))
    return (*(file for files in events for file in files), *event_log.files_of("users"))


def _parts(event_log: EventLog, days: DayRange) -> Iterator[DayRange]:
    """Yield runs of days whose files are at most about BYTES_AT_ONCE together, at least one day."""
    sizes = dict.fromkeys(range(days.first, days.end), 0)
    for table in ("impressions", "actions"):
        for file in event_log.files_between(table, days.first * DAY_MS, days.end * DAY_MS):
            if file.day is not None:
                sizes[file.day.toordinal() - _EPOCH] += file.num_bytes
    first, num_bytes = days.first, 0
    for day, size in sizes.items():
        if day > first and num_bytes + size > BYTES_AT_ONCE:
            yield DayRange(first, day)
            first, num_bytes = day, 0
        num_bytes += size
    yield DayRange(first, days.end)


def rows_in_memory(event_log: EventLog, plan: SnapshotPlan, days: DayRange) -> dict[str, pa.Table]:
    """Return the rows of impressions, actions and users that `measure_log` would measure."""
    events = {
        table: pa.concat_tables(_events(event_log, plan, days, table))
        for table in ("impressions", "actions")
    }
    return events | {"users": pa.concat_tables(_users(event_log, plan))}


def categories_of(plan: SnapshotPlan) -> tuple[str, ...]:
    """Return the recipe's categories of impressions that the contract does not have."""
    return extra_columns(IMPRESSIONS, plan.features.categorical_of("impressions"))


def _events(
    event_log: EventLog, plan: SnapshotPlan, days: DayRange, table: str
) -> Iterator[pa.Table]:
    """Yield the events of the days and of the day before them, to which the first ones reach back.

    An empty table comes first, which tells the columns where there is no file. Categories are text,
    however the file holds them.
    """
    extra = categories_of(plan) if table == "impressions" else ()
    fields = (pa.field(name, pa.string()) for name in extra)
    yield pa.schema([*EVENT_LOG_TABLES[table], *fields]).empty_table()
    wanted = EventFilter(
        as_of_ms=plan.as_of_ms,
        start_ms=(days.first - 1) * DAY_MS,
        end_ms=days.end * DAY_MS,
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
    is_known = Before("as_of", plan.as_of_ms)
    for file in event_log.files_of("users"):
        rows = read_rows(event_log, file, (), is_known)
        if len(rows) == 0:
            continue
        vectors = to_list_column(embedding_matrix(file.path, rows))
        kept = rows.select(["user_id", "as_of", USERS.field("state").name])
        yield kept.append_column("embedding", vectors)


def day_at(instant: datetime) -> int:
    """Return an instant's UTC day, in days since the epoch."""
    return int(instant.astimezone(UTC).timestamp()) // (DAY_MS // 1000)
