"""Actions per pin in the days before a day, worked by hand."""

import numpy as np
import pytest

from pipelines.contracts.time import DAY_MS
from pipelines.event_log import first_seen
from pipelines.event_log.popularity import ActionCounts, Popularity, trailing_popularity

PINS = np.array([10, 20, 30])
DAYS = np.array([5, 6, 9])


def counts_of(*rows: tuple[int, float, float]) -> ActionCounts:
    """Return the counts of actions given as (pin, day acted, day known)."""
    pin_id, acted, known = np.array(rows).T
    return ActionCounts.of(
        pin_id.astype(np.int64), (acted * DAY_MS).astype(np.int64), (known * DAY_MS).astype(int)
    )


def totals_of(popularity: Popularity, days: np.ndarray, rows: np.ndarray, window: int) -> list:
    return popularity.at(popularity.places(days, rows), window).tolist()


def test_an_action_counts_from_the_day_after_it_was_known_until_it_leaves_the_window() -> None:
    counts = counts_of((10, 4.5, 4.6), (10, 4.9, 5.1), (20, 3.0, 3.0), (30, 5.0, 5.0))
    found = trailing_popularity([counts], PINS, DAYS, (2,))
    totals = [totals_of(found, np.full(3, day), np.arange(3), 2) for day in DAYS]
    assert totals == [[1, 1, 0], [2, 0, 1], [0, 0, 0]]
    assert found.totals[2].tolist() == [1, 2, 1, 1]  # nothing is kept of (pin, day) without


def test_several_windows_are_counted_at_once() -> None:
    counts = counts_of((10, 4.5, 4.6), (10, 2.5, 2.6), (20, 3.0, 3.0))
    found = trailing_popularity([counts], PINS, DAYS, (1, 4))
    fives, rows = np.full(3, 5), np.arange(3)
    assert totals_of(found, fives, rows, 1) == [1, 0, 0]
    assert totals_of(found, fives, rows, 4) == [2, 1, 0]


@pytest.mark.parametrize("block_rows", [1, 1000])
def test_other_pins_are_ignored_and_parts_add_up(
    monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr(first_seen, "BLOCK_ROWS", block_rows)
    one, two = counts_of((10, 4.0, 4.0), (99, 4.0, 4.0)), counts_of((10, 4.0, 4.0), (5, 4.0, 4.0))
    for counts in ([one, two], [ActionCounts.merge([one, two])]):
        found = trailing_popularity(counts, PINS, DAYS, (3,))
        assert totals_of(found, np.array([5, 5]), np.array([0, 2]), 3) == [2, 0]


@pytest.mark.parametrize("block_cells", [1, 1 << 18])
def test_totals_of_many_pins_are_those_of_counting_one_by_one(
    monkeypatch: pytest.MonkeyPatch, block_cells: int
) -> None:
    monkeypatch.setattr(first_seen, "_BLOCK_CELLS", block_cells)
    rng = np.random.default_rng(4)
    pins = np.sort(rng.choice(200, 60, replace=False))
    pin_id, acted_day = rng.integers(0, 200, 500), rng.integers(0, 9, 500)
    known_day = acted_day + rng.integers(0, 3, 500)
    acted_at, known_at = acted_day * DAY_MS, known_day * DAY_MS
    counts = [ActionCounts.of(pin_id[n::3], acted_at[n::3], known_at[n::3]) for n in range(3)]
    days, rows = np.arange(3, 10), np.arange(len(pins))
    found = trailing_popularity(counts, pins, days, (2, 5))
    for window in (2, 5):
        for day in days:
            is_in = (acted_day < day) & (acted_day >= day - window) & (known_day < day)
            expected = [int((is_in & (pin_id == pin)).sum()) for pin in pins]
            assert totals_of(found, np.full(len(pins), day), rows, window) == expected
            assert sum(expected) > 5


def test_nothing_counted_is_zero_for_every_pin() -> None:
    found = trailing_popularity([], PINS, DAYS, (3,))
    assert totals_of(found, np.array([5, 9]), np.array([1, 2]), 3) == [0, 0]
    none = np.array([], dtype=np.int64)
    assert totals_of(trailing_popularity([], none, DAYS, (3,)), none, none, 3) == []


@pytest.mark.parametrize("count", [65_535, 65_536, 100_000])
def test_totals_that_need_more_bytes_are_counted_as_well(count: int) -> None:
    counts = ActionCounts(*(np.array([value]) for value in (20, 4, 4, count)))
    found = trailing_popularity([counts], PINS, DAYS, (1, 3))
    for window in (1, 3):
        assert totals_of(found, np.array([5, 5]), np.array([0, 1]), window) == [0, count]
