"""Where packs lie, and which files of an event log are in them as they are now.

    <workspace>/days/<what is read and how>/<table>-<checksum>.arrow

The folder's name is a digest of all that a pack depends on besides the log's files: the log's URI,
the recipe's features, the number of shards, and the code; and of the workspace. A file is the same
where its path, size and time of writing are. Packs that nobody used for UNUSED_DAYS are removed.
Not for rows.
"""

import contextlib
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from pipelines.contracts.base import digest_of
from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.files import sweep_unfinished
from pipelines.event_log.event_index import Bools
from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.settings import Settings
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.reuse.packs import (
    DamagedPackError,
    Header,
    Pack,
    PackedFile,
    read_header,
    write_pack,
)
from pipelines.storage import is_local, join, local_path, open_filesystem

log = logging.getLogger(__name__)

UNUSED_DAYS = 45
"""Three cycles; packs of recipes, code and days that are no longer read go after as long."""
BYTES_PER_LOGGED = 16
"""So many bytes for each byte of the log are left free for rows that wait and for the snapshot."""
SETTLED_S = 10.0
"""A file that was written a moment ago may be written again without a later time of writing."""
NOWHERE = "off"
_OUR_FOLDER = re.compile(r"[0-9a-f]{16}")
_OUR_FILE = re.compile(
    r"(impressions|actions)-[0-9a-f]{8}([0-9a-f]{24})?\.arrow|profiles\.(txt|json)"
)
"""Whoever names a folder that holds other things keeps them. Older packs have longer names."""
NOT_KEPT = (
    "what is read of the event log's days is not kept in %s: %s; expected a folder on a disk with "
    "room; free some, or set HOMEFEED_SNAPSHOT_DAYS to another folder or to off; the snapshot is "
    "built all the same"
)
"""A warning about a folder and an error."""
_EPOCH = date(1970, 1, 1).toordinal()
_NUM_NAMED = 3


@dataclass(frozen=True)
class PackUse:
    """A pack, and which of its files are wanted and as they were."""

    path: Path
    files: tuple[LogFile, ...]  # those that are used
    is_used: Bools  # [files of the pack]


def day_number(day: date) -> int:
    """Return a day as days since the epoch."""
    return day.toordinal() - _EPOCH


def folder_of_days(workspace_uri: str) -> Path | None:
    """Return where packs are kept; None where they are not: an object store is no place to map."""
    told = Settings().snapshot_days
    if told == NOWHERE or not (told or is_local(workspace_uri)):
        return None
    return Path(told) if told else local_path(join(workspace_uri, "days"))


class Shelf:
    """The packs of one log and recipe."""

    def __init__(self, folder: Path, event_log: EventLog, listed_at: float, as_of_ms: int) -> None:
        """Look at the packs that are there.

        Args:
            folder: Where they are; it is made.
            event_log: The files as they are.
            listed_at: When these were listed, or a moment before, in seconds since the epoch.
            as_of_ms: No row that was known later is used.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._listed_at, self._as_of_ms = folder, listed_at, as_of_ms
        self._filesystem, self._root = open_filesystem(event_log.uri)
        self._room_bytes = BYTES_PER_LOGGED * sum(file.num_bytes for file in event_log.files)
        with contextlib.suppress(OSError):
            sweep_unfinished(folder)
        self._packs = dict(_headers(folder))
        self._is_given_up = False

    def find(self, files: Iterable[LogFile]) -> list[PackUse]:
        """Return the packs that hold some of the files, each file once."""
        wanted = {(self._path_of(file), _state_of(file)): file for file in files}
        self._tell(wanted)
        uses = []
        for path, header in self._packs.items():
            keys = [(each.path, each.state) for each in header.files]
            is_known = [each.latest_known < self._as_of_ms for each in header.files]
            used = [
                wanted.pop(k, None) if known else None
                for k, known in zip(keys, is_known, strict=True)
            ]
            found = tuple(file for file in used if file is not None)
            if found:
                uses.append(PackUse(path, found, np.array([file is not None for file in used])))
        return uses

    def may_keep(self, file: LogFile) -> bool:
        """Return whether a change of the file would be seen in its time of writing."""
        if self._is_given_up:
            return False
        written = file.modified_at
        return written is not None and written.timestamp() < self._listed_at - SETTLED_S

    def header_of(self, files: Sequence[LogFile], latest_known: Sequence[int]) -> Header:
        """Return the header of a pack of some files of one table."""
        packed = []
        for file, latest in zip(files, latest_known, strict=True):
            assert file.day is not None, "only files of events are packed"
            day = day_number(file.day)
            packed.append(PackedFile(self._path_of(file), _state_of(file), day, latest))
        return Header(files[0].table, tuple(packed))

    def keep(self, pack: Pack) -> Path:
        """Write a pack and return where it lies.

        Raises:
            OSError: the folder cannot be written, or the disk has not room enough for packs beside
                the snapshot, which may lie on the same one.
        """
        needed = pack.rows.nbytes + self._room_bytes
        if shutil.disk_usage(self._folder).free < needed:
            why = f"less than the {needed >> 20} MiB are free that a snapshot may need besides"
            raise OSError(errno.ENOSPC, why, str(self._folder))
        return write_pack(self._folder, pack)

    def is_as_listed(self, files: Sequence[LogFile]) -> bool:
        """Return whether files that were read are still the ones that were listed."""
        found = self._filesystem.get_file_info([file.path for file in files])
        listed = [(file.num_bytes, file.modified_at) for file in files]
        return [(each.size, each.mtime) for each in found] == listed

    def give_up(self, error: Exception) -> None:
        """Keep nothing more: the disk is full, or it cannot be used."""
        if not self._is_given_up:
            log.warning(NOT_KEPT, self._folder, error)
        self._is_given_up = True

    def drop(self, path: Path, why: DamagedPackError) -> None:
        """Remove a damaged pack."""
        log.warning("%s; it is removed, and the event log is read instead", why)
        with contextlib.suppress(OSError):
            path.unlink()

    def _path_of(self, file: LogFile) -> str:
        return file.path.removeprefix(self._root).lstrip("/")

    def _tell(self, wanted: dict[tuple[str, str], LogFile]) -> None:
        """Log how much is known, and name files that were written since they were last read."""
        known = {
            (each.path, each.state) for header in self._packs.values() for each in header.files
        }
        if not known:
            return
        read_before = {path for path, _ in known}
        changed = sorted(
            path for path, state in wanted if path in read_before and (path, state) not in known
        )
        num_new = sum(path not in read_before for path, _ in wanted)
        log.info(
            "of %d files of the event log, %d are as an earlier snapshot read them, %d are new and "
            "%d were written again since%s",
            len(wanted),
            len(wanted) - num_new - len(changed),
            num_new,
            len(changed),
            f": {', '.join(changed[:_NUM_NAMED])}" if changed else "",
        )


def open_shelf(
    workspace_uri: str, event_log: EventLog, plan: SnapshotPlan, listed_at: float
) -> Shelf | None:
    """Return the packs of a snapshot's recipe and log; None where none are kept.

    A folder that cannot be used is no reason to build nothing: the log says so.
    """
    folder = folder_of_days(workspace_uri)
    if folder is None:
        return None
    try:
        shelf = Shelf(
            folder / _name_of(workspace_uri, event_log, plan), event_log, listed_at, plan.as_of_ms
        )
        _remove_unused(folder, listed_at)
    except OSError as error:
        log.warning(NOT_KEPT, folder, error)
        return None
    return shelf


def _name_of(workspace_uri: str, event_log: EventLog, plan: SnapshotPlan) -> str:
    read = {
        # A cycle that is rebuilt elsewhere, to see whether it comes out the same, reads the log.
        "workspace": workspace_uri,
        "log": event_log.uri,
        "features": plan.features.model_dump(mode="json"),
        "num_shards": plan.config.num_shards,
        "passed_over": plan.passed_over,
        "code": project_digest(),
    }
    return digest_of(read)[:16]


def _headers(folder: Path) -> Iterable[tuple[Path, Header]]:
    for path in sorted(folder.glob("*-*.arrow")):
        try:
            yield path, read_header(path)
        except DamagedPackError as error:
            log.warning("%s; it is removed", error)
            with contextlib.suppress(OSError):
                path.unlink()


def _state_of(file: LogFile) -> str:
    written = file.modified_at or datetime.fromtimestamp(0, UTC)
    return f"{file.num_bytes} {written.isoformat()}"


def touch(path: Path) -> None:
    """Note that a pack is in use."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _remove_unused(folder: Path, now: float) -> None:
    """Remove the packs and profiles that nobody used for long, and folders without any."""
    before = now - UNUSED_DAYS * 86_400
    ours = [each for each in folder.iterdir() if _OUR_FOLDER.fullmatch(each.name)]
    for path in (path for each in ours if each.is_dir() for path in each.iterdir()):
        with contextlib.suppress(OSError):
            if _OUR_FILE.fullmatch(path.name) and path.stat().st_mtime < before:
                path.unlink()
    for each in ours:
        with contextlib.suppress(OSError):
            if each.stat().st_mtime < before:
                each.rmdir()  # which refuses a folder that holds something
