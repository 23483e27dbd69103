"""Profiles of days that were measured before, for as long as the files they came from are the same.

    <workspace>/days/<what is measured>/profiles.txt

The first line is the digest of the others. Each of them has a day since the epoch, a digest of the
day's files, and its profile as JSON.

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

from pipelines.contracts.base import digest_of
from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.files import write_whole
from pipelines.contracts.judged.day_profile import DayProfile
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.listing import KNOWN_COLUMNS, ListedFile, Listing, list_files
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.settings import Settings
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.storage import is_local, join, local_path, open_filesystem

log = logging.getLogger(__name__)

MOST_DAYS = 400
SETTLED_S = 60.0
"""A file that was written a moment ago may be written again without a later time of writing."""
UNUSED_DAYS = 45
"""Three cycles; profiles of recipes, code and days that nobody asks for any more go after that."""
NOWHERE = "off"


@dataclass(frozen=True)
class _Kept:
    """A day's profile, with the text that it has in the file: most days are written as read."""

    state: str  # what the day's files were
    profile: DayProfile | None  # None: a day without rows
    text: str

    @staticmethod
    def of(state: str, profile: DayProfile | None) -> "_Kept":
        return _Kept(state, profile, profile.model_dump_json() if profile else _NO_ROWS)


_NO_ROWS = "null"


@dataclass(frozen=True)
class KnownDays:
    """Profiles by day and by what the day's files were; `None` stands for a day without rows."""

    path: Path | None = None
    state_of: Callable[[int], str | None] = lambda day: None
    _found: dict[int, _Kept] = field(default_factory=dict)

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
            if (state := self.state_of(day)) is None:
                continue
            before, profile = self._found.get(day), profiles.get(day)
            if before is None or (before.state, before.profile) != (state, profile):
                self._found[day] = _Kept.of(state, profile)
        newest = sorted(self._found.items())[-MOST_DAYS:]
        lines = "".join(f"{day} {kept.state} {kept.text}\n" for day, kept in newest).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, f"{hashlib.sha256(lines).hexdigest()}\n".encode() + lines)
            _remove_unused(self.path.parent.parent)
        except OSError as error:
            log.warning(
                "profiles of the event log's days are not kept in %s: %s; expected a folder on a "
                "disk with room; free some, or set HOMEFEED_SNAPSHOT_DAYS to another folder or to "
                "off; the days are judged all the same",
                self.path.parent,
                error,
            )


def _remove_unused(folder: Path) -> None:
    """Remove profiles that nobody used for long, and their folders; nothing else lies in these."""
    for path in folder.glob("*/profiles.txt"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - UNUSED_DAYS * 86_400:
                path.unlink()
                path.parent.rmdir()  # which refuses a folder that holds something


def day_number(day: date) -> int:
    """Return a day as days since the epoch."""
    return (day - date(1970, 1, 1)).days


def folder_of_days(workspace_uri: str) -> Path | None:
    """Return where profiles are kept; None where they are not, as beside an object store."""
    told = Settings().snapshot_days
    if told == NOWHERE or not (told or is_local(workspace_uri)):
        return None
    return Path(told) if told else local_path(join(workspace_uri, "days"))


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
    read = [
        file
        for file in event_log.files
        if file.table == "users"
        or (file.day is not None and first_day - 1 <= day_number(file.day) < end_day)
    ]
    listing = list_files(event_log, read, plan.as_of_ms)
    path = folder / _name_of(workspace_uri, event_log, plan) / "profiles.txt"
    return KnownDays(path, _States(event_log, listing).of, _read(path))


class _States:
    """Says what the files of a day are."""

    def __init__(self, event_log: EventLog, listing: Listing) -> None:
        self._now = time.time()
        filesystem, root = open_filesystem(event_log.uri)
        listed = {each.path: each for each in listing.files}
        self._listed: dict[str, ListedFile | None] = {
            file.path: listed.get(file.path.removeprefix(root).lstrip("/"))
            for file in event_log.files
        }
        self._of_day: dict[int, list[LogFile]] = {}
        for file in event_log.files:
            if file.day is not None:
                self._of_day.setdefault(day_number(file.day), []).append(file)
        self._users = [
            (_earliest_ms(filesystem, file), file) for file in event_log.files_of("users")
        ]

    def of(self, day: int) -> str | None:
        """Return a digest of the files that a day's profile comes from; None where they may change.

        Args:
            day: Days since the epoch.
        """
        events = [*self._of_day.get(day - 1, ()), *self._of_day.get(day, ())]
        users = [file for earliest_ms, file in self._users if earliest_ms < (day + 1) * DAY_MS]
        listed = [self._listed[file.path] for file in (*events, *users)]
        sound = [each for each in listed if each is not None and self._is_settled(each)]
        if len(sound) < len(listed) or not all(map(_is_known, sound[: len(events)])):
            return None
        return digest_of([each.model_dump(mode="json", exclude={"num_known"}) for each in sound])

    def _is_settled(self, file: ListedFile) -> bool:
        written = file.modified_at
        return written is not None and written.timestamp() < self._now - SETTLED_S


def _is_known(file: ListedFile) -> bool:
    """Return whether all of a file's rows were known before as_of."""
    return file.num_rows is not None and file.num_rows == file.num_known


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


def _name_of(workspace_uri: str, event_log: EventLog, plan: SnapshotPlan) -> str:
    measured = {
        # A cycle that is rebuilt elsewhere, to see whether it comes out the same, reads the log.
        "workspace": workspace_uri,
        "log": event_log.uri,
        "features": plan.features.model_dump(mode="json"),
        "passed_over": plan.passed_over,
        "code": project_digest(),
    }
    return digest_of(measured)[:16]


def _read(path: Path) -> dict[int, _Kept]:
    """Return the kept profiles; none where there are none, or where they are damaged."""
    if not path.is_file():
        return {}
    try:
        digest, _, lines = path.read_bytes().partition(b"\n")
        if hashlib.sha256(lines).hexdigest().encode() != digest:
            raise ValueError("its digest is another")
        found = {}
        for line in lines.decode().split("\n")[:-1]:  # other ends of lines stand in texts
            day, state, text = line.split(" ", maxsplit=2)
            profile = None if text == _NO_ROWS else DayProfile.model_validate_json(text)
            found[int(day)] = _Kept(state, profile, text)
        return found
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s); the days are measured again", path, error)
        return {}
