"""Questions about events sorted by key and time, answered for many keys at once.

Everything here is arithmetic on numpy arrays: no file, no clock, no configuration object. Times
are int64 milliseconds. Not for reading events: `pipelines.event_log.reader`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

_SORTABLE_BITS = 63
_BLOCK_ROWS = 1 << 15
"""Rows at a time: a few columns of a block fit into a core's cache."""
_WORD_BITS = 64
_ONE = np.uint64(1)
_BITS_PER_VALUE = 64
_FEW_BITS = 1 << 26
"""Bits at most that `Places` spends: on a value as many as it takes itself, or 8 MiB in all."""


class EventIndex:
    """Times of events grouped by an integer key, answering "how many are before a time?".

    Key and time are packed into one sortable int64, so that a question for many keys at once is
    one binary search.
    """

    def __init__(self, keys: Ints, times_ms: Ints, is_sorted: bool = False) -> None:
        """Sort the events, unless they are sorted by key and time already."""
        if is_sorted:
            self.order, in_order = np.arange(len(keys)), keys
        else:
            # Mostly the events of a key come by their times, and a stable sort by key alone, which
            # takes a part of the time, leaves them so.
            self.order = order_by(keys)
            in_order, in_time = keys[self.order], times_ms[self.order]
            if ((in_time[1:] < in_time[:-1]) & (in_order[1:] == in_order[:-1])).any():
                self.order = order_by(keys, times_ms)
                in_order, in_time = keys[self.order], times_ms[self.order]
            times_ms = in_time
        starts = starts_of_runs(in_order)
        self._keys = in_order[starts]
        self.ranks = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(keys)))
        self._base = int(times_ms.min()) if len(times_ms) else 0
        self._span = (int(times_ms.max()) - self._base + 2) if len(times_ms) else 2
        self._packed = self.ranks * self._span + (times_ms - self._base)

    def first(self, keys: Ints) -> Ints:
        """Return, in `order`, where each key's events begin."""
        return self.position(keys, np.full(len(keys), self._base))

    def position(self, keys: Ints, times_ms: Ints) -> Ints:
        """Return, in `order`, where the key's events at or after a time begin.

        For a key without events the place is the same whatever the time.
        """
        ranks = np.searchsorted(self._keys, keys)
        is_there = np.zeros(len(keys), dtype=bool)
        within = ranks < len(self._keys)
        is_there[within] = self._keys[ranks[within]] == keys[within]
        return self.place(ranks, np.where(is_there, times_ms, self._base))

    def rank(self, keys: Ints) -> Ints:
        """Return each key's rank among the keys with events, -1 for a key without."""
        if len(self._keys) == 0:
            return np.full(len(keys), -1)
        ranks = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[ranks] == keys, ranks, -1)

    def place(self, ranks: Ints, times_ms: Ints) -> Ints:
        """Return, in `order`, where the events at or after a time begin of keys told by rank."""
        offsets = np.clip(times_ms - self._base, 0, self._span - 1)
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

    A column with one value, as the day mostly is in the file of a day, costs next to nothing.
    """
    order = order_by(*columns)
    return order, starts_of_runs(*(values[order] for values in columns))


def order_by(*columns: Ints) -> Ints:
    """Return the stable order of rows by some columns, of which the first counts most.

    Columns are packed into one integer, beside the number of the row: numbers that are sorted in
    place take a tenth of the time of an indirect stable sort. Where the next column does not fit,
    the ranks by the columns before stand for these.
    """
    num_rows = len(columns[0])
    row_bits, held = num_rows.bit_length(), list[_Column]()
    for values in (*columns, None):
        column = None if values is None else _Column.of(values)
        if column is not None and column.num_bits > _SORTABLE_BITS - row_bits:
            column = _Column.of(np.unique(column.values, return_inverse=True)[1])
        num_bits = row_bits if column is None else column.num_bits
        if sum(each.num_bits for each in held) + num_bits > _SORTABLE_BITS:
            different, ranks = np.unique(_packed(held), return_inverse=True)
            if len(different) == num_rows:
                order = np.empty_like(ranks)
                order[ranks] = np.arange(num_rows)
                return order
            held = [_Column.of(ranks)]
        if column is not None:
            held.append(column)
    packed = _packed(held, row_bits)
    packed.sort()
    packed &= (1 << row_bits) - 1
    return packed


class _Column(NamedTuple):
    """A column, its least value, and how many bits its values take above that."""

    values: Ints
    low: int
    num_bits: int

    @staticmethod
    def of(values: Ints) -> "_Column":
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        return _Column(values, low, (high - low).bit_length())


def _packed(columns: Sequence[_Column], row_bits: int = 0) -> Ints:
    """Return one number for each row, made of the bits of its columns, the first on top.

    Block by block, so that what is added to stays in a core's cache. Nothing is read before it is
    written: the kernel would then bring every page twice.

    Args:
        columns: at least one.
        row_bits: as many bits at the bottom are the number of the row.
    """
    first, *others = columns
    packed = np.empty(len(first.values), dtype=np.int64)
    for start in range(0, len(packed), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        part = packed[block]
        np.subtract(first.values[block], first.low, out=part, dtype=np.int64)
        for values, low, num_bits in others:
            if num_bits:
                part <<= num_bits
                part += values[block]
                part -= low
        if row_bits:
            part <<= row_bits
            part += np.arange(start, start + len(part))
    return packed


def least_of(*columns: Ints) -> tuple[Ints, ...]:
    """Return the distinct rows of some columns, sorted, and the least value of the last in each.

    The first column counts most; the last is not among those that make a row distinct.
    """
    packable = [_Column.of(values) for values in columns]
    if sum(column.num_bits for column in packable) > _SORTABLE_BITS:
        order = order_by(*columns)
        first = order[starts_of_runs(*(values[order] for values in columns[:-1]))]
        return tuple(values[first] for values in columns)
    packed = _packed(packable)
    packed.sort()
    packed = packed[starts_of_runs(packed >> packable[-1].num_bits)]
    found = [np.empty(len(packed), dtype=np.int64) for _ in columns]
    for start in range(0, len(packed), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        part = packed[block]
        for values, (_, low, num_bits) in reversed(list(zip(found, packable, strict=True))):
            np.bitwise_and(part, (1 << num_bits) - 1, out=values[block])
            values[block] += low
            part >>= num_bits
    return tuple(found)


def distinct(values: Ints) -> Ints:
    """Return the distinct values, sorted."""
    in_order = np.sort(values)
    return in_order[starts_of_runs(in_order)]


def even_blocks(keys: Sequence[Ints], most_rows: int) -> list[list[slice]]:
    """Cut sorted arrays into blocks of about equally many rows, so that equal keys are together.

    Args:
        keys: sorted each.
        most_rows: of a block, about, where few keys are equal.

    Returns:
        For each block, in the order of the keys, the slice of each array that belongs to it.
    """
    longest = max(keys, key=len)
    num_cuts = sum(map(len, keys)) // most_rows
    cuts = distinct(longest[np.arange(1, num_cuts + 1) * len(longest) // (num_cuts + 1)])
    edges = [[0, *np.searchsorted(each, cuts).tolist(), len(each)] for each in keys]
    return [[slice(*edge[n : n + 2]) for edge in edges] for n in range(len(cuts) + 1)]


class Places:
    """Finds the places of integers among sorted distinct ones.

    Where these lie close together, as ids that were given one after another do, a bit says of each
    integer of their range whether it is there, and the bits before it are its place: two looks into
    memory, where a binary search takes as many as the logarithm of their number.
    """

    def __init__(self, values: Ints) -> None:
        self._values = values
        self._words: Words | None = None
        low, high = (int(values[0]), int(values[-1])) if len(values) else (0, -1)
        if 0 <= high - low < max(_BITS_PER_VALUE * len(values), _FEW_BITS):
            words = np.zeros((high - low) // _WORD_BITS + 1, dtype=np.uint64)
            offset = (values - low).view(np.uint64)
            word = (offset >> np.uint64(6)).view(np.int64)
            # Each bit is set once: adding is the same as setting, and numpy is quick at it.
            np.add.at(words, word, _ONE << (offset & np.uint64(63)))
            self._words, self._low, self._span = words, low, _WORD_BITS * len(words)
            counts = np.bitwise_count(words)
            self._before = np.cumsum(counts, dtype=np.int64) - counts

    def find(self, wanted: Ints) -> Ints:
        """Return the place of each integer, -1 where it is not among the values."""
        if len(self._values) == 0:
            return np.full(len(wanted), -1)
        if self._words is None:
            places = np.minimum(np.searchsorted(self._values, wanted), len(self._values) - 1)
            return np.where(self._values[places] == wanted, places, -1)
        is_inside = (wanted >= self._low) & (wanted < self._low + self._span)
        offset = wanted - self._low
        if not is_inside.all():
            offset = np.where(is_inside, offset, 0)
        places = offset >> 6
        word, bit = self._words[places], (offset & 63).view(np.uint64)
        places = self._before[places]
        places += np.bitwise_count(word & ((_ONE << bit) - _ONE))
        return np.where(((word >> bit) & _ONE).astype(bool) & is_inside, places, -1)


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
    actions: ActionTimes, user_ids: Ints, times_ms: Ints, recent_ms: int, is_sorted: bool = False
) -> Bools:
    """Return whether each user acted within `recent_ms` before a time, as known before that time.

    Args:
        actions: the actions that count.
        user_ids: [n] whom the question is about.
        times_ms: [n] the time that the question is asked for.
        recent_ms: length of the trailing window, milliseconds; its start is included.
        is_sorted: the actions are sorted by user and `known_at`.
    """
    if len(actions.user_id) == 0:
        return np.zeros(len(user_ids), dtype=bool)
    index = EventIndex(actions.user_id, actions.known_at, is_sorted)
    acted_at = actions.acted_at[index.order]
    # The newest acted_at among a user's first n known actions is a running maximum that restarts
    # with each user, because each user's times are lifted above those of all users before.
    base = int(acted_at.min())
    lift = index.ranks * (int(acted_at.max()) - base + 1)
    newest = np.maximum.accumulate(acted_at - base + lift) - lift + base
    end = index.position(user_ids, times_ms)
    newest_known = newest[np.maximum(end - 1, 0)]
    return (end > index.first(user_ids)) & (newest_known >= times_ms - recent_ms)
