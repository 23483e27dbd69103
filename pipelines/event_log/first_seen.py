"""When the event log first knew of each pin in the days before a request, from rows of many files.

The snapshot's feature `pin_age` comes from here. Not for which rows are read: the caller chooses.

Letters: P pins, D days of requests.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.contracts.schemas import NEVER_MS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Ints, Places, even_blocks, least_of, order_by

Run = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Calls a function for each of some values, one after another or side by side, in order."""

BLOCK_ROWS = 1 << 17
"""Rows that are merged at a time: a few columns of as many fit into a core's cache."""

_BLOCK_PINS = 512
"""Pins at a time: with 300 days for each, the days of a block stay in a core's cache."""


@dataclass(frozen=True)
class FirstSeen:
    """Pins, the days on which they appeared, and the earliest `known_at` of a row of each day."""

    pin_id: Ints  # sorted
    day: Ints  # UTC days since the epoch on which the rows happened; sorted for each pin
    known_at: Ints  # milliseconds

    @staticmethod
    def of(pin_id: Ints, happened_at: Ints, known_at: Ints) -> "FirstSeen":
        """Return the earliest time of each pin and day.

        Args:
            pin_id: of each row about a pin.
            happened_at: when the pin was shown or acted on, in milliseconds.
            known_at: when the row reached the log, in milliseconds; not before `happened_at`.
        """
        return FirstSeen(*least_of(pin_id, happened_at // DAY_MS, known_at))

    @staticmethod
    def merge(parts: Sequence["FirstSeen"], run: Run = map) -> "FirstSeen":
        """Return the earliest time of each pin and day over all parts.

        Args:
            parts: may hold the same pins and days.
            run: calls a function for each of some blocks of pins, one after another or side by
                side.
        """
        if len(parts) == 1:
            return parts[0]
        none = np.array([], dtype=np.int64)

        def merge_block(block: Sequence[slice]) -> tuple[Ints, ...]:
            cut = list(zip(parts, block, strict=True))
            names = ("pin_id", "day", "known_at")
            return least_of(*(np.concatenate([getattr(p, n)[s] for p, s in cut]) for n in names))

        blocks = even_blocks([part.pin_id for part in parts], BLOCK_ROWS) if parts else []
        found = [(none, none, none), *run(merge_block, blocks)]
        return FirstSeen(*map(np.concatenate, zip(*found, strict=True)))


@dataclass(frozen=True)
class TrailingFirst:
    """The earliest `known_at` of each pin's rows in the trailing days of each of some days."""

    row_of_pin: Ints  # [P] row of `rank`; row 0 is of all pins that did not appear
    rank: npt.NDArray[np.int32]  # [pins that appeared + 1, D] position in `known_at`
    known_at: Ints  # milliseconds, sorted; NEVER_MS, where there is no row, is the last

    def at(self, day_places: Ints, pin_rows: Ints) -> Ints:
        """Return the time of each pin on a day, NEVER_MS where it did not appear.

        Args:
            day_places: positions among the days that `trailing_first` was given.
            pin_rows: one for each of them.
        """
        return self.known_at[self.rank[self.row_of_pin[pin_rows], day_places]]


def trailing_first(
    seen: FirstSeen, pin_ids: Ints, days: Ints, trailing_days: int, run: Run = map
) -> TrailingFirst:
    """Return when the log first knew of each pin's appearances in the days up to each day.

    A row counts for day D when it happened from the midnight (UTC) that starts D - trailing_days
    to the end of D. Whether it was known in time is left to the reader of the result: where the
    earliest time is not before a request of D, no appearance was known to it.

    Args:
        seen: appearances per pin and day; pins that are not among `pin_ids` are ignored.
        pin_ids: the pins, sorted; a pin's row is its position here.
        days: days since the epoch, sorted, at least one.
        trailing_days: how many days before each day count beside it.
        run: calls a function for each of some blocks of pins, one after another or side by side.
    """
    start, end = int(days[0]) - trailing_days, int(days[-1]) + 1
    rows = Places(pin_ids).find(seen.pin_id)
    is_ours = (seen.day >= start) & (seen.day < end) & (rows >= 0)
    found = rows[is_ours]  # sorted, as the pins are
    is_new = np.diff(found, prepend=-1) != 0
    places = np.cumsum(is_new) - 1
    found = found[is_new]
    row_of_pin = np.zeros(len(pin_ids), dtype=np.int64)
    row_of_pin[found] = np.arange(1, len(found) + 1)
    by_time = order_by(time := seen.known_at[is_ours])
    never = np.int32(len(time))
    rank_of = np.empty(len(time), dtype=np.int32)
    rank_of[by_time] = np.arange(len(time), dtype=np.int32)
    rank = np.full((len(found) + 1, len(days)), never)
    day = seen.day[is_ours] - start

    def fill(block: tuple[int, int]) -> None:
        first, last = block
        of_block = slice(*np.searchsorted(places, [first, last]))
        grid = np.full((last - first, end - start), never)
        grid[places[of_block] - first, day[of_block]] = rank_of[of_block]
        earliest = _trailing_minimum(grid, trailing_days + 1)
        rank[first + 1 : last + 1] = earliest[:, days - start]

    deque(run(fill, list(_blocks(len(found)))), maxlen=0)
    return TrailingFirst(row_of_pin, rank, np.append(time[by_time], NEVER_MS))


def _blocks(num_pins: int) -> Iterator[tuple[int, int]]:
    for first in range(0, num_pins, _BLOCK_PINS):
        yield first, min(first + _BLOCK_PINS, num_pins)


def _trailing_minimum(grid: npt.NDArray[np.int32], length: int) -> npt.NDArray[np.int32]:
    """Return the least of each column and those before it, `length` of them; the grid is spent."""
    done = 1
    while done < length:
        step = min(done, length - done)
        grid[:, step:] = np.minimum(grid[:, step:], grid[:, :-step])
        done += step
    return grid
