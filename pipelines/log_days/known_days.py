"""Profiles of days that were measured before, for as long as the files they came from are the same.

    <workspace>/days/profiles.txt    a digest of the rest; then a KnownProfiles

A day's profile depends on the events of the day and of the day before, and on users' rows up to its
end; on nothing else, whichever days are measured with it. It is kept where all rows of these files
were known before as_of, so that a later cycle would measure the same. Profiles of another recipe's
features, log or code give way. Tested in tests/pipelines/log_days/test_known_days.py.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.files import write_whole
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.listing import KNOWN_COLUMNS, list_files
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.storage import is_local, join, local_path, open_filesystem

log = logging.getLogger(__name__)

MOST_DAYS = 400


class KnownDay(Frozen):
    """A day as it was measured."""

    state: str  # a digest of what the day's files were
    profile: DayProfile | None  # None: a day without rows


class KnownProfiles(Frozen):
    """Known days, by days since the epoch."""

    measured: str  # a digest of what of a day is measured, and by which code
    days: dict[int, KnownDay]


@dataclass(frozen=True)
class KnownDays:
    """Profiles by day and by what the day's files were."""

    path: Path | None = None  # None: nothing is kept, as beside an object store
    # By day, a digest of the files that its profile comes from; none where more rows may count.
    states: Mapping[int, str] = field(default_factory=dict)
    found: dict[int, KnownDay] = field(default_factory=dict)
    measured: str = ""  # as in KnownProfiles

    def of(self, days: Iterable[int]) -> dict[int, DayProfile | None]:
        """Return the profiles that are known, by day; None of a day without rows."""
        return {
            day: known.profile
            for day in days
            if (known := self.found.get(day)) and known.state == self.states.get(day)
        }

    def save(self, days: Iterable[int], measured: Sequence[DayProfile]) -> None:
        """Keep the profiles of days, beside those that were known.

        Args:
            days: Those that were asked for.
            measured: Their profiles; a day without rows has none.
        """
        if self.path is None:
            return
        profiles = {profile.day: profile for profile in measured}
        for day in days:
            if day in self.states:
                self.found[day] = KnownDay(state=self.states[day], profile=profiles.get(day))
        newest = dict(sorted(self.found.items())[-MOST_DAYS:])
        text = KnownProfiles(measured=self.measured, days=newest).model_dump_json().encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, f"{hashlib.sha256(text).hexdigest()}\n".encode() + text)
        except OSError as error:
            log.warning(
                "profiles of the event log's days are not kept in %s: %s; expected a folder on a "
                "disk with room; free some; the days are judged all the same",
                self.path.parent,
                error,
            )


def open_known_days(
    workspace_uri: str, event_log: EventLog, plan: SnapshotPlan, days: range
) -> KnownDays:
    """Return what is known of a log's days.

    Args:
        workspace_uri: Where profiles are kept, as the settings say.
        event_log: The log.
        plan: The recipe's action types and categories, and as_of.
        days: Those that are asked for, since the epoch.

    Raises:
        TransientStorageError: the storage failed.
    """
    if not is_local(workspace_uri):
        return KnownDays()
    features, passed_over = plan.features.model_dump(mode="json"), plan.passed_over
    measured = digest_of([event_log.uri, features, passed_over, project_digest()])
    path, found = local_path(join(workspace_uri, "days")) / "profiles.txt", dict[int, KnownDay]()
    if path.is_file():
        try:
            digest, _, text = path.read_bytes().partition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() != digest:
                raise ValueError("its digest is another")
            known = KnownProfiles.model_validate_json(text)
            found = dict(known.days) if known.measured == measured else found
        except (OSError, ValueError) as error:
            log.warning("%s is damaged (%s); the days are measured again", path, error)
    return KnownDays(path, _states(event_log, plan, days), found, measured)


def _states(event_log: EventLog, plan: SnapshotPlan, days: range) -> dict[int, str]:
    """Return a digest of the files that the profile of each day comes from.

    A day has none where these may come to hold more rows. Their times of writing and footers tell
    whether they are the same.
    """
    filesystem, root = open_filesystem(event_log.uri)
    of_day: dict[int, list[LogFile]] = {}
    for file in event_log.files:
        if file.day is not None:
            midnight = datetime.combine(file.day, datetime.min.time(), UTC)
            of_day.setdefault(day_number(midnight), []).append(file)
    users = {f: _earliest_ms(filesystem, f) for f in event_log.files_of("users")}
    read = [file for day in range(days.start - 1, days.stop) for file in of_day.get(day, ())]
    found = list_files(event_log, [*users, *read], plan.as_of_ms).files
    listed, states = {f"{root}/{each.path}": each for each in found}, {}
    for day in days:
        events = [listed[f.path] for n in (day - 1, day) for f in of_day.get(n, ())]
        if all(f.num_rows is not None and f.num_rows == f.num_known for f in events):
            end_ms = (day + 1) * DAY_MS
            known = [listed[f.path] for f, earliest in users.items() if earliest < end_ms]
            told = [f.model_dump(mode="json", exclude={"num_known"}) for f in (*events, *known)]
            states[day] = digest_of(told)
    return states


def _earliest_ms(filesystem: pa.fs.FileSystem, file: LogFile) -> int:
    """Return from when on a file of users has rows, as its footer says; 0 where it does not."""
    with contextlib.suppress(pa.ArrowException, OSError, ValueError, TypeError):
        metadata = pq.read_metadata(file.path, filesystem=filesystem)
        column = metadata.schema.names.index(KNOWN_COLUMNS["users"])
        groups = [metadata.row_group(n).column(column) for n in range(metadata.num_row_groups)]
        if all(each.statistics is not None and each.statistics.has_min_max for each in groups):
            return min(int(each.statistics.min) for each in groups)
    return 0


def day_number(instant: datetime) -> int:
    """Return an instant's UTC day, in days since the epoch."""
    return int(instant.timestamp()) // (DAY_MS // 1000)
