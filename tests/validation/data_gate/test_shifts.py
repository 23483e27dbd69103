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
    shift_phrases,
    shift_tables,
    shifts_of,
)
from validation.data_gate.snapshot_profile import Measures, quantile_distance

BOUND = math.log1p(0.3)


def rate(size: float, has_enough: bool = True) -> Shift:
    return Shift(RATE, "save", size, BOUND, 1.0, has_enough, is_rate=True)


def feature(size: float) -> Shift:
    return Shift(FEATURE, "mailer", size, 0.25, 1.0, has_enough=True, is_rate=False)


def test_a_steady_head_has_the_bound_of_the_recipe() -> None:
    assert rate(0.1).limit({}) == BOUND
    assert rate(0.1).limit({"label_rate_shift/save": [0.01] * MOST_EARLIER}) == BOUND


def test_a_head_that_comes_in_bursts_may_come_in_bursts() -> None:
    earlier = {"label_rate_shift/save": [0.1, -0.9, 0.2, 0.4, 0.3, 0.1, 0.2, 0.6]}
    assert rate(0.0).limit(earlier) == pytest.approx(MARGIN * 1.5 * 0.9)


def test_few_positives_and_few_earlier_shifts_tell_nothing() -> None:
    assert rate(2.0, has_enough=False).limit({}) is None
    three = {"label_rate_shift/save": [0.1] * (FEWEST_EARLIER - 1)}
    assert rate(2.0, has_enough=False).limit(three) is None
    four = {"label_rate_shift/save": [0.1] * FEWEST_EARLIER}
    assert rate(2.0, has_enough=False).limit(four) == pytest.approx(max(BOUND, MARGIN * 2 * 0.1))


def test_a_feature_is_judged_by_what_it_has_done_before() -> None:
    assert feature(0.4).limit({}) is None
    steady = {"feature_shift/mailer": [0.01] * 12}
    assert feature(0.4).limit(steady) == 0.25
    restless = {"feature_shift/mailer": [0.3] * 12}
    assert feature(0.4).limit(restless) == pytest.approx(MARGIN * (1 + 4 / 12) * 0.3)


def test_a_recipe_may_widen_limits() -> None:
    wider = rate(0.1)._replace(limit_factor=1.5)
    assert wider.limit({"label_rate_shift/save": [0.01] * 12}) == pytest.approx(1.5 * BOUND)


def test_a_table_has_only_what_can_be_judged_and_nan_where_nothing_was_measured() -> None:
    shifts = (rate(2 * BOUND), feature(0.4))
    tables = shift_tables(shifts, {}, is_measured=True)
    assert tables[RATE].to_dict("list") == {"partition": ["save"], RATE: [2.0]}
    assert len(tables[FEATURE]) == len(tables[STEADY]) == 0
    assert shift_phrases(shifts, {}) == {
        ("save", RATE): "save: +69.0%, allowed -23% to +30%",
    }
    unknown = shift_tables((), {}, is_measured=False)
    assert all(np.isnan(unknown[name][name]).all() and len(unknown[name]) == 1 for name in unknown)


def test_half_a_year_of_shifts_is_kept() -> None:
    earlier = {"label_rate_shift/save": [float(n) for n in range(MOST_EARLIER)], "gone": [1.0]}
    kept = kept_shifts((rate(0.5),), earlier)
    assert kept["label_rate_shift/save"] == [*range(1, MOST_EARLIER), 0.5]
    assert kept["gone"] == [1.0]


def measures(holdout: int, training: int) -> Measures:
    return Measures(
        examples=np.array([20_000, 10_000]), positives={"repin": np.array([training, holdout])}
    )


def test_rates_are_compared_as_quotients(planted_snapshot: Snapshot) -> None:
    features = planted_snapshot.features.model_copy(
        update={"heads": planted_snapshot.features.heads[:1]}
    )
    one_head = planted_snapshot.model_copy(update={"features": features})
    (head,) = features.head_names
    assert head == "repin"
    steady, shifted = shifts_of(one_head, measures(600, 1000), measures(300, 500), CONFIG)
    assert (steady.measure, shifted.measure) == (STEADY, RATE)
    assert steady.size == pytest.approx(math.log(600.5 / 10_000) - math.log(1000.5 / 20_000))
    assert shifted.size == pytest.approx(math.log(1600.5 / 800.5))
    assert steady.has_enough == (600 >= FEWEST_POSITIVES)


def test_a_rate_that_fell_to_nothing_has_a_size(planted_snapshot: Snapshot) -> None:
    found = shifts_of(planted_snapshot, measures(0, 1000), Measures(), CONFIG)
    (steady,) = [shift for shift in found if shift.partition == "repin"]
    assert steady.size < math.log(0.01)


def test_the_distance_of_quantiles_is_that_of_sorted_values() -> None:
    """Of as many rows on both sides it is the mean difference of the sorted places."""
    rng = np.random.default_rng(3)
    now, before = (np.sort(rng.integers(0, 9, 400)) for _ in range(2))
    now = np.sort(np.minimum(now + 1, 9))
    expected = np.abs(now - before).mean() / before.std()
    histograms = [np.bincount(values, minlength=10) for values in (now, before)]
    assert quantile_distance(*histograms) == pytest.approx(expected)
    assert quantile_distance(histograms[0], histograms[0]) == 0


def test_a_number_in_one_bin_is_measured_in_bins() -> None:
    assert quantile_distance(np.array([0, 0, 7]), np.array([5, 0, 0])) == 2


def test_that_all_values_move_a_little_is_told_of_numbers_alone(planted_snapshot: Snapshot) -> None:
    """Of categories, whose order says nothing, the population stability index is all there is."""
    counts = np.array([0, 10, 80, 600, 80, 10, 0] + [0] * 18)
    before = Measures(histograms={"pin_popularity": counts, "weekday": counts[:7]})
    now = Measures(
        histograms={"pin_popularity": np.roll(counts, 1), "weekday": np.roll(counts[:7], 1)}
    )
    moves = [
        each for each in shifts_of(planted_snapshot, now, before, CONFIG) if each.measure == MOVE
    ]
    (moved,) = moves
    assert moved.partition == "pin_popularity" and moved.size == pytest.approx((780 / 240) ** 0.5)
    earlier = {moved.key: [0.05] * FEWEST_EARLIER}
    assert moved.limit(earlier) == LARGEST_MOVE < moved.size
    assert moved.limit({}) is None
