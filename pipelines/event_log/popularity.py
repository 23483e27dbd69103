"""How often each pin was acted upon in the days before a day, from counts per pin and day.

The snapshot's features `pin_popularity...` come from here. Not for which actions count: the caller
leaves out the unwanted ones, such as hides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Ints, Places, order_by, pack_bits, runs_of
from pipelines.event_log.first_seen import Run

_BLOCK_PINS = 512
"""Pins at a time: with 300 days for each, their totals stay in a core's cache."""


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
        if len(parts) == 1:
            return parts[0]
        names = ("pin_id", "acted_day", "known_day", "count")
        empty = np.array([], dtype=np.int64)
        return ActionCounts(
            *(np.concatenate([empty, *(getattr(part, name) for part in parts)]) for name in names)
        )

    def merged(self) -> "ActionCounts":
        """Return the same counts with one row for each (pin, days), sorted."""
        order, starts = runs_of(self.pin_id, self.acted_day, self.known_day)
        first = order[starts]
        count = np.add.reduceat(self.count[order], starts) if len(starts) else self.count
        return ActionCounts(self.pin_id[first], self.acted_day[first], self.known_day[first], count)


@dataclass(frozen=True)
class Popularity:
    """Each pin's number of actions in the days before each of some days, where it had any."""

    days: Ints  # days since the epoch, sorted
    is_counted: Places  # of pin_row * len(days) + position in `days`
    totals: Mapping[int, npt.NDArray[np.int32]]  # by length of the trailing window, days

    def places(self, days: Ints, pin_rows: Ints) -> Ints:
        """Return the place of each (day, pin) among the totals, -1 where it has no actions.

        Args:
            days: each must be one of `self.days`.
            pin_rows: one for each day.
        """
        return self.places_of(np.searchsorted(self.days, days), pin_rows)

    def places_of(self, day_places: Ints, pin_rows: Ints) -> Ints:
        """Return the same for days that are told by their positions in `days`."""
        return self.is_counted.find(pin_rows * len(self.days) + day_places)

    def at(self, places: Ints, trailing_days: int) -> npt.NDArray[np.int32]:
        """Return the totals of one trailing window at some places; 0 at place -1."""
        totals = self.totals[trailing_days]
        if len(totals) == 0:
            return np.zeros(len(places), dtype=np.int32)
        found = totals[places]
        found[places < 0] = 0
        return found


def trailing_popularity(
    counts: ActionCounts,
    pin_ids: Ints,
    days: Ints,
    windows_days: Sequence[int],
    run: Run = map,
) -> Popularity:
    """Return how often each pin was acted upon in the days before each day.

    An action counts for day D when it happened in [D - trailing days, D) and was known before the
    midnight (UTC) that starts D. So every request of D sees the same number, from before D.

    Args:
        counts: actions per pin and day; pins that are not among `pin_ids` are ignored.
        pin_ids: the pins whose popularity is wanted, sorted; a pin's row is its position here.
        days: days since the epoch, sorted.
        windows_days: lengths of the trailing windows.
        run: calls a function for each of some blocks of pins, one after another or side by side.
    """
    windows = sorted(set(windows_days))
    rows = Places(pin_ids).find(counts.pin_id)
    order = np.flatnonzero(rows >= 0)
    order = order[order_by(rows[order])]
    acted_day, known_day, count = (values[order] for values in counts.without_pins())
    first = _positions(days, np.maximum(acted_day, known_day) + 1)
    changes = _Changes(rows[order], count, first, {
        window: np.maximum(first, _positions(days, acted_day + window + 1))
        for window in windows
    })  # fmt: skip

    def total(block: range) -> _Totals:
        return changes.totals_of(block, windows, len(days))

    starts = range(0, len(pin_ids), _BLOCK_PINS)
    blocks = [range(start, min(start + _BLOCK_PINS, len(pin_ids))) for start in starts]
    found = list(run(total, blocks))
    empty = np.array([], dtype=np.int32)
    totals = {
        window: np.concatenate([empty, *(part.totals[window] for part in found)])
        for window in windows
    }
    bits = pack_bits([np.zeros(0, dtype=np.uint8), *(part.is_counted for part in found)])
    return Popularity(days, Places.of_bits(bits), totals)


def _positions(days: Ints, wanted: Ints) -> Ints:
    """Return how many days are before each of some others, of which few are distinct."""
    if len(wanted) == 0:
        return wanted
    first = int(wanted.min())
    table = np.searchsorted(days, np.arange(first, int(wanted.max()) + 1))
    return table[wanted - first]


class _Totals(NamedTuple):
    """The totals of some pins by pin and day, where there are any."""

    is_counted: npt.NDArray[np.uint8]  # bits, one for each pin and day
    totals: dict[int, npt.NDArray[np.int32]]  # by window


@dataclass(frozen=True)
class _Changes:
    """Where the totals of pins change: some actions count from one day on, up to another."""

    row: Ints  # sorted
    count: Ints
    first: Ints  # position of the first day that counts them
    end: Mapping[int, Ints]  # by window: position of the first day that counts them no longer

    def totals_of(self, block: range, windows: Sequence[int], num_days: int) -> _Totals:
        """Return the totals of some pins on all days."""
        longest = self._grid(block, windows[-1], num_days)  # it holds the others
        is_counted = longest != 0
        totals = {windows[-1]: longest[is_counted]}
        for window in windows[:-1]:
            totals[window] = self._grid(block, window, num_days)[is_counted]
        return _Totals(np.packbits(is_counted, bitorder="little"), totals)

    def _grid(self, block: range, window: int, num_days: int) -> npt.NDArray[np.int32]:
        """Return the totals of some pins by pin and day."""
        rows = slice(*np.searchsorted(self.row, [block.start, block.stop]))
        # One day more takes the changes after the last day.
        grid = np.zeros((len(block), num_days + 1), dtype=np.int32)
        base = (self.row[rows] - block.start) * (num_days + 1)
        count = self.count[rows].astype(np.int32)
        np.add.at(grid.reshape(-1), base + self.first[rows], count)
        np.subtract.at(grid.reshape(-1), base + self.end[window][rows], count)
        return np.cumsum(grid, axis=1, dtype=np.int32)[:, :num_days]
