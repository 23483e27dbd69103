"""The rows of some days of an event log, as the data gate measures them.

Rows are read by the same readers, and refused by the same rules, as a snapshot's. A day's profile
depends on the events of the day and of the day before, and on users' rows up to its end; on nothing
else, whichever days are measured with it. Not for what is measured: that is
`validation.data_gate.days`. Tested in tests/pipelines/log_days/test_reading.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.progress import tracked
from pipelines.contracts.schemas import EVENT_LOG_TABLES, IMPRESSIONS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EventLog, unchanged_meanwhile
from pipelines.event_log.reader import (
    Before,
    EventFilter,
    extra_columns,
    read_events,
    read_rows,
)
from pipelines.event_log.rules import embedding_matrix
from pipelines.snapshot.plan import SnapshotPlan

if TYPE_CHECKING:
    from validation.data_gate.days.measure import DayRows

BYTES_AT_ONCE = 96 << 20
"""Of the log's files; in the database their rows take several times as much."""
EVENTS = ("impressions", "actions")


def measure_log(
    event_log: EventLog, plan: SnapshotPlan, days: range, scratch: Path
) -> tuple[DayProfile, ...]:
    """Return the profiles of some days, of rows known before as_of.

    Args:
        event_log: The log.
        plan: The recipe's, for as_of, action types and categories.
        days: Which, since the epoch.
        scratch: Existing folder, for what does not fit into memory.

    Raises:
        DataContractError: a file breaks the contract; the message names it.
        TransientStorageError: the storage failed, or a file was written while it was read.
    """
    from validation.data_gate.days.measure import measure_days, open_engine

    # The first requests and actions reach back to the day before.
    start, end, profiles = (days.start - 1) * DAY_MS, days.stop * DAY_MS, list[DayProfile]()
    events = [file for table in EVENTS for file in event_log.files_between(table, start, end)]
    with (
        unchanged_meanwhile(event_log, [*event_log.files_of("users"), *events]),
        open_engine(str(scratch)) as engine,
    ):
        for part in tracked(list(parts_of(event_log, days)), "parts of the log's days"):
            rows = rows_of(event_log, plan, part, with_users=part.start == days.start)
            profiles += measure_days(engine, rows, part.start, part.stop, categories_of(plan))
    return tuple(profiles)


def parts_of(event_log: EventLog, days: range) -> Iterator[range]:
    """Yield runs of days whose files are at most about BYTES_AT_ONCE together, at least one day."""
    part, num_bytes = range(0), 0
    for day in days:
        start, end = day * DAY_MS, (day + 1) * DAY_MS
        files = (event_log.files_between(table, start, end) for table in EVENTS)
        size = sum(file.num_bytes for of_table in files for file in of_table)
        if part and num_bytes + size > BYTES_AT_ONCE:
            yield part
            part, num_bytes = range(0), 0
        part, num_bytes = range(part.start if part else day, day + 1), num_bytes + size
    if part:
        yield part


def rows_of(
    event_log: EventLog, plan: SnapshotPlan, days: range, with_users: bool = True
) -> "DayRows":
    """Return the rows of some days and of the day before them, which are read as they are used.

    The days are since the epoch. Users' rows are the same for all days.
    """
    from validation.data_gate.days.measure import DayRows

    impressions, actions = (_events(event_log, plan, days, table) for table in EVENTS)
    if not with_users:
        return DayRows(impressions, actions, None)
    return DayRows(impressions, actions, _users(event_log, plan), pins_of(event_log, plan))


def categories_of(plan: SnapshotPlan) -> tuple[str, ...]:
    """Return the recipe's categories of impressions that the contract does not have."""
    return extra_columns(IMPRESSIONS, plan.features.categorical_of("impressions"))


def _events(event_log: EventLog, plan: SnapshotPlan, days: range, table: str) -> Iterator[pa.Table]:
    """Yield the events of the days and of the day before them, to which the first ones reach back.

    An empty table comes first, which tells the columns where there is no file, and that categories
    are text, however the files hold them.
    """
    extra = categories_of(plan) if table == "impressions" else ()
    schema = pa.schema([*EVENT_LOG_TABLES[table], *(pa.field(name, pa.string()) for name in extra)])
    yield schema.empty_table()
    wanted = EventFilter(
        as_of_ms=plan.as_of_ms,
        start_ms=(days.start - 1) * DAY_MS,
        end_ms=days.stop * DAY_MS,
        extra_columns=extra,
        action_types=(*plan.features.action_types, *plan.passed_over),
    )
    for file in event_log.files_between(table, wanted.start_ms, wanted.end_ms):
        yield read_events(event_log, (file,), wanted)


def pins_of(event_log: EventLog, plan: SnapshotPlan) -> Iterator[pa.Table]:
    """Yield the pins of the recipe's embedding version, with their embeddings.

    They are the same for all days: a vector never changes under its version.
    """
    for file in event_log.files_of("pins"):
        rows, _ = read_rows(event_log, [file], Before("pin_id", 1 << 62))
        versions = np.asarray(rows["embedding_version"].cast("string"))
        rows = rows.filter(pa.array(versions == plan.config.embedding_version))
        if len(rows):
            vectors = to_list_column(embedding_matrix(file.path, rows))
            yield pa.table({"pin_id": rows["pin_id"], "embedding": vectors})


def _users(event_log: EventLog, plan: SnapshotPlan) -> Iterator[pa.Table]:
    for file in event_log.files_of("users"):
        rows, _ = read_rows(event_log, [file], Before("as_of", plan.as_of_ms))
        if len(rows):
            vectors = to_list_column(embedding_matrix(file.path, rows))
            kept = rows.select(["user_id", "as_of", "state"])
            yield kept.append_column("embedding", vectors)
