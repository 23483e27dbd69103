"""What is counted of each pin over all users: the actions on it, and when it first appeared.

The first pass counts by pin and day (`ActionCounts`, `FirstSeen`), in parts that may hold the same
pins and days. From these come the totals of the trailing days before each day with requests, which
are the snapshot's features `pin_popularity...`, and the first appearance in the trailing days, for
`pin_age`. Not for which rows count: the caller leaves out the unwanted ones, such as hides.

Letters: P pins, D days of requests.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.contracts.schemas import NEVER_MS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import (
    Ints,
    Places,
    even_blocks,
    least_of,
    order_by,
    pack_bits,
    runs_of,
)

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
        columns = [(part.pin_id, part.acted_day, part.known_day, part.count) for part in parts]
        return ActionCounts(*merge_in_blocks(columns, 4, _added_up, run))


def _added_up(pin_id: Ints, acted_day: Ints, known_day: Ints, count: Ints) -> tuple[Ints, ...]:
    """Return the distinct rows of the first three columns, sorted, and the sums of their counts."""
    order, starts = runs_of(pin_id, acted_day, known_day)
    first = order[starts]
    total = np.add.reduceat(count[order], starts) if len(starts) else count
    return pin_id[first], acted_day[first], known_day[first], total


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
        columns = [(part.pin_id, part.day, part.known_at) for part in parts]
        return FirstSeen(*merge_in_blocks(columns, 3, least_of, run))


def merge_in_blocks(
    parts: Sequence[tuple[Ints, ...]],
    num_columns: int,
    merge: Callable[..., tuple[Ints, ...]],
    run: Run,
) -> tuple[Ints, ...]:
    """Return what is made of the rows of all parts, block by block of pins.

    Args:
        parts: columns, of which the first is sorted.
        num_columns: of each part, and of what is made of them.
        merge: makes sorted columns of columns.
        run: calls a function for each of some blocks, one after another or side by side.
    """

    def merge_block(block: Sequence[slice]) -> tuple[Ints, ...]:
        cut = [[column[rows] for column in part] for part, rows in zip(parts, block, strict=True)]
        return merge(*map(np.concatenate, zip(*cut, strict=True)))

    blocks = even_blocks([part[0] for part in parts], BLOCK_ROWS) if parts else []
    none = (np.array([], dtype=np.int64),) * num_columns
    return tuple(map(np.concatenate, zip(none, *run(merge_block, blocks), strict=True)))


def cut_by_pins(
    parts: Sequence[tuple[Ints, ...]], pin_ids: Ints, blocks: Sequence[slice]
) -> list[list[slice]]:
    """Return, for each block of pins, where its rows are in each part.

    Args:
        parts: columns, of which the first is the pin, sorted.
        pin_ids: sorted; rows of other pins may lie between those of a block.
        blocks: of the pins, all of them in order.
    """
    if not blocks:
        return []
    firsts = pin_ids[[block.start for block in blocks]]
    edges = [
        [*np.searchsorted(part[0], firsts), np.searchsorted(part[0], pin_ids[-1:], "right")[0]]
        for part in parts
    ]
    return [[slice(edge[n], edge[n + 1]) for edge in edges] for n in range(len(blocks))]


def rows_of_pins(
    parts: Sequence[tuple[Ints, ...]], cut: Sequence[slice], pin_ids: Ints
) -> tuple[Ints, ...]:
    """Return the rows of a block's pins out of all parts, with a pin's position in place of it.

    Args:
        parts: columns, of which the first is the pin.
        cut: where the block's rows are in each part.
        pin_ids: of the block, sorted.
    """
    slices = [[column[rows] for column in part] for part, rows in zip(parts, cut, strict=True)]
    pin_id, *others = map(np.concatenate, zip(*slices, strict=True))
    place = np.minimum(np.searchsorted(pin_ids, pin_id), len(pin_ids) - 1)
    is_there = pin_ids[place] == pin_id
    found = (place, *others)
    return found if is_there.all() else tuple(column[is_there] for column in found)


def pin_blocks(num_pins: int, num_days: int) -> list[slice]:
    """Cut pins into blocks whose numbers on some days stay in a core's cache.

    A bit for each pin and day of a block fills whole bytes, but for the last block.
    """
    size = max(1, _BLOCK_CELLS // num_days // 8) * 8
    return [slice(n, min(n + size, num_pins)) for n in range(0, num_pins, size)]


@dataclass(frozen=True)
class Popularity:
    """Each pin's number of actions in the days before each of some days, where it had any."""

    days: Ints  # days since the epoch, sorted
    is_counted: Places  # of pin_row * len(days) + position in `days`
    totals: Mapping[int, Counts]  # by length of the trailing window, days

    def places_of(self, day_places: Ints, pin_rows: Ints) -> Ints:
        """Return the place of each (day, pin) among the totals, -1 where it has no actions.

        Args:
            day_places: positions in `days`.
            pin_rows: one for each of them.
        """
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

    def total(number: int) -> tuple[npt.NDArray[np.uint8], dict[int, Counts]]:
        pins = pin_ids[blocks[number]]
        return _totals(rows_of_pins(parts, cut[number], pins), len(pins), days, windows)

    found = list(run(total, range(len(blocks))))
    empty = np.array([], dtype=np.uint16)
    totals = {
        window: np.concatenate([empty, *(totals[window] for _, totals in found)])
        for window in windows
    }
    bits = pack_bits([np.zeros(0, dtype=np.uint8), *(bits for bits, _ in found)])
    return Popularity(days, Places.of_bits(bits), totals)


def _positions(days: Ints, wanted: Ints) -> Ints:
    """Return how many days are before each of some others, of which few are distinct."""
    if len(wanted) == 0:
        return wanted
    first = int(wanted.min())
    table = np.searchsorted(days, np.arange(first, int(wanted.max()) + 1))
    return table[wanted - first]


def _totals(
    rows: tuple[Ints, ...], num_pins: int, days: Ints, windows: Sequence[int]
) -> tuple[npt.NDArray[np.uint8], dict[int, Counts]]:
    """Return a bit for each pin and day that has actions, and the totals of these by window.

    Some actions count from one day on, up to another: the totals are the sums of such changes.

    Args:
        rows: the pin's row, the days when they were done and known, and how many they are.
        num_pins: whose totals are wanted.
        days: whose totals are wanted.
        windows: lengths of the trailing windows, days, ascending.
    """
    row, acted_day, known_day, count = rows
    first = _positions(days, np.maximum(acted_day, known_day) + 1)
    base, count = row * (len(days) + 1), count.astype(np.int32)

    def grid(window: int) -> npt.NDArray[np.int32]:
        end = np.maximum(first, _positions(days, acted_day + window + 1))
        # One day more takes the changes after the last day.
        changes = np.zeros((num_pins, len(days) + 1), dtype=np.int32)
        np.add.at(changes.reshape(-1), base + first, count)
        np.subtract.at(changes.reshape(-1), base + end, count)
        return np.cumsum(changes, axis=1, dtype=np.int32)[:, : len(days)]

    *others, longest = windows
    found = grid(longest)  # it holds the others
    is_counted = found != 0
    totals = {longest: _narrow(found[is_counted])}
    totals |= {window: _narrow(grid(window)[is_counted]) for window in others}
    return np.packbits(is_counted, bitorder="little"), totals


def _narrow(totals: npt.NDArray[np.int32]) -> Counts:
    """Return totals in half the bytes, where all are small enough, as nearly all pins' are."""
    is_small = int(totals.max(initial=0)) <= np.iinfo(np.uint16).max
    return totals.astype(np.uint16) if is_small else totals


@dataclass(frozen=True)
class TrailingFirst:
    """The earliest `known_at` of each pin's rows in the trailing days of each of some days."""

    row_of_pin: Ints  # [P] row of `rank`; row 0 is of all pins that did not appear
    rank: npt.NDArray[np.int32]  # [pins that appeared + 1, D] position in `known_at`
    known_at: Ints  # milliseconds, ascending for each pin; the last, NEVER_MS, is of no row

    def at(self, day_places: Ints, pin_rows: Ints) -> Ints:
        """Return the time of each pin on a day, NEVER_MS where it did not appear.

        Args:
            day_places: positions among the days that `trailing_first` was given.
            pin_rows: one for each of them.
        """
        return self.known_at[self.rank[self.row_of_pin[pin_rows], day_places]]


def trailing_first(
    seen: Sequence[FirstSeen], pin_ids: Ints, days: Ints, trailing_days: int, run: Run = map
) -> TrailingFirst:
    """Return when the log first knew of each pin's appearances in the days up to each day.

    A row counts for day D when it happened from the midnight (UTC) that starts D - trailing_days
    to the end of D. Whether it was known in time is left to the reader of the result: where the
    earliest time is not before a request of D, no appearance was known to it.

    Args:
        seen: appearances per pin and day, in parts that may hold the same ones; pins that are not
            among `pin_ids` are ignored.
        pin_ids: the pins, sorted; a pin's row is its position here.
        days: days since the epoch, sorted, at least one.
        trailing_days: how many days before each day count beside it.
        run: calls a function for each of some blocks of pins, one after another or side by side.
    """
    span = range(int(days[0]) - trailing_days, int(days[-1]) + 1)
    blocks = pin_blocks(len(pin_ids), len(span))
    parts = [(part.pin_id, part.day, part.known_at) for part in (*seen, FirstSeen.merge([]))]
    cut = cut_by_pins(parts, pin_ids, blocks)

    def appearances(number: int) -> _Appearances:
        return _Appearances.of(rows_of_pins(parts, cut[number], pin_ids[blocks[number]]), span)

    found = list(run(appearances, range(len(blocks))))
    num_pins = np.cumsum([0, *(len(each.pin_row) for each in found)])
    num_rows = np.cumsum([0, *(len(each.known_at) for each in found)])
    never = np.int32(num_rows[-1])
    rank = np.empty((int(num_pins[-1]) + 1, len(days)), dtype=np.int32)
    rank[0] = never
    known_at = np.full(int(never) + 1, NEVER_MS)
    row_of_pin = np.zeros(len(pin_ids), dtype=np.int64)
    runs = _runs_of_days(days, span.start)

    def fill(number: int) -> None:
        block, appeared = blocks[number], found[number]
        pins, rows = (slice(*sums[number : number + 2]) for sums in (num_pins, num_rows))
        row_of_pin[block][appeared.pin_row] = np.arange(pins.start + 1, pins.stop + 1)
        known_at[rows] = appeared.known_at
        earliest = appeared.earliest(rows.start, never, len(span), trailing_days + 1)
        of_pins = rank[pins.start + 1 : pins.stop + 1]
        for wanted, there in runs:
            of_pins[:, wanted] = earliest[:, there]

    deque(run(fill, range(len(blocks))), maxlen=0)
    return TrailingFirst(row_of_pin, rank, known_at)


def _runs_of_days(days: Ints, first_day: int) -> list[tuple[slice, slice]]:
    """Return runs of days that follow each other: where they are in `days`, and after a day."""
    starts = [0, *(np.flatnonzero(np.diff(days) != 1) + 1).tolist(), len(days)]
    return [
        (slice(start, end), slice(first, first + end - start))
        for start, end in itertools.pairwise(starts)
        for first in [int(days[start]) - first_day]
    ]


@dataclass(frozen=True)
class _Appearances:
    """The rows about some pins, sorted by `known_at`. Letters: A pins that appeared, R rows."""

    pin_row: Ints  # [A] positions among the pins, sorted
    cell: Ints  # [R] of the pin, among those that appeared, and the day, in the span of days
    known_at: Ints  # [R]

    @staticmethod
    def of(rows: tuple[Ints, ...], span: range) -> "_Appearances":
        """Return the rows on the days of a span; they come in any order, as pin, day and time."""
        pin_row, day, known_at = rows
        is_ours = (day >= span.start) & (day < span.stop)
        if not is_ours.all():
            pin_row, day, known_at = pin_row[is_ours], day[is_ours], known_at[is_ours]
        has_appeared = np.bincount(pin_row) > 0
        place = np.cumsum(has_appeared) - 1
        cell = place[pin_row] * len(span) + (day - span.start)
        by_time = order_by(known_at)
        return _Appearances(np.flatnonzero(has_appeared), cell[by_time], known_at[by_time])

    def earliest(
        self, first_rank: int, never: np.int32, num_days: int, length: int
    ) -> npt.NDArray[np.int32]:
        """Return the least rank of each pin over each day and those before it, `length` of them."""
        grid = np.full((len(self.pin_row), num_days), never)
        # Of several rows of a pin and day the last to be written stays: the earliest.
        ranks = np.arange(first_rank, first_rank + len(self.cell), dtype=np.int32)
        grid.reshape(-1)[self.cell[::-1]] = ranks[::-1]
        return _trailing_minimum(grid, length)


def _trailing_minimum(grid: npt.NDArray[np.int32], length: int) -> npt.NDArray[np.int32]:
    """Return the least of each column and those before it, `length` of them; the grid is spent."""
    done = 1
    while done < length:
        step = min(done, length - done)
        grid[:, step:] = np.minimum(grid[:, step:], grid[:, :-step])
        done += step
    return grid
