"""Labels, pointers and computed numbers of a shard's examples, vectorised over sorted events.

Everything here is arithmetic on numpy arrays: no file, no clock, no configuration object. Times
are int64 milliseconds; a row index of -1 never occurs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.contracts.time import DAY_MS

Ints = npt.NDArray[np.int64]


class EventIndex:
    """Times of events grouped by an integer key, answering "how many in [start, end)?".

    Key and time are packed into one sortable int64, so that a question for many keys at once is
    one binary search.
    """

    def __init__(self, keys: Ints, times_ms: Ints) -> None:
        self.order = np.lexsort((times_ms, keys))
        self._keys, ranks = np.unique(keys, return_inverse=True)
        self._base = int(times_ms.min()) if len(times_ms) else 0
        self._span = (int(times_ms.max()) - self._base + 2) if len(times_ms) else 2
        self._packed = (ranks * self._span + (times_ms - self._base))[self.order]

    def position(self, keys: Ints, times_ms: Ints) -> Ints:
        """Return, in `order`, where the key's events at or after a time begin.

        For a key without events it is the same place whatever the time.
        """
        ranks = np.searchsorted(self._keys, keys)
        is_there = np.zeros(len(keys), dtype=bool)
        within = ranks < len(self._keys)
        is_there[within] = self._keys[ranks[within]] == keys[within]
        offsets = np.where(is_there, np.clip(times_ms - self._base, 0, self._span - 1), 0)
        return np.searchsorted(self._packed, ranks * self._span + offsets)

    def count(self, keys: Ints, start_ms: Ints, end_ms: Ints) -> Ints:
        """Return the number of each key's events in [start_ms, end_ms)."""
        return self.position(keys, end_ms) - self.position(keys, start_ms)


def has_recent_action(
    user_ids: Ints, times_ms: Ints, recent_ms: int, acted: tuple[Ints, Ints, Ints]
) -> npt.NDArray[np.bool_]:
    """Return whether a user acted within `recent_ms` before a time, as known before that time.

    Args:
        user_ids: [n] who.
        times_ms: [n] the request's time.
        recent_ms: length of the trailing window, milliseconds.
        acted: (user_id, acted_at, known_at) of the actions that count.
    """
    acted_user, acted_at, known_at = acted
    if len(acted_user) == 0:
        return np.zeros(len(user_ids), dtype=bool)
    index = EventIndex(acted_user, known_at)
    # The newest acted_at among a user's first n known actions: a running maximum that restarts
    # with each user, because each user's times are lifted above all of the users before.
    users, ranks = np.unique(acted_user[index.order], return_inverse=True)
    base = int(acted_at.min())
    lift = ranks * (int(acted_at.max()) - base + 1)
    newest = np.maximum.accumulate(acted_at[index.order] - base + lift) - lift + base
    first = index.position(user_ids, np.full(len(user_ids), np.iinfo(np.int64).min // 2))
    end = index.position(user_ids, times_ms)
    newest_known = newest[np.maximum(end - 1, 0)]
    return (end > first) & (newest_known >= times_ms - recent_ms)


def count_past_engagements(
    timeline_pin_row: Ints, example_pin_row: Ints, timeline_start: Ints, timeline_end: Ints
) -> Ints:
    """Return how many timeline rows in [start, end) are actions on the example's own pin.

    Args:
        timeline_pin_row: [rows of the shard's timeline].
        example_pin_row: [examples].
        timeline_start: [examples] the user's first row.
        timeline_end: [examples] one past the newest action known before the request.
    """
    num_rows = len(timeline_pin_row)
    index = EventIndex(timeline_pin_row, np.arange(num_rows, dtype=np.int64))
    return index.count(example_pin_row, timeline_start, timeline_end)


@dataclass(frozen=True)
class ActionCounts:
    """Wanted actions per pin, by the day they happened and the day they became known."""

    pin_id: Ints
    acted_day: Ints  # days since the epoch
    known_day: Ints
    count: Ints

    @staticmethod
    def of(pin_id: Ints, acted_at: Ints, known_at: Ints) -> "ActionCounts":
        """Count actions; pins and days come out sorted."""
        stacked = np.stack([pin_id, acted_at // DAY_MS, known_at // DAY_MS], axis=1)
        unique, count = np.unique(stacked, axis=0, return_counts=True)
        return ActionCounts(unique[:, 0], unique[:, 1], unique[:, 2], count.astype(np.int64))

    @staticmethod
    def concatenate(parts: list["ActionCounts"]) -> "ActionCounts":
        """Return all parts' rows; the same (pin, days) may occur in several."""
        names = ("pin_id", "acted_day", "known_day", "count")
        empty = np.array([], dtype=np.int64)
        return ActionCounts(
            *(np.concatenate([empty, *(getattr(part, name) for part in parts)]) for name in names)
        )


def trailing_popularity(
    counts: ActionCounts, pin_ids: Ints, days: Ints, trailing_days: int
) -> tuple[Ints, Ints]:
    """Return how often each pin was acted upon in the days before each day, where it was at all.

    An action counts for day D when it happened in [D - trailing_days, D) and was known before the
    midnight (UTC) that starts D: so every request of D sees the same number, from before D.

    Args:
        counts: actions per pin and day.
        pin_ids: the snapshot's pins, sorted.
        days: days since the epoch, sorted.
        trailing_days: length of the window.

    Returns:
        keys: day_index * len(pin_ids) + pin_row, sorted.
        totals: the number of actions, above zero.
    """
    num_pins = len(pin_ids)
    rows = np.minimum(np.searchsorted(pin_ids, counts.pin_id), max(num_pins - 1, 0))
    is_ours = pin_ids[rows] == counts.pin_id
    keys, totals = [np.array([], dtype=np.int64)], [np.array([], dtype=np.int64)]
    for day_index, day in enumerate(days):
        within = (counts.acted_day >= day - trailing_days) & (counts.acted_day < day)
        within &= is_ours & (counts.known_day < day)
        summed = np.bincount(rows[within], weights=counts.count[within], minlength=num_pins)
        pins = np.flatnonzero(summed)
        keys.append(day_index * num_pins + pins)
        totals.append(summed[pins].astype(np.int64))
    return np.concatenate(keys), np.concatenate(totals)


def look_up(keys: Ints, totals: Ints, wanted: Ints) -> Ints:
    """Return the total of each wanted key, 0 where there is none. `keys` is sorted."""
    if len(keys) == 0:
        return np.zeros(len(wanted), dtype=np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, totals[places], 0)


def log_count(counts: Ints) -> npt.NDArray[np.float32]:
    """Return log(1 + count) as float32: finite, 0 for nothing."""
    return np.log1p(counts.astype(np.float64)).astype(np.float32)
