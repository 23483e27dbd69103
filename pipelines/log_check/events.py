"""First pass: a day's actions are read once, checked, counted and put on the disk as numbers.

    <scratch>/actions-<day>/{type,request,is_named,user,pin,acted}.bin, names.json (action types)
    <scratch>/actions-<day>/{file,file_row}.bin                where each of them stands in the log
    <scratch>/actions-<day>/{own_user,own_count,own_pin}.bin   the day's users and pins

The later passes read these columns and not the log. Not for what an action was an answer to
(`exposures`, `matching`).
"""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.event_log.log_files import EventLog, LogFile
from pipelines.event_log.rules import Finding
from pipelines.log_check import scratch
from pipelines.log_check.found import Deeds, count_times
from pipelines.log_check.reading import (
    Collector,
    Wanted,
    hash_texts,
    numbers,
    read_checked,
    usable,
)

COLUMNS = ("user_id", "pin_id", "action_type", "acted_at", "known_at")


@dataclass(frozen=True)
class DayTask:
    """One day of impressions or actions for one worker."""

    event_log: EventLog
    files: tuple[LogFile, ...]
    day: date
    wanted: Wanted
    folder: Path
    label_window_ms: int
    part: int = 0  # of the users, where a day is too large for memory
    num_parts: int = 1


@dataclass
class DeedsFound:
    """What one day's actions come to."""

    day: date
    deeds: Deeds = field(default_factory=Deeds)
    findings: list[Finding] = field(default_factory=list)


def folder_of(scratch_folder: Path, kind: str, day: date) -> Path:
    """Return where a day's columns lie."""
    return scratch_folder / f"{kind}-{day}"


def read_actions(task: DayTask) -> DeedsFound:
    """Read, check and count one day's actions."""
    found, collector = DeedsFound(task.day), Collector()
    folder = folder_of(task.folder, "actions", task.day)
    types: dict[str, int] = {}
    users, pins = [], []
    for number, file in enumerate(task.files):
        for offset, rows in read_checked(task.event_log, file, task.wanted, collector):
            is_usable = usable(rows, COLUMNS)
            if is_usable is None:
                found.deeds.rows += len(rows)
                continue
            kept_rows = np.flatnonzero(is_usable)
            kept = rows if is_usable.all() else rows.filter(pa.array(is_usable))
            _count(kept, found.deeds)
            place = {"file": np.full(len(kept), number), "file_row": offset + kept_rows}
            place = {name: values.astype(np.int32) for name, values in place.items()}
            scratch.append(folder, _columns(kept, types) | place)
            users.append(np.unique(numbers(kept, "user_id"), return_counts=True))
            pins.append(np.unique(numbers(kept, "pin_id"), return_counts=True))
    scratch.write_names(folder, list(types))
    own_user, own_count = scratch.count_by_value(users)
    own_pin, _ = scratch.count_by_value(pins)
    scratch.append(folder, {"own_user": own_user, "own_count": own_count, "own_pin": own_pin})
    found.findings = list(collector.found.values())
    return found


def _count(rows: pa.Table, deeds: Deeds) -> None:
    deeds.rows += len(rows)
    for entry in pc.value_counts(rows["action_type"].cast(pa.string())).to_pylist():
        deeds.by_type[entry["values"]] = deeds.by_type.get(entry["values"], 0) + entry["counts"]
    count_times(deeds, numbers(rows, "acted_at"), numbers(rows, "known_at"))


def _columns(rows: pa.Table, types: dict[str, int]) -> dict[str, scratch.Column]:
    """Return a batch's columns as numbers; new action types get the next numbers."""
    texts = rows["action_type"].cast(pa.string())
    for name in pc.unique(texts).to_pylist():
        types.setdefault(name, len(types))
    codes = pc.index_in(texts, value_set=pa.array(list(types), pa.string()))
    if "request_id" in rows.schema.names:
        request, is_named = hash_texts(rows["request_id"]), rows["request_id"].is_valid()
    else:
        request, is_named = np.zeros(len(rows), np.uint64), np.zeros(len(rows), bool)
    return {
        "type": np.asarray(codes).astype(np.int16),
        "request": request,
        "is_named": np.asarray(is_named).astype(np.uint8),
        "user": numbers(rows, "user_id"),
        "pin": numbers(rows, "pin_id"),
        "acted": numbers(rows, "acted_at"),
    }


@dataclass(frozen=True)
class Actions:
    """A day's actions of some users, as numbers."""

    type_code: np.ndarray
    request: np.ndarray  # hash of the request's name
    is_named: np.ndarray
    user: np.ndarray
    pin: np.ndarray
    acted: np.ndarray
    row: np.ndarray  # of the day's actions
    types: tuple[str, ...]

    def where(self, mask: np.ndarray) -> "Actions":
        """Return some of the actions."""
        picked = {name: values[mask] for name, values in vars(self).items() if name != "types"}
        return Actions(**picked, types=self.types)


def place_in_log(scratch_folder: Path, day: date, row: int) -> tuple[int, int]:
    """Return in which of a day's files one of its actions stands, and in which row of the file."""
    folder = folder_of(scratch_folder, "actions", day)
    file, file_row = (scratch.load(folder, name, np.int32)[row] for name in ("file", "file_row"))
    return int(file), int(file_row)


def load_actions(scratch_folder: Path, day: date) -> Actions:
    """Return a day's actions as `read_actions` left them; none where the day has none."""
    folder = folder_of(scratch_folder, "actions", day)
    acted = scratch.load(folder, "acted", np.int64)
    return Actions(
        type_code=scratch.load(folder, "type", np.int16),
        request=scratch.load(folder, "request", np.uint64),
        is_named=scratch.load(folder, "is_named", np.uint8).astype(bool),
        user=scratch.load(folder, "user", np.int64),
        pin=scratch.load(folder, "pin", np.int64),
        acted=acted,
        row=np.arange(len(acted)),
        types=tuple(scratch.read_names(folder)),
    )
