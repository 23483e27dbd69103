"""Third pass: the requests of all days in one index, and which request each action answers.

    <scratch>/index-<bucket>/{request,user,first,size}.bin    sorted by request and user

A bucket holds the requests whose hash begins alike, so that memory is bounded however many there
are. Not for labels (`exposures`).
"""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from pipelines.contracts.time import HOUR_MS
from pipelines.log_check import scratch
from pipelines.log_check.events import Actions, folder_of, load_actions
from pipelines.log_check.exposures import FAR_MS
from pipelines.log_check.found import SHIFT_HOURS, Deeds
from pipelines.log_check.reading import distinct

REQUESTS_PER_BUCKET = 8_000_000
MAX_CANDIDATES = 1000
"""Larger requests are counted as if they had as many."""


@dataclass(frozen=True)
class BucketTask:
    """The requests of one bucket for one worker."""

    folder: Path
    days: tuple[date, ...]
    bucket: int
    num_buckets: int


@dataclass
class BucketFound:
    """What the requests of one bucket come to."""

    num_requests: int
    num_candidates: np.ndarray  # requests by their number of candidates
    of_two_users: list[tuple[int, int, int]] = field(default_factory=list)  # request, users
    num_of_two_users: int = 0


@dataclass(frozen=True)
class MatchTask:
    """A day's actions for one worker."""

    folder: Path
    day: date
    num_buckets: int
    is_in_span: bool  # the log has impressions before and after, or on, this day


@dataclass(frozen=True)
class Early:
    """An action before the request that it names."""

    day: date
    row: int  # of the day's actions
    pin_id: int
    acted_at: int
    impressed_at: int


@dataclass
class Matched:
    """What a day's actions are answers to."""

    day: date
    deeds: Deeds
    early: Early | None = None


def _bucket_of(requests: np.ndarray, num_buckets: int) -> np.ndarray:
    return requests % np.uint64(num_buckets)


def make_index(task: BucketTask) -> BucketFound:
    """Write the index of one bucket; count its requests."""
    parts: dict[str, list[np.ndarray]] = {}
    kinds: dict[str, type[np.generic]] = {
        "request": np.uint64,
        "user": np.int64,
        "first": np.int64,
        "size": np.int32,
    }
    for day in task.days:
        folder = folder_of(task.folder, "requests", day)
        own = _bucket_of(scratch.load_parts(folder, "request", np.uint64), task.num_buckets)
        for name, kind in kinds.items():
            column = scratch.load_parts(folder, name, kind)
            parts.setdefault(name, []).append(np.asarray(column[own == task.bucket]))
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    order = np.lexsort((joined["user"], joined["request"]))
    joined = {name: values[order] for name, values in joined.items()}
    request, user = joined["request"], joined["user"]
    if len(request) == 0:
        return BucketFound(0, np.zeros(MAX_CANDIDATES + 1, dtype=np.int64))
    is_new = np.ones(len(request), dtype=bool)
    is_new[1:] = (request[1:] != request[:-1]) | (user[1:] != user[:-1])
    starts = np.flatnonzero(is_new)
    request, user = request[starts], user[starts]
    size = np.add.reduceat(joined["size"], starts)
    columns = {
        "request": request,
        "user": user,
        "first": np.minimum.reduceat(joined["first"], starts),
    }
    scratch.append(task.folder / f"index-{task.bucket}", columns)
    twice = np.flatnonzero(request[1:] == request[:-1])
    return BucketFound(
        num_requests=len(request) - len(twice),
        num_candidates=np.bincount(np.minimum(size, MAX_CANDIDATES), minlength=MAX_CANDIDATES + 1),
        of_two_users=[(int(request[n]), int(user[n]), int(user[n + 1])) for n in twice[:3]],
        num_of_two_users=len(twice),
    )


def match_actions(task: MatchTask) -> Matched:
    """Say of a day's actions whether their request is there, and whether they came after it."""
    actions, found = load_actions(task.folder, task.day), Matched(task.day, Deeds())
    named = actions.where(actions.is_named)
    found.deeds.named = len(named.acted)
    if task.is_in_span:
        found.deeds.named_in_span = len(named.acted)
        for bucket in range(task.num_buckets):
            own = _bucket_of(named.request, task.num_buckets) == bucket
            _match_bucket(task, named.where(own), bucket, found)
        found.deeds.pair_found = _count_pairs(task)
    _judge_unnamed(task, found.deeds)
    return found


def _match_bucket(task: MatchTask, named: Actions, bucket: int, found: Matched) -> None:
    folder = task.folder / f"index-{bucket}"
    request = scratch.load(folder, "request", np.uint64)
    if len(request) == 0 or len(named.acted) == 0:
        return
    user = scratch.load(folder, "user", np.int64)
    place = np.minimum(np.searchsorted(request, named.request), len(request) - 1)
    is_there = request[place] == named.request
    # A request that belongs to two users stands twice, one after the other.
    second = np.minimum(place + 1, len(request) - 1)
    is_second = (request[second] == named.request) & (user[second] == named.user)
    place = np.where(is_second, second, place)
    is_own = is_there & (user[place] == named.user)
    found.deeds.found += int(is_own.sum())
    found.deeds.of_other_user += int((is_there & ~is_own).sum())
    first = scratch.load(folder, "first", np.int64)[place]
    is_early = is_own & (named.acted < first)
    found.deeds.early_named += int(is_early.sum())
    if is_early.any():
        by_hours = (first - named.acted)[is_early] // HOUR_MS
        clipped = np.minimum(by_hours, SHIFT_HOURS - 1)
        found.deeds.early_named_per_hour = found.deeds.early_named_per_hour + np.bincount(
            clipped, minlength=SHIFT_HOURS
        )
        at = int(np.flatnonzero(is_early)[0])
        values = (named.row[at], named.pin[at], named.acted[at], first[at])
        found.early = found.early or Early(task.day, *(int(value) for value in values))


def _count_pairs(task: MatchTask) -> int:
    """Return how many of the day's actions name a request that showed their pin."""
    folder = folder_of(task.folder, "pairs", task.day)
    return len(distinct(scratch.load_parts(folder, "row", np.int64)))


def _judge_unnamed(task: MatchTask, deeds: Deeds) -> None:
    """Count the actions without a request whose pin was shown to the user nearby, and when."""
    folder = folder_of(task.folder, "near", task.day)
    names = ("row", "before", "after")
    columns = {name: scratch.load_parts(folder, name, np.int64) for name in names}
    if len(columns["row"]) == 0:
        return
    rows, place = np.unique(columns["row"], return_inverse=True)
    before, after = np.full(len(rows), FAR_MS), np.full(len(rows), FAR_MS)
    np.minimum.at(before, place, columns["before"])
    np.minimum.at(after, place, columns["after"])
    within = SHIFT_HOURS * HOUR_MS
    deeds.unnamed_near = len(rows)
    deeds.unnamed_early = int((before >= within).sum())
    distance = np.where(before <= after, before, -after)
    hours = np.clip(distance // HOUR_MS, -SHIFT_HOURS, SHIFT_HOURS - 1) + SHIFT_HOURS
    deeds.shifts = np.bincount(hours, minlength=2 * SHIFT_HOURS)
