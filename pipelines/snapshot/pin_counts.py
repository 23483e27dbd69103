"""What is counted of each pin over all users: the actions on it, and when it first appeared.

The first pass counts by pin and day (`ActionCounts`, `FirstSeen`), in parts that may hold the same
pins and days. From these come the totals of the trailing days before each day with requests, which
are the snapshot's features `pin_popularity...`, and the first appearance in the trailing days, for
`pin_age`. Not for which rows count: the caller leaves out the unwanted ones, such as hides.

Letters: P pins, D days of requests.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipelines.contracts.schemas import NEVER_MS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Ints, even_blocks, least_of, runs_of

Counts = npt.NDArray[np.integer[Any]]
Run = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Calls a function for each of some values, one after another or side by side, in order."""

BLOCK_ROWS = 1 << 17
"""Rows that are merged at a time: a few columns of as many fit into a core's cache."""

_BLOCK_CELLS = 1 << 18
"""Numbers of pins on days that are worked on at a time."""


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

        def add(*columns: Ints) -> tuple[Ints, ...]:
            *keys, count = columns
            order, starts = runs_of(*keys)
            total = np.add.reduceat(count[order], starts) if len(starts) else count
            return *(key[order[starts]] for key in keys), total

        return merge_in_blocks(ActionCounts, parts, add, run)


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
        return parts[0] if len(parts) == 1 else merge_in_blocks(FirstSeen, parts, least_of, run)


Counted = TypeVar("Counted", ActionCounts, FirstSeen)


def merge_in_blocks(
    kind: type[Counted],
    counted: Sequence[Counted],
    merge: Callable[..., tuple[Ints, ...]],
    run: Run,
) -> Counted:
    """Return what is made of the rows of all parts, block by block of pins.

    Args:
        kind: of what is counted.
        counted: parts, sorted by pin.
        merge: makes sorted columns of columns.
        run: calls a function for each of some blocks, one after another or side by side.
    """
    parts = [tuple(vars(part).values()) for part in counted]

    def merge_block(block: Sequence[slice]) -> tuple[Ints, ...]:
        cut = [[column[rows] for column in part] for part, rows in zip(parts, block, strict=True)]
        return merge(*map(np.concatenate, zip(*cut, strict=True)))

    blocks = even_blocks([part[0] for part in parts], BLOCK_ROWS) if parts else []
    none = (np.array([], dtype=np.int64),) * len(fields(kind))
    return kind(*map(np.concatenate, zip(none, *run(merge_block, blocks), strict=True)))


@dataclass(frozen=True)
class PinBlocks:
    """Pins in blocks whose numbers on some days stay in a core's cache, with rows about them."""

    pin_ids: Ints  # sorted
    blocks: list[slice]  # of the pins, all of them in order
    parts: list[tuple[Ints, ...]]  # columns, the first is the pin, sorted; others may lie between
    edges: list[Ints]  # of each part: where the rows of each block begin, and where the last ends

    @staticmethod
    def of(
        pin_ids: Ints, num_days: int, counted: Sequence[ActionCounts | FirstSeen]
    ) -> "PinBlocks":
        """Cut pins, and the rows of all parts with them."""
        parts = [tuple(vars(part).values()) for part in counted]
        size = max(1, _BLOCK_CELLS // num_days)
        blocks = [slice(n, min(n + size, len(pin_ids))) for n in range(0, len(pin_ids), size)]
        firsts, last = pin_ids[::size], pin_ids[-1:]
        edges = [
            np.append(np.searchsorted(part[0], firsts), np.searchsorted(part[0], last, "right"))
            for part in parts
        ]
        return PinBlocks(pin_ids, blocks, parts, edges)

    def rows_of(self, number: int) -> tuple[Ints, ...]:
        """Return a block's rows out of all parts, with a pin's position in it in place of it."""
        cut = [slice(*edge[number : number + 2]) for edge in self.edges]
        slices = [[column[c] for column in part] for part, c in zip(self.parts, cut, strict=True)]
        pin_id, *others = map(np.concatenate, zip(*slices, strict=True))
        pin_ids = self.pin_ids[self.blocks[number]]
        place = np.minimum(np.searchsorted(pin_ids, pin_id), len(pin_ids) - 1)
        is_there = pin_ids[place] == pin_id
        found = (place, *others)
        return found if is_there.all() else tuple(column[is_there] for column in found)


def trailing_popularity(
    counts: Sequence[ActionCounts],
    pin_ids: Ints,
    days: Ints,
    windows_days: Sequence[int],
    run: Run = map,
) -> dict[int, Counts]:
    """Return how often each pin was acted upon in the days before each day, [P, D] by window.

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
    windows = sorted(set(windows_days))
    cut = PinBlocks.of(pin_ids, len(days), (*counts, ActionCounts.merge([])))

    def total(number: int) -> dict[int, Counts]:
        block = cut.blocks[number]
        return _totals(cut.rows_of(number), block.stop - block.start, days, windows)

    found = list(run(total, range(len(cut.blocks))))
    none = np.zeros((0, len(days)), dtype=np.uint16)
    return {
        window: np.concatenate([none, *(totals[window] for totals in found)]) for window in windows
    }


def _totals(
    rows: tuple[Ints, ...], num_pins: int, days: Ints, windows: Sequence[int]
) -> dict[int, Counts]:
    """Return the totals of each pin and day, by window.

    Some actions count from one day on, up to another: the totals are the sums of such changes.

    Args:
        rows: the pin's row, the days when they were done and known, and how many they are.
        num_pins: whose totals are wanted.
        days: whose totals are wanted.
        windows: lengths of the trailing windows, days, ascending.
    """
    row, acted_day, known_day, count = rows
    base, count = row * (len(days) + 1), count.astype(np.int32)

    def positions(wanted: Ints) -> Ints:
        """Return how many days are before each of some others, of which few are distinct."""
        if len(wanted) == 0:
            return wanted
        low = int(wanted.min())
        return np.searchsorted(days, np.arange(low, int(wanted.max()) + 1))[wanted - low]

    first = positions(np.maximum(acted_day, known_day) + 1)

    def grid(window: int) -> npt.NDArray[np.int32]:
        end = np.maximum(first, positions(acted_day + window + 1))
        # One day more takes the changes after the last day.
        changes = np.zeros((num_pins, len(days) + 1), dtype=np.int32)
        np.add.at(changes.reshape(-1), base + first, count)
        np.subtract.at(changes.reshape(-1), base + end, count)
        return np.cumsum(changes, axis=1, dtype=np.int32)[:, : len(days)]

    totals = dict[int, Counts]()
    for window in windows:
        wide = grid(window)
        # Half the bytes take nearly all pins' totals.
        is_small = int(wide.max(initial=0)) <= np.iinfo(np.uint16).max
        totals[window] = wide.astype(np.uint16) if is_small else wide
    return totals


def trailing_first(
    seen: Sequence[FirstSeen], pin_ids: Ints, days: Ints, trailing_days: int, run: Run = map
) -> Ints:
    """Return when the log first knew of each pin's appearances in the days up to each day, [P, D].

    NEVER_MS stands where a pin did not appear. A row counts for day D when it happened from the
    midnight (UTC) that starts D - trailing_days to the end of D. Whether it was known in time is
    left to the reader of the result: where the earliest time is not before a request of D, no
    appearance was known to it.

    Args:
        seen: appearances per pin and day, in parts that may hold the same ones; pins that are not
            among `pin_ids` are ignored.
        pin_ids: the pins, sorted; a pin's row is its position here.
        days: days since the epoch, sorted, at least one.
        trailing_days: how many days before each day count beside it.
        run: calls a function for each of some blocks of pins, one after another or side by side.
    """
    span = range(int(days[0]) - trailing_days, int(days[-1]) + 1)
    cut = PinBlocks.of(pin_ids, len(span), (*seen, FirstSeen.merge([])))

    known_at = np.empty((len(pin_ids), len(days)), dtype=np.int64)

    def fill(number: int) -> None:
        pin_row, day, times = cut.rows_of(number)
        of_pins = known_at[cut.blocks[number]]
        is_ours = (day >= span.start) & (day < span.stop)
        cell = (pin_row * len(span) + (day - span.start))[is_ours]
        grid = np.full((len(of_pins), len(span)), NEVER_MS)
        np.minimum.at(grid.reshape(-1), cell, times[is_ours])
        done = 1  # Each column is the least of so many, its own and those before it.
        while done <= trailing_days:
            step = min(done, trailing_days + 1 - done)
            grid[:, step:] = np.minimum(grid[:, step:], grid[:, :-step])
            done += step
        of_pins[:] = grid[:, days - span.start]

    deque(run(fill, range(len(cut.blocks))), maxlen=0)
    return known_at
