"""Actions per pin in the days before a day, and first appearances, over parts in any order."""

import numpy as np
import pytest

from pipelines.contracts.schemas import NEVER_MS
from pipelines.contracts.time import DAY_MS
from pipelines.snapshot import pin_counts
from pipelines.snapshot.pin_counts import (
    ActionCounts,
    FirstSeen,
    trailing_first,
    trailing_popularity,
)

PINS = np.array([10, 20, 30])
DAYS = np.array([5, 6, 9])


@pytest.mark.parametrize("is_merged", [True, False])
@pytest.mark.parametrize(("block_cells", "block_rows"), [(1, 7), (1 << 18, 1 << 17)])
def test_an_action_counts_from_the_day_after_it_was_known_until_it_leaves_the_window(
    monkeypatch: pytest.MonkeyPatch, block_cells: int, block_rows: int, is_merged: bool
) -> None:
    """Other pins are ignored, and parts add up, merged or not."""
    monkeypatch.setattr(pin_counts, "_BLOCK_CELLS", block_cells)
    monkeypatch.setattr(pin_counts, "BLOCK_ROWS", block_rows)
    rng = np.random.default_rng(4)
    pins = np.sort(rng.choice(200, 60, replace=False))
    pin_id, acted_day = rng.integers(0, 200, 500), rng.integers(0, 9, 500)
    known_day = acted_day + rng.integers(0, 3, 500)
    acted_at, known_at = acted_day * DAY_MS, known_day * DAY_MS
    counts = [ActionCounts.of(pin_id[n::3], acted_at[n::3], known_at[n::3]) for n in range(3)]
    days = np.array([3, 4, 5, 7, 9])
    parts = [ActionCounts.merge(counts)] if is_merged else counts
    found = trailing_popularity(parts, pins, days, (2, 5))
    for window in (2, 5):
        for place, day in enumerate(days):
            is_in = (acted_day < day) & (acted_day >= day - window) & (known_day < day)
            expected = [int((is_in & (pin_id == pin)).sum()) for pin in pins]
            assert found[window][:, place].tolist() == expected
            assert sum(expected) > 5


def test_nothing_counted_is_zero_for_every_pin() -> None:
    found = trailing_popularity([], PINS, DAYS, (3,))
    assert found[3].shape == (len(PINS), len(DAYS)) and not found[3].any()
    none = np.array([], dtype=np.int64)
    assert trailing_popularity([], none, DAYS, (3,))[3].shape == (0, len(DAYS))


@pytest.mark.parametrize("count", [65_535, 65_536, 100_000])
def test_totals_that_need_more_bytes_are_counted_as_well(count: int) -> None:
    counts = ActionCounts(*(np.array([value]) for value in (20, 4, 4, count)))
    found = trailing_popularity([counts], PINS, DAYS, (1, 3))
    for window in (1, 3):
        assert found[window][:2, 0].tolist() == [0, count]


TRAILING_DAYS = 28
AGE_DAYS = np.array([28, 29, 30, 48, 49])


def test_nothing_seen_is_never() -> None:
    found = trailing_first([], np.array([1, 2]), AGE_DAYS, TRAILING_DAYS)
    assert found.shape == (2, len(AGE_DAYS)) and (found == NEVER_MS).all()
    none = np.array([], dtype=np.int64)
    assert len(trailing_first([], none, AGE_DAYS, TRAILING_DAYS)) == 0


@pytest.mark.parametrize("is_merged", [True, False])
@pytest.mark.parametrize(("block_cells", "block_rows"), [(4096, 4096), (150, 4)])
def test_each_day_has_the_earliest_known_row_of_its_own_trailing_days(
    monkeypatch: pytest.MonkeyPatch, block_cells: int, block_rows: int, is_merged: bool
) -> None:
    """Rows reach the log up to five days late, so that a later row may be known first."""
    monkeypatch.setattr(pin_counts, "_BLOCK_CELLS", block_cells)
    monkeypatch.setattr(pin_counts, "BLOCK_ROWS", block_rows)
    rng = np.random.default_rng(3)
    pin_ids = np.array([2, 3, 5, 7, 11, 13, 17, 19])
    pin_id = rng.choice([*pin_ids[:-1], 1, 4, 99], 60)
    happened_at = rng.integers(-5 * DAY_MS, 60 * DAY_MS, 60)
    known_at = happened_at + rng.integers(0, 5 * DAY_MS, 60)
    parts = [FirstSeen.of(pin_id[n::6], happened_at[n::6], known_at[n::6]) for n in range(6)]
    seen = [FirstSeen.merge(parts)] if is_merged else parts
    found = trailing_first(seen, pin_ids, AGE_DAYS, TRAILING_DAYS)
    times = []
    for row, pin in enumerate(pin_ids):
        for place, day in enumerate(AGE_DAYS):
            is_inside = (happened_at // DAY_MS >= day - 28) & (happened_at // DAY_MS <= day)
            expected = known_at[is_inside & (pin_id == pin)].min(initial=NEVER_MS)
            assert found[row, place] == expected
            times.append(expected)
    assert NEVER_MS in times and len(set(times)) > 15
