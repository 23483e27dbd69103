"""A category that begins to give the label away is told, over all days, and chance is not."""

from collections.abc import Sequence

import numpy as np
import pytest

from pipelines.contracts.day_profile import DayProfile, Number
from support.log_days import FIRST_DAY
from validation.data_gate.days.limits import Deviation, deviations, eta_squared, shares_told

NAME = "impressions.shelf"
ROWS_A_DAY, RATE, NUM_VALUES = 1_500, 0.06, 8
HISTORY, JUDGED = 56, 21


def days(num: int, first_day: int, seed: int, leaking: float = 0.0) -> list[DayProfile]:
    """Return days whose category says nothing, except for a share of the rows: it is the label."""
    rng = np.random.default_rng(seed)
    made = []
    for day in range(first_day, first_day + num):
        is_hit = rng.random(ROWS_A_DAY) < RATE
        value = rng.integers(0, NUM_VALUES, ROWS_A_DAY)
        is_leaking = rng.random(ROWS_A_DAY) < leaking
        value = np.where(is_leaking, np.where(is_hit, 0, 1), value)
        counts, hits = (
            {str(key): int(num) for key, num in enumerate(np.bincount(of, minlength=NUM_VALUES))}
            for of in (value, value[is_hit])
        )
        rows = {"impressions.rows": Number(value=ROWS_A_DAY, num=ROWS_A_DAY)}
        made.append(
            DayProfile(day=day, numbers=rows, counts={NAME: counts}, acted_upon={NAME: hits})
        )
    return made


def told(judged: Sequence[DayProfile], history: Sequence[DayProfile]) -> Deviation:
    (found,) = [d for d in deviations(history, judged) if d.name == f"{NAME}.tells"]
    return found


def test_it_is_the_share_of_the_variance_that_the_values_explain() -> None:
    rng = np.random.default_rng(3)
    value, is_hit = rng.integers(0, 5, 400), rng.random(400) < 0.2
    is_hit |= (value == 2) & (rng.random(400) < 0.5)
    means = np.array([is_hit[value == key].mean() for key in range(5)])[value]
    between = ((means - is_hit.mean()) ** 2).sum() / ((is_hit - is_hit.mean()) ** 2).sum()
    rows, hits = (np.bincount(of, minlength=6).astype(float) for of in (value, value[is_hit]))
    assert eta_squared(rows, hits) == pytest.approx(between - 4 / 400)
    assert eta_squared(rows, rows) == eta_squared(rows, 0 * rows) == 0.0


def test_runs_of_days_are_counted_together() -> None:
    made = days(5, FIRST_DAY, seed=1, leaking=0.3)
    found = shares_told(NAME, made, 2)
    assert len(found) == 4
    assert found[1] == pytest.approx(shares_told(NAME, made[1:3], 2)[0])
    assert len(shares_told(NAME, made, 5)) == 1


@pytest.mark.parametrize(
    ("leaking", "is_told", "is_harmful"), [(0, False, False), (0.2, True, True)]
)
def test_a_leak_in_a_fifth_of_the_rows_harms_and_chance_is_not_told(
    leaking: float, is_told: bool, is_harmful: bool
) -> None:
    for seed in range(5):
        history = days(HISTORY, FIRST_DAY, seed)
        judged = days(JUDGED, FIRST_DAY + HISTORY, 100 + seed, leaking)
        found = told(judged, history)
        assert (found.times_limit > 1, found.is_harmful) == (is_told, is_harmful)


def test_a_category_that_tells_less_than_before_is_not_told() -> None:
    history = days(HISTORY, FIRST_DAY, 1, leaking=0.4)
    assert told(days(JUDGED, FIRST_DAY + HISTORY, 2), history).effect == 0.0


def test_a_history_that_did_not_count_them_says_nothing() -> None:
    older = [day.model_copy(update={"acted_upon": {}}) for day in days(HISTORY, FIRST_DAY, 1)]
    judged = days(JUDGED, FIRST_DAY + HISTORY, 2, leaking=0.6)
    assert [d for d in deviations(older, judged) if d.name == f"{NAME}.tells"] == []
