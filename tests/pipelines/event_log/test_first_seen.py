"""The first appearance of pins in the days before a request, over parts in any order."""

import numpy as np
import pytest

from pipelines.contracts.schemas import NEVER_MS
from pipelines.contracts.time import DAY_MS
from pipelines.event_log import first_seen
from pipelines.event_log.first_seen import FirstSeen, trailing_first

TRAILING_DAYS = 28
DAYS = np.array([28, 29, 30, 48, 49])


def test_the_earliest_row_of_a_pin_and_day_counts_whatever_part_it_is_in() -> None:
    days = np.array([0, 1, 0]) * DAY_MS
    one = FirstSeen.of(np.array([7, 3, 7]), days, days + [50, 40, 30])
    two = FirstSeen.of(np.array([3, 3, 9]), days, days + [20, 10, 20])
    for parts in ([one, two], [two, one]):
        found = FirstSeen.merge(parts)
        assert found.pin_id.tolist() == [3, 3, 7, 9]
        assert found.day.tolist() == [0, 1, 0, 0]
        assert (found.known_at - found.day * DAY_MS).tolist() == [20, 10, 30, 20]


def test_nothing_seen_is_never() -> None:
    found = trailing_first([], np.array([1, 2]), DAYS, TRAILING_DAYS)
    assert found.at(np.array([0, 4]), np.array([0, 1])).tolist() == [NEVER_MS, NEVER_MS]
    none = np.array([], dtype=np.int64)
    assert trailing_first([], none, DAYS, TRAILING_DAYS).at(none, none).tolist() == []


@pytest.mark.parametrize("is_merged", [True, False])
@pytest.mark.parametrize(("block_cells", "block_rows"), [(4096, 4096), (150, 4)])
def test_each_day_has_the_earliest_known_row_of_its_own_trailing_days(
    monkeypatch: pytest.MonkeyPatch, block_cells: int, block_rows: int, is_merged: bool
) -> None:
    """Rows reach the log up to five days late, so that a later row may be known first."""
    monkeypatch.setattr(first_seen, "_BLOCK_CELLS", block_cells)
    monkeypatch.setattr(first_seen, "BLOCK_ROWS", block_rows)
    rng = np.random.default_rng(3)
    pin_ids = np.array([2, 3, 5, 7, 11, 13, 17, 19])
    pin_id = rng.choice([*pin_ids[:-1], 1, 4, 99], 60)
    happened_at = rng.integers(-5 * DAY_MS, 60 * DAY_MS, 60)
    known_at = happened_at + rng.integers(0, 5 * DAY_MS, 60)
    parts = [FirstSeen.of(pin_id[n::6], happened_at[n::6], known_at[n::6]) for n in range(6)]
    seen = [FirstSeen.merge(parts)] if is_merged else parts
    found = trailing_first(seen, pin_ids, DAYS, TRAILING_DAYS)
    times = []
    for row, pin in enumerate(pin_ids):
        for place, day in enumerate(DAYS):
            is_inside = (happened_at // DAY_MS >= day - 28) & (happened_at // DAY_MS <= day)
            expected = known_at[is_inside & (pin_id == pin)].min(initial=NEVER_MS)
            assert found.at(np.array([place]), np.array([row])).tolist() == [expected]
            times.append(expected)
    assert NEVER_MS in times and len(set(times)) > 15


def test_the_age_of_pins_that_stay_as_they_are_does_not_grow_with_the_day() -> None:
    """Pins are shown every 20 days on average, at the same rate on all days."""
    num_pins, num_days = 20_000, 49
    is_shown = np.random.default_rng(5).random((num_pins, num_days)) < 1 / 20
    pins, days = np.nonzero(is_shown)
    seen = FirstSeen.of(pins, days * DAY_MS, days * DAY_MS)
    found = trailing_first([seen], np.arange(num_pins), DAYS, TRAILING_DAYS)
    first, last = (found.at(np.full(num_pins, p), np.arange(num_pins)) for p in (0, len(DAYS) - 2))
    ages = [
        (day * DAY_MS - t[t != NEVER_MS]).mean() / DAY_MS for day, t in ((28, first), (48, last))
    ]
    assert ages[0] == pytest.approx(ages[1], rel=0.02)
    assert np.mean(first == NEVER_MS) == pytest.approx(np.mean(last == NEVER_MS), abs=0.02)
