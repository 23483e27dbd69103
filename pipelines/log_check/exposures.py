"""Second pass: a day's impressions are read once, checked, counted and joined with the actions.

    <scratch>/requests-<day>/{request,user,first,size}.bin   the day's requests
    <scratch>/impressions-<day>/own_pin.bin                  the day's pins
    <scratch>/near-<actions' day>/{row,before,after}.bin     for actions without a request: how far
        the nearest impression of the same user and pin lies before and after them, in ms
    <scratch>/pairs-<actions' day>/row.bin    actions whose request showed their pin

The rule for labels is the kernel's: an action that names its request counts for that request alone,
one that names none for every impression of the pin to the user within the label window. Where a day
has more rows than fit into memory, the day is read once for each part of its users.
"""

from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.contracts.hashing import finalise, mix
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.event_log.event_index import EventIndex
from pipelines.event_log.rules import Finding
from pipelines.log_check import scratch
from pipelines.log_check.categories import Counts
from pipelines.log_check.events import Actions, DayTask, folder_of, load_actions
from pipelines.log_check.found import HOURS, SHIFT_HOURS, Exposures, count_times
from pipelines.log_check.reading import (
    Collector,
    day_number,
    distinct,
    hash_texts,
    numbers,
    read_checked,
    usable,
)

COLUMNS = ("request_id", "user_id", "pin_id", "impressed_at", "known_at")
FAR_MS = np.iinfo(np.int64).max // 4
"""Stands for "no impression on this side"."""


@dataclass(frozen=True)
class Shown:
    """A day's impressions of some users, as numbers."""

    request: np.ndarray
    user: np.ndarray
    pin: np.ndarray
    at: np.ndarray


@dataclass
class ExposuresFound:
    """What one day's impressions, or a part of them, come to."""

    day: date
    exposures: Exposures = field(default_factory=Exposures)
    findings: list[Finding] = field(default_factory=list)
    unlisted: Counts = field(default_factory=dict)


def read_impressions(task: DayTask) -> ExposuresFound:
    """Read, check, count and join one day's impressions, or those of a part of the users."""
    found, collector = ExposuresFound(task.day), Collector()
    shown = _read(task, found.exposures, collector)
    if task.part == 0:
        found.findings = list(collector.found.values())
        found.unlisted = collector.unlisted
    own_pin = distinct(shown.pin)
    scratch.append(_own_folder(task, "impressions", task.day), {"own_pin": own_pin})
    _save_requests(task, shown)
    pairs = pair_keys(shown.request, shown.pin)
    in_order = np.sort(pairs)
    found.exposures.duplicates = int((in_order[1:] == in_order[:-1]).sum())
    _label(task, shown, pairs, found.exposures)
    _find_pairs(task, in_order)
    return found


def pair_keys(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return 64 bits for each pair of whole numbers."""
    return finalise(one.astype(np.uint64, copy=False) ^ mix(other, 1))


def _read(task: DayTask, exposures: Exposures, collector: Collector) -> Shown:
    kinds = (np.uint64, np.int64, np.int64, np.int64)
    parts: list[list[np.ndarray]] = [[np.zeros(0, kind)] for kind in kinds]
    start_ms = day_number(task.day) * DAY_MS
    for file in task.files:
        for _, rows in read_checked(task.event_log, file, task.wanted, collector):
            is_usable = usable(rows, COLUMNS)
            if is_usable is None:
                exposures.rows += len(rows) if task.part == 0 else 0
                continue
            if task.num_parts > 1:
                part = mix(numbers(rows, "user_id")) % np.uint64(task.num_parts)
                is_usable &= part == task.part
            kept = rows if is_usable.all() else rows.filter(pa.array(is_usable))
            at = numbers(kept, "impressed_at")
            _count(kept, at, start_ms, exposures)
            ids = numbers(kept, "user_id"), numbers(kept, "pin_id")
            for column, values in zip(
                parts, (hash_texts(kept["request_id"]), *ids, at), strict=True
            ):
                column.append(values)
    joined = []
    for column in parts:
        joined.append(np.concatenate(column))
        column.clear()
    return Shown(*joined)


def _count(rows: pa.Table, at: np.ndarray, start_ms: int, exposures: Exposures) -> None:
    exposures.rows += len(rows)
    if "is_exploration" in rows.schema.names:
        exposures.exploration += int(np.count_nonzero(rows["is_exploration"].to_numpy() == 1))
    exposures.per_hour = exposures.per_hour + _by_hour(at, start_ms)
    count_times(exposures, at, numbers(rows, "known_at"))


def _by_hour(at: np.ndarray, start_ms: int) -> np.ndarray:
    return np.bincount(np.clip((at - start_ms) // HOUR_MS, 0, HOURS - 1), minlength=HOURS)


def _save_requests(task: DayTask, shown: Shown) -> None:
    """Keep the day's requests, sorted: whose they are, when they began, how many candidates."""
    if len(shown.request) == 0:
        return
    # A request's rows mostly stand together, so that far fewer runs than rows are sorted.
    is_start = np.ones(len(shown.request), dtype=bool)
    is_start[1:] = (np.diff(shown.request) != 0) | (np.diff(shown.user) != 0)
    starts = np.flatnonzero(is_start)
    request, user = shown.request[starts], shown.user[starts]
    first = np.minimum.reduceat(shown.at, starts)
    size = np.diff(starts, append=len(shown.request))
    order = np.lexsort((user, request))
    request, user, first, size = request[order], user[order], first[order], size[order]
    is_new = np.ones(len(request), dtype=bool)
    is_new[1:] = (request[1:] != request[:-1]) | (user[1:] != user[:-1])
    starts = np.flatnonzero(is_new)
    columns = {
        "request": request[starts],
        "user": user[starts],
        "first": np.minimum.reduceat(first, starts),
        "size": np.add.reduceat(size, starts).astype(np.int32),
    }
    scratch.append(_own_folder(task, "requests", task.day), columns)


def _own_folder(task: DayTask, kind: str, day: date) -> Path:
    """Return where this task alone writes what it has found for a day."""
    return folder_of(task.folder, kind, day) / f"{task.day}-{task.part}"


def _label(task: DayTask, shown: Shown, pairs: np.ndarray, exposures: Exposures) -> None:
    """Count the impressions that got each type of action, and look how near actions are."""
    start_ms = day_number(task.day) * DAY_MS
    window_days = -(-task.label_window_ms // DAY_MS)
    users = pair_keys(shown.user, shown.pin)
    labelled: dict[str, np.ndarray] = {}
    for shift in range(-1, window_days + 1):
        day = task.day + timedelta(days=shift)
        actions = _of_part(task, load_actions(task.folder, day))
        if len(actions.acted) == 0:
            continue
        named, unnamed = actions.where(actions.is_named), actions.where(~actions.is_named)
        if shift <= 1:
            _measure_distances(task, day, users, shown.at, unnamed)
        if shift < 0:
            continue
        for keys, answers, own in (
            (pairs, named, pair_keys(named.request, named.pin)),
            (users, unnamed, pair_keys(unnamed.user, unnamed.pin)),
        ):
            for name, rows in _answered(keys, shown.at, answers, own, task.label_window_ms):
                labelled.setdefault(name, np.zeros(len(shown.at), dtype=bool))[rows] = True
    got_any = np.zeros(len(shown.at), dtype=bool)
    for name, marks in labelled.items():
        exposures.labelled[name] = int(marks.sum())
        got_any |= marks
    exposures.labelled_per_hour = _by_hour(shown.at[got_any], start_ms)


def _of_part(task: DayTask, actions: Actions) -> Actions:
    if task.num_parts == 1:
        return actions
    return actions.where(mix(actions.user) % np.uint64(task.num_parts) == task.part)


def _answered(
    keys: np.ndarray, at: np.ndarray, answers: Actions, own: np.ndarray, window_ms: int
) -> list[tuple[str, np.ndarray]]:
    """Return, by action type, the impressions that an action of their key follows in the window."""
    rows = _rows_among(keys, own)
    found = []
    for code, name in enumerate(answers.types):
        is_type = answers.type_code == code
        if len(rows) and is_type.any():
            index = EventIndex(own[is_type].view(np.int64), answers.acted[is_type])
            start = at[rows]
            num = index.count(keys[rows].view(np.int64), start, start + window_ms)
            found.append((name, rows[num > 0]))
    return found


def _rows_among(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the places of the keys that are among the wanted ones."""
    among = distinct(wanted)
    if len(among) == 0:
        return np.zeros(0, dtype=np.int64)
    # Most keys are not among them. A table of 22 bits of the wanted ones tells that in one look.
    bits = np.uint64((1 << 22) - 1)
    is_marked = np.zeros(1 << 22, dtype=bool)
    is_marked[among & bits] = True
    rows = np.flatnonzero(is_marked[keys & bits])
    place = np.minimum(np.searchsorted(among, keys[rows]), len(among) - 1)
    return rows[among[place] == keys[rows]]


def _measure_distances(
    task: DayTask, day: date, keys: np.ndarray, at: np.ndarray, unnamed: Actions
) -> None:
    """Keep how far each action without a request is from the day's impressions of its pin."""
    if len(unnamed.acted) == 0:
        return
    own = pair_keys(unnamed.user, unnamed.pin)
    rows = _rows_among(keys, own)
    if len(rows) == 0:
        return
    index = EventIndex(keys[rows].view(np.int64), at[rows])
    times, own = at[rows][index.order], own.view(np.int64)
    first = index.first(own)
    end = index.position(own, np.full(len(own), FAR_MS))
    place = index.position(own, unnamed.acted + 1)  # an impression of the same instant is before
    before = np.full(len(own), FAR_MS)
    after = np.full(len(own), FAR_MS)
    has_before, has_after = place > first, place < end
    before[has_before] = (unnamed.acted - times[np.maximum(place - 1, 0)])[has_before]
    after[has_after] = (times[np.minimum(place, len(times) - 1)] - unnamed.acted)[has_after]
    is_near = np.minimum(before, after) < SHIFT_HOURS * HOUR_MS
    columns = {"row": unnamed.row, "before": before, "after": after}
    near = {name: values[is_near] for name, values in columns.items()}
    scratch.append(_own_folder(task, "near", day), near)


def _find_pairs(task: DayTask, pairs_in_order: np.ndarray) -> None:
    """Keep which actions of the day before, the day and the days after have their impression."""
    window_days = -(-task.label_window_ms // DAY_MS)
    for shift in range(-1, window_days + 1):
        day = task.day + timedelta(days=shift)
        actions = _of_part(task, load_actions(task.folder, day))
        named = actions.where(actions.is_named)
        if len(named.acted) == 0 or len(pairs_in_order) == 0:
            continue
        own = pair_keys(named.request, named.pin)
        place = np.minimum(np.searchsorted(pairs_in_order, own), len(pairs_in_order) - 1)
        rows = named.row[pairs_in_order[place] == own]
        scratch.append(_own_folder(task, "pairs", day), {"row": rows})
