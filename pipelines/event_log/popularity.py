"""How often each pin was acted upon in the days before a day, from counts per pin and day.

The snapshot's features `pin_popularity...` come from here. Not for which actions count: the caller
leaves out the unwanted ones, such as hides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Ints, runs_of


@dataclass(frozen=True)
class ActionCounts:
    """Numbers of actions per pin, by the day they happened and the day they became known."""

    pin_id: Ints
    acted_day: Ints  # days since the epoch
    known_day: Ints
    count: Ints

    @staticmethod
    def of(pin_id: Ints, acted_at: Ints, known_at: Ints) -> "ActionCounts":
        """Count actions; the counts come out sorted by pin and days."""
        order, starts = runs_of(pin_id, acted_at // DAY_MS, known_at // DAY_MS)
        first = order[starts]
        count = np.diff(starts, append=len(order))
        return ActionCounts(
            pin_id[first], acted_at[first] // DAY_MS, known_at[first] // DAY_MS, count
        )

    def without_pins(self) -> tuple[Ints, Ints, Ints]:
        """Return both days and the number of actions."""
        return self.acted_day, self.known_day, self.count

    @staticmethod
    def concatenate(parts: Sequence["ActionCounts"]) -> "ActionCounts":
        """Return all parts' rows; the same (pin, days) may occur in several."""
        names = ("pin_id", "acted_day", "known_day", "count")
        empty = np.array([], dtype=np.int64)
        return ActionCounts(
            *(np.concatenate([empty, *(getattr(part, name) for part in parts)]) for name in names)
        )


@dataclass(frozen=True)
class Popularity:
    """Each pin's number of actions in the days before each of some days, where it had any."""

    days: Ints  # days since the epoch, sorted
    num_pins: int
    keys: Ints  # (position in `days`) * num_pins + pin_row, sorted
    totals: Mapping[int, Ints]  # by length of the trailing window, days; one for each key

    def places(self, days: Ints, pin_rows: Ints) -> Ints:
        """Return the place of each (day, pin) among the keys, -1 where it has no actions.

        Args:
            days: each must be one of `self.days`.
            pin_rows: one for each day.
        """
        if len(self.keys) == 0:
            return np.full(len(pin_rows), -1)
        wanted = np.searchsorted(self.days, days) * self.num_pins + pin_rows
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[places] == wanted, places, -1)

    def at(self, places: Ints, trailing_days: int) -> Ints:
        """Return the totals of one trailing window at some places; 0 at place -1."""
        totals = self.totals[trailing_days]
        if len(totals) == 0:
            return np.zeros(len(places), dtype=np.int64)
        found = totals[places]
        found[places < 0] = 0
        return found


def trailing_popularity(
    counts: ActionCounts, pin_ids: Ints, days: Ints, windows_days: Sequence[int]
) -> Popularity:
    """Return how often each pin was acted upon in the days before each day.

    An action counts for day D when it happened in [D - trailing days, D) and was known before the
    midnight (UTC) that starts D. So every request of D sees the same number, from before D.

    Args:
        counts: actions per pin and day; pins that are not among `pin_ids` are ignored.
        pin_ids: the pins whose popularity is wanted, sorted; a pin's row is its position here.
        days: days since the epoch, sorted.
        windows_days: lengths of the trailing windows.
    """
    num_pins = len(pin_ids)
    # By the day on which they happened, so that a window's counts stand together.
    order = np.argsort(counts.acted_day, kind="stable")
    rows = np.minimum(np.searchsorted(pin_ids, counts.pin_id[order]), max(num_pins - 1, 0))
    order = order[is_ours := pin_ids[rows] == counts.pin_id[order]]
    ours = _Counted(rows[is_ours], *(values[order] for values in counts.without_pins()))
    windows = sorted(set(windows_days))
    keys = [np.array([], dtype=np.int64)]
    totals = {window: [np.array([], dtype=np.int64)] for window in windows}
    for day_index, day in enumerate(days):
        summed = {window: ours.sums_before(day, window, num_pins) for window in windows}
        pins = np.flatnonzero(summed[windows[-1]])  # the longest window holds the others
        keys.append(day_index * num_pins + pins)
        for window in windows:
            totals[window].append(summed[window][pins])
    found = {window: np.concatenate(parts) for window, parts in totals.items()}
    return Popularity(days, num_pins, np.concatenate(keys), found)


@dataclass(frozen=True)
class _Counted:
    """Numbers of actions per pin, sorted by the day on which they happened."""

    row: Ints
    acted_day: Ints
    known_day: Ints
    count: Ints

    def sums_before(self, day: int, window: int, num_pins: int) -> Ints:
        """Return each pin's actions in [day - window, day) that were known before the day."""
        start, end = np.searchsorted(self.acted_day, [day - window, day])
        is_known = self.known_day[start:end] < day
        rows, counts = self.row[start:end][is_known], self.count[start:end][is_known]
        return np.bincount(rows, weights=counts, minlength=num_pins).astype(np.int64)
