"""Profiles of days that were measured before, for as long as the files they came from are the same.

    <workspace>/days/<what is measured>/profiles.txt    a digest of the rest; then a KnownProfiles

A day's profile depends on the events of the day and of the day before, and on users' rows up to its
end; on nothing else, whichever days are measured with it. It is kept where all rows of these files
were known before as_of, so that a later cycle would measure the same. Tested in
tests/pipelines/log_days/test_known_days.py.
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.files import write_whole
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.listing import KNOWN_COLUMNS, ListedFile, list_files
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.storage import is_local, join, local_path, open_filesystem

log = logging.getLogger(__name__)

MOST_DAYS = 400
SETTLED_S = 60.0
"""A file that was written a moment ago may be written again without a later time of writing."""
UNUSED_DAYS = 45
"""Three cycles; profiles of recipes, code and days that nobody asks for any more go after that."""


class KnownDay(Frozen):
    """A day as it was measured."""

    state: str  # a digest of what the day's files were
    profile: DayProfile | None  # None: a day without rows


class KnownProfiles(Frozen):
    """Known days, by days since the epoch."""

    days: dict[int, KnownDay]


@dataclass(frozen=True)
class KnownDays:
    """Profiles by day and by what the day's files were."""

    path: Path | None = None
    state_of: Callable[[int], str | None] = lambda day: None
    _found: dict[int, KnownDay] = field(default_factory=dict)

    def split(
        self, days: Iterable[int]
    ) -> tuple[dict[int, DayProfile | None], list[tuple[int, int]]]:
        """Return the profiles that are known, and the runs of other days, half-open."""
        known: dict[int, DayProfile | None] = {}
        runs: list[tuple[int, int]] = []
        for day in days:
            kept = self._found.get(day)
            if kept is not None and kept.state == self.state_of(day):
                known[day] = kept.profile
            elif runs and runs[-1][1] == day:
                runs[-1] = (runs[-1][0], day + 1)
            else:
                runs.append((day, day + 1))
        return known, runs

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
            if (state := self.state_of(day)) is not None:
                self._found[day] = KnownDay(state=state, profile=profiles.get(day))
        newest = dict(sorted(self._found.items())[-MOST_DAYS:])
        text = KnownProfiles(days=newest).model_dump_json().encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, f"{hashlib.sha256(text).hexdigest()}\n".encode() + text)
            for other in self.path.parent.parent.glob("*/profiles.txt"):
                with contextlib.suppress(OSError):
                    if other.stat().st_mtime < time.time() - UNUSED_DAYS * 86_400:
                        other.unlink()
                        other.parent.rmdir()  # which refuses a folder that holds something
        except OSError as error:
            log.warning(
                "profiles of the event log's days are not kept in %s: %s; expected a folder on a "
                "disk with room; free some; the days are judged all the same",
                self.path.parent,
                error,
            )


def day_number(day: date) -> int:
    """Return a day as days since the epoch."""
    return (day - date(1970, 1, 1)).days


def folder_of_days(workspace_uri: str) -> Path | None:
    """Return where profiles are kept; None where they are not, as beside an object store."""
    return local_path(join(workspace_uri, "days")) if is_local(workspace_uri) else None


def open_known_days(
    workspace_uri: str, event_log: EventLog, plan: SnapshotPlan, first_day: int, end_day: int
) -> KnownDays:
    """Return what is known of a log's days.

    Args:
        workspace_uri: Where profiles are kept, as the settings say.
        event_log: The log.
        plan: The recipe's action types and categories, and as_of.
        first_day: The first day that is asked for, since the epoch.
        end_day: The first one that is not.

    Raises:
        TransientStorageError: the storage failed.
    """
    folder = folder_of_days(workspace_uri)
    if folder is None:
        return KnownDays()
    measured = {
        # A cycle that is rebuilt elsewhere, to see whether it comes out the same, reads the log.
        "workspace": workspace_uri,
        "log": event_log.uri,
        "features": plan.features.model_dump(mode="json"),
        "passed_over": plan.passed_over,
        "code": project_digest(),
    }
    path = folder / digest_of(measured)[:16] / "profiles.txt"
    return KnownDays(path, _states(event_log, plan, first_day, end_day), _read(path))


def _states(
    event_log: EventLog, plan: SnapshotPlan, first_day: int, end_day: int
) -> Callable[[int], str | None]:
    """Return a function from a day to a digest of the files that its profile comes from.

    The digest is None where these files may still change, or come to hold more rows.
    """
    now, (filesystem, root) = time.time(), open_filesystem(event_log.uri)
    of_day: dict[int, list[LogFile]] = {}
    for file in event_log.files:
        if file.day is not None and first_day - 1 <= (number := day_number(file.day)) < end_day:
            of_day.setdefault(number, []).append(file)
    users = event_log.files_of("users")
    read = [*users, *(file for files in of_day.values() for file in files)]
    listed = {each.path: each for each in list_files(event_log, read, plan.as_of_ms).files}
    begins = [(_earliest_ms(filesystem, file), file) for file in users]

    def found(file: LogFile) -> ListedFile:
        return listed[file.path.removeprefix(root).lstrip("/")]

    def state_of(day: int) -> str | None:
        events = [found(f) for number in (day - 1, day) for f in of_day.get(number, ())]
        others = [found(file) for earliest, file in begins if earliest < (day + 1) * DAY_MS]
        is_known = all(f.num_rows is not None and f.num_rows == f.num_known for f in events)
        is_settled = all(
            f.modified_at is not None and f.modified_at.timestamp() < now - SETTLED_S
            for f in (*events, *others)
        )
        if not (is_known and is_settled):
            return None
        files = [f.model_dump(mode="json", exclude={"num_known"}) for f in (*events, *others)]
        return digest_of(files)

    return state_of


def _earliest_ms(filesystem: pa.fs.FileSystem, file: LogFile) -> int:
    """Return from when on a file of users has rows, as its footer says; 0 where it does not."""
    with contextlib.suppress(pa.ArrowException, OSError, ValueError, TypeError):
        metadata = pq.read_metadata(file.path, filesystem=filesystem)
        column = metadata.schema.names.index(KNOWN_COLUMNS["users"])
        groups = [metadata.row_group(n).column(column) for n in range(metadata.num_row_groups)]
        bounds = [group.statistics for group in groups]
        if all(each is not None and each.has_min_max for each in bounds):
            return min(int(each.min) for each in bounds)
    return 0


def _read(path: Path) -> dict[int, KnownDay]:
    """Return the kept profiles; none where there are none, or where they are damaged."""
    if not path.is_file():
        return {}
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != digest:
            raise ValueError("its digest is another")
        return dict(KnownProfiles.model_validate_json(text).days)
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s); the days are measured again", path, error)
        return {}
