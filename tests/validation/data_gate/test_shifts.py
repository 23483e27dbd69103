"""What a shift may be at most, from the shifts before it."""

import math

import numpy as np
import pytest

from pipelines.contracts.artifacts import Snapshot
from support.data_gate import CONFIG
from validation.data_gate.shifts import (
    FEATURE,
    FEWEST_EARLIER,
    FEWEST_POSITIVES,
    LARGEST_MOVE,
    MARGIN,
    MOST_EARLIER,
    MOVE,
    RATE,
    STEADY,
    Shift,
    kept_shifts,
    population_stability_index,
    quantile_distance,
    shift_checks,
    shifts_of,
)
from validation.data_gate.snapshot_profile import Measures

BOUND = math.log1p(0.3)


def rate(size: float, has_enough: bool = True) -> Shift:
    return Shift(RATE, "save", size, BOUND, has_enough=has_enough)


def feature(size: float) -> Shift:
    return Shift(FEATURE, "mailer", size, 0.25)


@pytest.mark.parametrize(
    ("shift", "earlier", "limit"),
    [
        (rate(0.1), [], BOUND),  # a steady head has the recipe's bound
        (rate(0.1), [0.01] * MOST_EARLIER, BOUND),
        (rate(0.1)._replace(limit_factor=1.5), [0.01] * 12, 1.5 * BOUND),
        (rate(0.0), [0.1, -0.9, 0.2, 0.4, 0.3, 0.1, 0.2, 0.6], MARGIN * 1.5 * 0.9),  # bursts
        (rate(2.0, has_enough=False), [], None),
        (rate(2.0, has_enough=False), [0.1] * (FEWEST_EARLIER - 1), None),
        (rate(2.0, has_enough=False), [0.1] * FEWEST_EARLIER, max(BOUND, MARGIN * 2 * 0.1)),
        (feature(0.4), [], None),
        (feature(0.4), [0.01] * 12, 0.25),
        (feature(0.4), [0.3] * 12, MARGIN * (1 + 4 / 12) * 0.3),
    ],
)
def test_a_limit_comes_from_earlier_shifts(
    shift: Shift, earlier: list[float], limit: float | None
) -> None:
    found = shift.limit({shift.key: earlier})
    assert found is None if limit is None else found == pytest.approx(limit)


def test_a_check_has_only_what_can_be_judged_and_nan_where_nothing_was_measured() -> None:
    shifts = (rate(2 * BOUND), feature(0.4))
    found = {check.name: check for check in shift_checks(shifts, {}, True, "")}
    assert found[RATE].values == {"save": 2.0} and not found[RATE].not_judged
    assert found[RATE].phrases == {"save": "save: +69.0%, allowed -23% to +30%"}
    assert found[FEATURE].not_judged == found[MOVE].not_judged
    assert "no head has 500 positives in a window" in found[STEADY].not_judged
    first = {check.name: check for check in shift_checks(shifts, {}, True, "the first cycle")}
    assert first[RATE].not_judged == "the first cycle" and "no head" in first[STEADY].not_judged
    earlier = {"label_rate_shift/save": [float(n) for n in range(MOST_EARLIER)], "gone": [1.0]}
    kept = kept_shifts((rate(0.5),), earlier)  # half a year of them
    assert kept == {"gone": [1.0], "label_rate_shift/save": [*range(1, MOST_EARLIER), 0.5]}
    for check in shift_checks((), {}, False, ""):
        assert np.isnan(list(check.values.values())).tolist() == [True]


def measures(holdout: int, training: int) -> Measures:
    return Measures(
        examples=np.array([20_000, 10_000]), positives={"repin": np.array([training, holdout])}
    )


def test_rates_are_compared_as_quotients_also_where_one_fell_to_nothing(
    planted_snapshot: Snapshot,
) -> None:
    def shifts(*sides: Measures) -> list[Shift]:
        found = shifts_of(planted_snapshot, *sides, CONFIG)
        return [shift for shift in found if shift.partition == "repin"]

    steady, shifted = shifts(measures(600, 1000), measures(300, 500))
    assert (steady.measure, shifted.measure) == (STEADY, RATE)
    assert steady.size == pytest.approx(math.log(600.5 / 10_000) - math.log(1000.5 / 20_000))
    assert shifted.size == pytest.approx(math.log(1600.5 / 800.5))
    assert steady.has_enough == (600 >= FEWEST_POSITIVES)
    [steady] = shifts(measures(0, 1000), Measures())
    assert steady.size < math.log(0.01)


def test_distances_by_hand_by_sorted_values_and_of_nothing() -> None:
    rng = np.random.default_rng(3)
    now, before = (np.sort(rng.integers(0, 9, 400)) for _ in range(2))
    now = np.sort(np.minimum(now + 1, 9))
    # Of as many rows on both sides it is the mean difference of the sorted places.
    expected = np.abs(now - before).mean() / before.std()
    histograms = [np.bincount(values, minlength=10) for values in (now, before)]
    assert quantile_distance(*histograms) == pytest.approx(expected)
    assert quantile_distance(histograms[0], histograms[0]) == 0
    # A number in one bin is measured in bins.
    assert quantile_distance(np.array([0, 0, 7]), np.array([5, 0, 0])) == 2
    # With half a row added: 49.5/199, 149.5/199 against 99.5/199 twice.
    now, before = np.array([49, 149]), np.array([99, 99])
    expected = sum((p - 0.5) * math.log(p / 0.5) for p in (49.5 / 199, 149.5 / 199))
    assert population_stability_index(now, before) == pytest.approx(expected)
    assert population_stability_index(before, before) == 0.0


def test_that_all_values_move_a_little_is_told_of_numbers_alone(planted_snapshot: Snapshot) -> None:
    """Of categories, whose order says nothing, the population stability index is all there is."""
    counts = np.array([0, 10, 80, 600, 80, 10, 0] + [0] * 18)
    before, now = (
        Measures(histograms={"pin_popularity": of, "weekday": of[:7]})
        for of in (counts, np.roll(counts, 1))
    )
    (moved,) = (s for s in shifts_of(planted_snapshot, now, before, CONFIG) if s.measure == MOVE)
    assert moved.partition == "pin_popularity" and moved.size == pytest.approx((780 / 240) ** 0.5)
    earlier = {moved.key: [0.05] * FEWEST_EARLIER}
    assert moved.limit(earlier) == LARGEST_MOVE < moved.size
    assert moved.limit({}) is None
