"""The rows of some days of an event log, as the data gate measures them, and days that are known.

    <workspace>/days/profiles.json    KnownDays

Rows are read by the same readers, and refused by the same rules, as a snapshot's. A day's profile
depends on the events of the day and of the day before, and on users' rows up to its end; on nothing
else, whichever days are measured with it. It is kept where all rows of these files were known
before as_of, so that a later cycle would measure the same. Not for what is measured: that is
`validation.data_gate.days`. Tested in tests/pipelines/log_days/test_reading.py.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import write_whole
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
from pipelines.storage import open_filesystem

if TYPE_CHECKING:
    from validation.data_gate.days.measure import DayRows

log = logging.getLogger(__name__)

BYTES_AT_ONCE = 96 << 20
"""Of the log's files; in the database their rows take several times as much."""
EVENTS = ("impressions", "actions")
PROFILES_FILE = "profiles.json"
MOST_DAYS = 400


class KnownDay(Frozen):
    """A day as it was measured."""

    state: str  # a digest of what the day's files were, and of the profile
    profile: DayProfile | None  # None: a day without rows


class KnownDays(Frozen):
    """Days as they were measured, by days since the epoch."""

    measured: str = ""  # a digest of what of a day is measured, and by which code
    days: dict[int, KnownDay] = {}


def measure_log(
    event_log: EventLog, plan: SnapshotPlan, days: range, scratch: Path, kept_in: Path | None = None
) -> tuple[DayProfile, ...]:
    """Return the profiles of some days, of rows known before as_of.

    Args:
        event_log: The log.
        plan: The recipe's, for as_of, action types and categories.
        days: Which, since the epoch.
        scratch: Existing folder, for what does not fit into memory.
        kept_in: Folder of profiles that need not be measured again while their files, and the
            recipe's features, stay as they are; new ones are added. None keeps none.

    Raises:
        DataContractError: a file breaks the contract; the message names it.
        TransientStorageError: the storage failed, or a file was written while it was read.
    """
    from validation.data_gate.days.measure import measure_days, open_engine

    asked = [event_log.uri, plan.features.model_dump(mode="json"), plan.passed_over]
    known, measured, states = KnownDays(), digest_of([*asked, project_digest()]), dict[int, str]()
    with unchanged_meanwhile(event_log, files_of_days(event_log, days)):
        if kept_in is not None:
            known, states = _read_known(kept_in / PROFILES_FILE), _states(event_log, plan, days)
        kept = dict(known.days) if known.measured == measured else {}
        profiles = {
            day: kept[day].profile
            for day, files in states.items()
            if day in kept and kept[day] == _known_day(files, kept[day].profile)
        }
        log.info("of %d days of the event log, %d were measured before", len(days), len(profiles))
        with open_engine(str(scratch)) as engine:
            has_users = False
            for part in parts_of(event_log, [day for day in days if day not in profiles]):
                rows = rows_of(event_log, plan, part, with_users=not has_users)
                has_users = True
                found = measure_days(engine, rows, part.start, part.stop, categories_of(plan))
                profiles |= {each.day: each for each in found}
    # Not before it is sure that these are the numbers of the files that were listed.
    if kept_in is not None:
        kept |= {day: _known_day(files, profiles.get(day)) for day, files in states.items()}
        newest = KnownDays(measured=measured, days=dict(sorted(kept.items())[-MOST_DAYS:]))
        try:
            kept_in.mkdir(parents=True, exist_ok=True)
            write_whole(kept_in / PROFILES_FILE, newest.model_dump_json().encode())
        except OSError as error:
            log.warning(
                "the days' profiles are not kept in %s: %s; make room there", kept_in, error
            )
    return tuple(each for _, each in sorted(profiles.items()) if each is not None)


def _known_day(files: str, profile: DayProfile | None) -> KnownDay:
    """Return a day with a seal: the gate trusts its numbers, and a disk may spoil a digit."""
    return KnownDay(state=digest_of([files, profile and profile.fingerprint()]), profile=profile)


def _read_known(path: Path) -> KnownDays:
    if path.is_file():
        try:
            return KnownDays.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            log.warning("%s is damaged (%s); the days are measured again", path, error)
    return KnownDays()


def _states(event_log: EventLog, plan: SnapshotPlan, days: range) -> dict[int, str]:
    """Return a digest of the files that the profile of each day comes from.

    A day has none where these may come to hold more rows. Their times of writing and footers tell
    whether they are the same.
    """
    files, (_, root) = files_of_days(event_log, days), open_filesystem(event_log.uri)
    found = list_files(event_log, files, plan.as_of_ms).files
    listed = {f"{root}/{each.path}": each for each in found}
    users = {listed[f.path]: _earliest_ms(event_log, f) for f in files if f.day is None}
    events = [((f.day - EPOCH).days, listed[f.path]) for f in files if f.day is not None]
    states = {}
    for day in days:
        own = [each for number, each in events if number in (day - 1, day)]
        if all(f.num_rows is not None and f.num_rows == f.num_known for f in own):
            own += [each for each, earliest in users.items() if earliest < (day + 1) * DAY_MS]
            told = [each.model_dump(mode="json", exclude={"num_known"}) for each in own]
            states[day] = digest_of(told)
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
        rows = read_events(event_log, (file,), wanted)
        for name in extra:
            index = rows.schema.get_field_index(name)
            rows = rows.set_column(index, name, rows[name].cast(pa.string()))
        yield rows


def _users(event_log: EventLog, plan: SnapshotPlan) -> Iterator[pa.Table]:
    for file in event_log.files_of("users"):
        rows, _ = read_rows(event_log, [file], Before("as_of", plan.as_of_ms))
        if len(rows):
            vectors = to_list_column(embedding_matrix(file.path, rows))
            kept = rows.select(["user_id", "as_of", "state"])
            yield kept.append_column("embedding", vectors)
