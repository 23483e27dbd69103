"""Questions about events sorted by key and time, answered for many keys at once.

Everything here is arithmetic on numpy arrays: no file, no clock, no configuration object. Times
are int64 milliseconds. Not for reading events: `pipelines.event_log.reader`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class EventIndex:
    """Times of events grouped by an integer key, answering "how many in [start, end)?".

    Key and time are packed into one sortable int64, so that a question for many keys at once is
    one binary search.
    """

    def __init__(self, keys: Ints, times_ms: Ints) -> None:
        self.order = np.lexsort((times_ms, keys))
        in_order = keys[self.order]
        starts = starts_of_runs(in_order)
        self._keys = in_order[starts]
        ranks = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(keys)))
        self._base = int(times_ms.min()) if len(times_ms) else 0
        self._span = (int(times_ms.max()) - self._base + 2) if len(times_ms) else 2
        self._packed = ranks * self._span + (times_ms[self.order] - self._base)

    def first(self, keys: Ints) -> Ints:
        """Return, in `order`, where each key's events begin."""
        return self.position(keys, np.full(len(keys), self._base))

    def position(self, keys: Ints, times_ms: Ints) -> Ints:
        """Return, in `order`, where the key's events at or after a time begin.

        For a key without events the place is the same whatever the time.
        """
        return self._places(*self._find(keys), times_ms)

    def count(self, keys: Ints, start_ms: Ints, end_ms: Ints) -> Ints:
        """Return the number of each key's events in [start_ms, end_ms)."""
        found = self._find(keys)
        return self._places(*found, end_ms) - self._places(*found, start_ms)

    def _find(self, keys: Ints) -> tuple[Ints, Bools]:
        """Return each key's rank among the keys with events, and whether it is one of them."""
        ranks = np.searchsorted(self._keys, keys)
        is_there = np.zeros(len(keys), dtype=bool)
        within = ranks < len(self._keys)
        is_there[within] = self._keys[ranks[within]] == keys[within]
        return ranks, is_there

    def _places(self, ranks: Ints, is_there: Bools, times_ms: Ints) -> Ints:
        offsets = np.where(is_there, np.clip(times_ms - self._base, 0, self._span - 1), 0)
        return np.searchsorted(self._packed, ranks * self._span + offsets)


def starts_of_runs(*columns: Ints) -> Ints:
    """Return where a row begins that differs in some column from the row before it."""
    is_start = np.zeros(len(columns[0]), dtype=bool)
    is_start[:1] = True
    for values in columns:
        is_start[1:] |= values[1:] != values[:-1]
    return np.flatnonzero(is_start)


def runs_of(*columns: Ints) -> tuple[Ints, Ints]:
    """Return the order in which rows are sorted by some columns, and where equal rows begin in it.

    A column with one value, as the day mostly is in the file of a day, costs nothing.
    """
    several = [values for values in columns if len(values) and values.min() != values.max()]
    order = np.lexsort(several[::-1]) if several else np.arange(len(columns[0]))
    return order, starts_of_runs(*(values[order] for values in columns))


def place_in_run(values: Ints) -> Ints:
    """Return the place of each value in its run of equal neighbours, from 0 on."""
    starts = starts_of_runs(values)
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def ranges(starts: Ints, counts: Ints) -> Ints:
    """Return start, start + 1, ... for each (start, count), one after another."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


@dataclass(frozen=True)
class ActionTimes:
    """Who acted, when, and when the event log knew of each action."""

    user_id: Ints
    acted_at: Ints
    known_at: Ints


def has_recent_action(
    actions: ActionTimes, user_ids: Ints, times_ms: Ints, recent_ms: int
) -> Bools:
    """Return whether each user acted within `recent_ms` before a time, as known before that time.

    Args:
        actions: the actions that count.
        user_ids: [n] whom the question is about.
        times_ms: [n] the time that the question is asked for.
        recent_ms: length of the trailing window, milliseconds; its start is included.
    """
    if len(actions.user_id) == 0:
        return np.zeros(len(user_ids), dtype=bool)
    index = EventIndex(actions.user_id, actions.known_at)
    acted_at = actions.acted_at[index.order]
    # The newest acted_at among a user's first n known actions is a running maximum that restarts
    # with each user, because each user's times are lifted above those of all users before.
    _, ranks = np.unique(actions.user_id[index.order], return_inverse=True)
    base = int(acted_at.min())
    lift = ranks * (int(acted_at.max()) - base + 1)
    newest = np.maximum.accumulate(acted_at - base + lift) - lift + base
    end = index.position(user_ids, times_ms)
    newest_known = newest[np.maximum(end - 1, 0)]
    return (end > index.first(user_ids)) & (newest_known >= times_ms - recent_ms)
