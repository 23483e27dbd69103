"""The rows of some days of an event log, as the data gate measures them, and days that are known.

    <workspace>/days/profiles.json    MeasuredDays

Rows are read by the same readers, and refused by the same rules, as a snapshot's. A day's profile
depends on the events of the day and of the day before, and on users' rows up to its end; on nothing
else, whichever days are measured with it. So where Spark builds snapshots, its executors measure
the days. A profile is kept where all rows of these files were known before as_of, so that a later
cycle would measure the same. Not for what is measured: that is `validation.data_gate.days`. Tested
in tests/pipelines/log_days/test_reading.py.
"""

import contextlib
import functools
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines import storage
from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.base import digest_of
from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.day_profile import DayProfile, MeasuredDays
from pipelines.contracts.errors import DataContractError, HomefeedError
from pipelines.contracts.progress import tracked
from pipelines.contracts.schemas import EVENT_LOG_TABLES, IMPRESSIONS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EPOCH, EventLog, LogFile, unchanged_meanwhile
from pipelines.event_log.reader import (
    KNOWN_COLUMNS,
    Before,
    EventFilter,
    extra_columns,
    list_files,
    open_file,
    read_events,
    read_rows,
)
from pipelines.event_log.rules import embedding_matrix
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.spark.mapping import chosen_spark, run_on_executors

if TYPE_CHECKING:
    from validation.data_gate.days.measure import DayRows

log = logging.getLogger(__name__)

BYTES_AT_ONCE = 96 << 20
"""Of the log's files; in the database their rows take several times as much."""
EVENTS = ("impressions", "actions")
PROFILES_FILE = "profiles.json"
MOST_DAYS = 400
Profiles = tuple[DayProfile, ...]


def measure_log(
    event_log: EventLog, plan: SnapshotPlan, days: range, scratch: Path, kept_in: str | None = None
) -> Profiles:
    """Return the profiles of some days, of rows known before as_of.

    Args:
        event_log: The log.
        plan: The recipe's, for as_of, action types and categories.
        days: Which, since the epoch.
        scratch: Existing folder, for what does not fit into memory.
        kept_in: URI of a folder of profiles that need not be measured again while their files, and
            the recipe's features, stay as they are; new ones are added. None keeps none.

    Raises:
        DataContractError: a file breaks the contract; the message names it.
        ProcessKilledError: an executor was killed.
        TransientStorageError: the storage failed, a cluster that was chosen is out of reach, or a
            file was written while it was read.
    """
    uri = kept_in and storage.join(kept_in, PROFILES_FILE)
    with unchanged_meanwhile(event_log, files_of_days(event_log, days)):
        kept = _read_known(uri) if uri else {}
        states = _states(event_log, plan, days) if uri else {}
        profiles = {day: kept[state] for day, state in states.items() if state in kept}
        log.info("of %d days of the event log, %d were measured before", len(days), len(profiles))
        parts = list(parts_of(event_log, [day for day in days if day not in profiles]))
        with chosen_spark() as context:
            measured = (
                _measured_here(event_log, plan, parts, scratch)
                if context is None
                else _measured_by(context, event_log, plan, parts)
            )
            profiles |= {each.day: each for found in measured for each in found}
    # Not before it is sure that these are the numbers of the files that were listed.
    if uri is not None:
        kept |= {state: profiles.get(day) for day, state in states.items()}
        storage.write_model(uri, MeasuredDays(profiles=dict(list(kept.items())[-MOST_DAYS:])))
    return tuple(each for _, each in sorted(profiles.items()) if each is not None)


def _measured_here(
    event_log: EventLog, plan: SnapshotPlan, parts: list[range], scratch: Path
) -> Iterator[Profiles]:
    """Yield the profiles of each part's days; users' rows are read once for all of them."""
    from validation.data_gate.days.measure import measure_days, open_engine

    with open_engine(str(scratch)) as engine:
        for part in tracked(parts, "parts of the log's days"):
            rows = rows_of(event_log, plan, part, with_users=part is parts[0])
            rows = replace(rows, is_last=len(parts) == 1)
            yield measure_days(engine, rows, part.start, part.stop, categories_of(plan))


def _measured_by(
    context: Any, event_log: EventLog, plan: SnapshotPlan, parts: list[range]
) -> list[Profiles]:
    """Return the profiles of each part's days, measured by a task of Spark that reads its files."""
    pins, tasks = event_log.files_of("pins"), list[tuple[EventLog, range]]()
    for part in parts:
        files = (*files_of_days(event_log, part), *pins)
        tasks.append((EventLog(event_log.uri, files), part))
    measure = functools.partial(_measure_part, plan)
    return run_on_executors(context, measure, tasks, plan, "measuring the log's days on Spark")


def _measure_part(plan: SnapshotPlan, task: tuple[EventLog, range]) -> Profiles:
    event_log, part = task
    with tempfile.TemporaryDirectory() as scratch:
        return next(_measured_here(event_log, plan, [part], Path(scratch)))


def _read_known(uri: str) -> dict[str, DayProfile | None]:
    try:
        found = storage.find_model(uri, MeasuredDays)
        return dict(found.profiles) if found else {}
    except HomefeedError as error:
        log.warning("%s cannot be read (%s); the days are measured again", uri, error)
        return {}


def _states(event_log: EventLog, plan: SnapshotPlan, days: range) -> dict[int, str]:
    """Return a digest of the files that the profile of each day comes from, and of what is asked.

    A day has none where these may come to hold more rows. Their times of writing and footers tell
    whether they are the same.
    """
    files = files_of_days(event_log, days)
    listed = dict(zip(files, list_files(event_log, files, plan.as_of_ms).files, strict=True))
    earliest = {file: _earliest_ms(event_log, file) for file in files if file.day is None}
    measured = [plan.features.model_dump(mode="json"), plan.passed_over, project_digest()]
    states = {}
    for day in days:
        own = [f for f in files if f.day is not None and (f.day - EPOCH).days in (day - 1, day)]
        if all(listed[f].num_rows == listed[f].num_known is not None for f in own):
            own += [file for file, start in earliest.items() if start < (day + 1) * DAY_MS]
            told = [listed[f].model_dump(mode="json", exclude={"num_known"}) for f in own]
            states[day] = digest_of([*measured, event_log.uri, told])
    return states


def _earliest_ms(event_log: EventLog, file: LogFile) -> int:
    """Return from when on a file of users has rows, as its footer says; 0 where it does not."""
    with contextlib.suppress(DataContractError, KeyError, TypeError, ValueError):
        [fragment] = open_file(event_log, file).get_fragments()
        return min(int(g.statistics[KNOWN_COLUMNS["users"]]["min"]) for g in fragment.row_groups)
    return 0


def parts_of(event_log: EventLog, days: list[int]) -> Iterator[range]:
    """Yield runs of days whose files are at most about BYTES_AT_ONCE together, at least one day."""
    part, num_bytes = range(0), 0
    for day in days:
        start, end = day * DAY_MS, (day + 1) * DAY_MS
        files = (event_log.files_between(table, start, end) for table in EVENTS)
        size = sum(file.num_bytes for of_table in files for file in of_table)
        if part and (part.stop != day or num_bytes + size > BYTES_AT_ONCE):
            yield part
            part, num_bytes = range(0), 0
        part, num_bytes = range(part.start if part else day, day + 1), num_bytes + size
    if part:
        yield part


def files_of_days(event_log: EventLog, days: range) -> tuple[LogFile, ...]:
    """Return the files from which some days are measured, events of the day before among them."""
    start, end = (days.start - 1) * DAY_MS, days.stop * DAY_MS
    events = (event_log.files_between(table, start, end) for table in EVENTS)
    return (*event_log.files_of("users"), *(file for files in events for file in files))


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
