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
from pipelines.contracts.judged.day_profile import DayProfile
from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, USERS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.declared import extra_columns
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.parquet_files import Before
from pipelines.event_log.reader import EventFilter, read_events, read_rows
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
    log.info("of %d days of the event log, %d were measured before", days.end - days.first,
             len(profiles))  # fmt: skip
    parts = [part for run in runs for part in _parts(event_log, DayRange(*run))]
    with open_engine(str(scratch)) as engine:
        for number, part in enumerate(parts):
            rows = DayRows(
                impressions=_impressions(event_log, plan, part),
                actions=_actions(event_log, plan, part),
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
            impressions=_impressions(event_log, plan, one),
            actions=_actions(event_log, plan, one),
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
    return {
        "impressions": pa.concat_tables(_impressions(event_log, plan, days)),
        "actions": pa.concat_tables(_actions(event_log, plan, days)),
        "users": pa.concat_tables(_users(event_log, plan)),
    }


def categories_of(plan: SnapshotPlan) -> tuple[str, ...]:
    """Return the recipe's categories of impressions that the contract does not have."""
    return extra_columns(IMPRESSIONS, plan.features.categorical_of("impressions"))


def _impressions(event_log: EventLog, plan: SnapshotPlan, days: DayRange) -> Iterator[pa.Table]:
    extra = categories_of(plan)
    texts = {name: pa.string() for name in extra}
    yield _empty(IMPRESSIONS, texts)
    yield from _events(event_log, "impressions", _filter(plan, days, extra), texts)


def _actions(event_log: EventLog, plan: SnapshotPlan, days: DayRange) -> Iterator[pa.Table]:
    yield _empty(ACTIONS, {})
    vocabulary = (*plan.features.action_types, *plan.passed_over)
    wanted = _filter(plan, days, (), action_types=vocabulary)
    yield from _events(event_log, "actions", wanted, {})


def _filter(
    plan: SnapshotPlan, days: DayRange, extra: tuple[str, ...], action_types: tuple[str, ...] = ()
) -> EventFilter:
    """Return a filter for the days and the day before them, to which the first ones reach back."""
    return EventFilter(
        as_of_ms=plan.as_of_ms,
        start_ms=(days.first - 1) * DAY_MS,
        end_ms=days.end * DAY_MS,
        extra_columns=extra,
        action_types=action_types,
    )


def _events(
    event_log: EventLog, table: str, wanted: EventFilter, texts: dict[str, pa.DataType]
) -> Iterator[pa.Table]:
    for file in event_log.files_between(table, wanted.start_ms, wanted.end_ms):
        yield _with_texts(read_events(event_log, (file,), wanted), texts)


def _users(event_log: EventLog, plan: SnapshotPlan) -> Iterator[pa.Table]:
    is_known = Before("as_of", plan.as_of_ms)
    for file in event_log.files_of("users"):
        rows = read_rows(event_log, file, (), is_known)
        if len(rows) == 0:
            continue
        vectors = to_list_column(embedding_matrix(file.path, "user_id", rows))
        kept = rows.select(["user_id", "as_of", USERS.field("state").name])
        yield kept.append_column("embedding", vectors)


def _empty(schema: pa.Schema, texts: dict[str, pa.DataType]) -> pa.Table:
    """Return a table without rows, which tells the columns where there is no file."""
    fields = [*schema, *(pa.field(name, type_) for name, type_ in texts.items())]
    return pa.schema(fields).empty_table()


def _with_texts(rows: pa.Table, texts: dict[str, pa.DataType]) -> pa.Table:
    """Return the rows with categories as text, however the file holds them."""
    for name, type_ in texts.items():
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, name, rows[name].cast(type_))
    return rows


def day_at(instant: datetime) -> int:
    """Return an instant's UTC day, in days since the epoch."""
    return int(instant.astimezone(UTC).timestamp()) // (DAY_MS // 1000)
