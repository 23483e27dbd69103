"""How often each pin was acted upon in the days before a day, from counts per pin and day.

The snapshot's features `pin_popularity...` come from here. Not for which actions count: the caller
leaves out the unwanted ones, such as hides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Ints, Places, pack_bits, runs_of
from pipelines.event_log.first_seen import (
    Run,
    cut_by_pins,
    merge_in_blocks,
    pin_blocks,
    rows_of_pins,
)

Counts = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ActionCounts:
    """Numbers of actions per pin, by the day they happened and the day they became known."""

    pin_id: Ints  # sorted
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

    @staticmethod
    def merge(parts: Sequence["ActionCounts"], run: Run = map) -> "ActionCounts":
        """Return the counts of all parts, with one row for each pin and days, sorted.

        Args:
            parts: may hold the same pins and days.
            run: calls a function for each of some blocks of pins, one after another or side by
                side.
        """
        columns = [(part.pin_id, part.acted_day, part.known_day, part.count) for part in parts]
        return ActionCounts(*merge_in_blocks(columns, 4, _added_up, run))


def _added_up(pin_id: Ints, acted_day: Ints, known_day: Ints, count: Ints) -> tuple[Ints, ...]:
    """Return the distinct rows of the first three columns, sorted, and the sums of their counts."""
    order, starts = runs_of(pin_id, acted_day, known_day)
    first = order[starts]
    total = np.add.reduceat(count[order], starts) if len(starts) else count
    return pin_id[first], acted_day[first], known_day[first], total


@dataclass(frozen=True)
class Popularity:
    """Each pin's number of actions in the days before each of some days, where it had any."""

    days: Ints  # days since the epoch, sorted
    is_counted: Places  # of pin_row * len(days) + position in `days`
    totals: Mapping[int, Counts]  # by length of the trailing window, days

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

    def at(self, places: Ints, trailing_days: int) -> Counts:
        """Return the totals of one trailing window at some places; 0 at place -1."""
        totals = self.totals[trailing_days]
        if len(totals) == 0:
            return np.zeros(len(places), dtype=totals.dtype)
        found = totals[places]
        found[places < 0] = 0
        return found


def trailing_popularity(
    counts: Sequence[ActionCounts],
    pin_ids: Ints,
    days: Ints,
    windows_days: Sequence[int],
    run: Run = map,
) -> Popularity:
    """Return how often each pin was acted upon in the days before each day.

    An action counts for day D when it happened in [D - trailing days, D) and was known before the
    midnight (UTC) that starts D. So every request of D sees the same number, from before D.

    Args:
        counts: actions per pin and day, in parts that may hold the same ones; pins that are not
            among `pin_ids` are ignored.
        pin_ids: the pins whose popularity is wanted, sorted; a pin's row is its position here.
        days: days since the epoch, sorted.
        windows_days: lengths of the trailing windows.
        run: calls a function for each of some blocks of pins, one after another or side by side.
    """
    windows, blocks = sorted(set(windows_days)), pin_blocks(len(pin_ids), len(days))
    parts = [
        (part.pin_id, part.acted_day, part.known_day, part.count)
        for part in (*counts, ActionCounts.merge([]))
    ]
    cut = cut_by_pins(parts, pin_ids, blocks)

    def total(number: int) -> _Totals:
        pins = pin_ids[blocks[number]]
        rows = rows_of_pins(parts, cut[number], pins)
        return _Changes.of(rows, len(pins), days, windows).totals()

    found = list(run(total, range(len(blocks))))
    empty = np.array([], dtype=np.uint16)
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
    totals: dict[int, Counts]  # by window


@dataclass(frozen=True)
class _Changes:
    """Where the totals of some pins change: some actions count from one day on, up to another."""

    num_pins: int
    num_days: int
    row: Ints  # of the pin
    count: npt.NDArray[np.int32]
    first: Ints  # position of the first day that counts them
    end: Mapping[int, Ints]  # by window: position of the first day that counts them no longer

    @staticmethod
    def of(rows: tuple[Ints, ...], num_pins: int, days: Ints, windows: Sequence[int]) -> "_Changes":
        """Return the changes that actions make.

        Args:
            rows: the pin's row, the days when they were done and known, and how many they are.
            num_pins: whose totals are wanted.
            days: whose totals are wanted.
            windows: lengths of the trailing windows, days.
        """
        row, acted_day, known_day, count = rows
        first = _positions(days, np.maximum(acted_day, known_day) + 1)
        end = {
            window: np.maximum(first, _positions(days, acted_day + window + 1))
            for window in windows
        }
        return _Changes(num_pins, len(days), row, count.astype(np.int32), first, end)

    def totals(self) -> _Totals:
        """Return the totals of the pins on all days."""
        *others, longest = self.end
        grid = self._grid(longest)  # it holds the others
        is_counted = grid != 0
        totals = {longest: _narrow(grid[is_counted])}
        for window in others:
            totals[window] = _narrow(self._grid(window)[is_counted])
        return _Totals(np.packbits(is_counted, bitorder="little"), totals)

    def _grid(self, window: int) -> npt.NDArray[np.int32]:
        """Return the totals of the pins by pin and day."""
        # One day more takes the changes after the last day.
        grid = np.zeros((self.num_pins, self.num_days + 1), dtype=np.int32)
        base = self.row * (self.num_days + 1)
        np.add.at(grid.reshape(-1), base + self.first, self.count)
        np.subtract.at(grid.reshape(-1), base + self.end[window], self.count)
        return np.cumsum(grid, axis=1, dtype=np.int32)[:, : self.num_days]


def _narrow(totals: npt.NDArray[np.int32]) -> Counts:
    """Return totals in half the bytes, where all are small enough, as nearly all pins' are."""
    is_small = int(totals.max(initial=0)) <= np.iinfo(np.uint16).max
    return totals.astype(np.uint16) if is_small else totals
