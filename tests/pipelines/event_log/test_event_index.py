"""Questions about sorted events, against counting one by one."""

import numpy as np
import pytest

from pipelines.event_log import event_index
from pipelines.event_log.event_index import (
    ActionTimes,
    EventIndex,
    Places,
    distinct,
    even_blocks,
    has_recent_action,
    least_of,
    order_by,
    place_in_run,
)

NONE = np.array([], dtype=np.int64)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_counts_are_those_of_counting_one_by_one(rng: np.random.Generator) -> None:
    keys, times = rng.integers(0, 6, 200), rng.integers(-50, 50, 200)
    asked, start = rng.integers(-1, 8, 300), rng.integers(-70, 70, 300)
    end = start + rng.integers(0, 40, 300)
    expected = [
        int(((keys == k) & (times >= s) & (times < e)).sum())
        for k, s, e in zip(asked, start, end, strict=True)
    ]
    index = EventIndex(keys, times)
    assert (index.position(asked, end) - index.position(asked, start)).tolist() == expected
    order = np.lexsort((times, keys))
    index = EventIndex(keys[order], times[order], is_sorted=True)
    assert (index.position(asked, end) - index.position(asked, start)).tolist() == expected
    assert index.order.tolist() == list(range(200))
    index = EventIndex(keys, times)  # a key begins where its earliest event is
    first = index.order[index.first(np.unique(keys))]
    earliest = [(key, times[keys == key].min()) for key in np.unique(keys)]
    assert list(zip(keys[first], times[first], strict=True)) == earliest


def test_places_begin_anew_with_each_run_of_equal_values() -> None:
    assert place_in_run(np.array([7, 7, 7, -1, -1, 7])).tolist() == [0, 1, 2, 0, 1, 0]
    assert place_in_run(NONE).tolist() == []


def test_no_events_are_no_answer_but_zero() -> None:
    index, asked = EventIndex(NONE, NONE), np.array([3, -2])
    assert index.position(asked, np.array([-9, 9])).tolist() == [0, 0]
    assert index.first(asked).tolist() == [0, 0]
    nobody = ActionTimes(NONE, NONE, NONE)
    assert has_recent_action(nobody, asked, asked, 5).tolist() == [False, False]


def test_recent_actions_are_those_of_looking_one_by_one(rng: np.random.Generator) -> None:
    user, acted_at = rng.integers(0, 8, 60), rng.integers(0, 500, 60)
    known_at = acted_at + rng.integers(0, 40, 60)
    asked, time = rng.integers(-1, 10, 400), rng.integers(-20, 600, 400)
    expected = [
        bool(((user == u) & (known_at < t) & (acted_at >= t - 60)).any())
        for u, t in zip(asked, time, strict=True)
    ]
    assert 40 < sum(expected) < 360
    actions = ActionTimes(user, acted_at, known_at)
    assert has_recent_action(actions, asked, time, 60).tolist() == expected


RANGES = [(0, 3), (-5, 5), (10**12, 10**12 + 2**40), (-(2**62), 2**62), (-(2**63), 2**63 - 1)]
"""Of values that fit beside others in one integer, and of values that do not."""


def test_rows_are_ordered_as_by_a_stable_sort_whatever_fits_together(
    rng: np.random.Generator,
) -> None:
    for _ in range(500):
        num_rows = int(rng.integers(0, 40))
        columns = []
        for low, high in rng.choice(RANGES, rng.integers(1, 6)).tolist():
            values = rng.integers(low, high, num_rows, dtype=np.int64)
            repeated = values[rng.integers(0, max(1, min(num_rows, 4)), num_rows)]
            columns.append(repeated if rng.random() < 0.5 else values)
        assert order_by(*columns).tolist() == np.lexsort(columns[::-1]).tolist()
    assert order_by(np.array([-100, 100, 0], dtype=np.int8)).tolist() == [0, 2, 1]


@pytest.mark.parametrize("block_rows", [1 << 15, 3])
def test_the_least_of_each_row_is_that_of_looking_one_by_one(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr(event_index, "_BLOCK_ROWS", block_rows)
    for _ in range(300):
        num_rows = int(rng.integers(0, 40))
        first, second, last = (
            rng.integers(low, high, num_rows, dtype=np.int64)
            for low, high in rng.choice(RANGES, 3).tolist()
        )
        first = first[rng.integers(0, max(1, min(num_rows, 5)), num_rows)]
        second = rng.integers(-3, 3, num_rows, dtype=np.int16) if rng.random() < 0.5 else second
        least: dict[tuple[int, int], int] = {}
        for *key, value in zip(first.tolist(), second.tolist(), last.tolist(), strict=True):
            least[tuple(key)] = min(value, least.get(tuple(key), value))
        found = np.column_stack(least_of(first, second, last)).tolist()
        assert found == [[*key, least[key]] for key in sorted(least)]


@pytest.mark.parametrize(("low", "high"), [*RANGES, (-(10**7), 5 * 10**7)])
def test_places_are_those_of_looking_one_by_one(
    rng: np.random.Generator, low: int, high: int
) -> None:
    values = distinct(rng.integers(low, high, 150, dtype=np.int64))
    around = values[rng.integers(0, len(values), 50)]
    asked = np.concatenate([values, around - 1, around + 1, [-(2**63), -1, 0, 2**63 - 1]])
    expected = [values.tolist().index(a) if a in values else -1 for a in asked.tolist()]
    assert Places(values).find(asked).tolist() == expected
    assert Places(values[:0]).find(asked[:2]).tolist() == [-1, -1]


@pytest.mark.parametrize("most_rows", [1, 7, 1000])
def test_blocks_hold_all_rows_in_order_and_equal_keys_together(
    rng: np.random.Generator, most_rows: int
) -> None:
    keys = [np.sort(rng.integers(0, 40, size)) for size in (60, 5, 0, 23)]
    blocks = even_blocks(keys, most_rows)
    assert (len(blocks) > 5) == (most_rows < 10)
    cut = [[values[rows] for values, rows in zip(keys, block, strict=True)] for block in blocks]
    for values, parts in zip(keys, zip(*cut, strict=True), strict=True):
        assert np.array_equal(np.concatenate(parts), values)
    found = [np.concatenate(parts) for parts in cut if sum(map(len, parts))]
    pairs = zip(found[:-1], found[1:], strict=True)
    assert all(before.max() < after.min() for before, after in pairs)
