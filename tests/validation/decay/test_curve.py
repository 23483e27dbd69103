"""The decay curve on series whose curve is known: values, coverage, shapes."""

import numpy as np
import pytest

from support.decay_series import LUCK, TASTES, USER, saturating, series, spread_of
from validation.decay.curve import FEWEST_PAIRS, Pair, estimate
from validation.decay.shapes import compare_shapes


def test_a_change_is_that_of_the_sums_and_few_pairs_say_nothing() -> None:
    users = np.array([0, 1])
    pairs = [
        Pair(old, old + 1, 7, np.array([-1.0, 0.0]), np.array([10.0, 10.0 * (1 + old)]), users)
        for old in range(FEWEST_PAIRS)
    ]
    pairs += [Pair(0, 2, 14, np.array([-2.0, 0.0]), np.array([10.0, 10.0]), users)]
    found = estimate(pairs)
    assert found.lags.tolist() == [7] and found.num_pairs.tolist() == [FEWEST_PAIRS]
    assert found.value[0] == pytest.approx(-4 / (40 + 100))
    curve = found.to_curve("repin_volume_at_3", 0.95)
    [point] = curve.points
    assert point.change.low < point.change.value < point.change.high
    assert curve.expected(3.5).value == pytest.approx(point.change.value / 2)
    assert curve.expected(0).low == curve.expected(0).high == 0.0
    assert curve.expected(99) == curve.expected(7)
    with pytest.raises(ValueError, match="a curve of 0 points says nothing"):
        estimate(pairs[:2]).to_curve("repin_volume_at_3", 0.95).expected(3)


@pytest.mark.parametrize("num_windows", [7, 14])
def test_the_band_holds_the_known_curve(num_windows: int) -> None:
    """Also where models are lucky, windows odd and users persistent."""
    whole, ages = [], []
    for seed in range(40):
        found = estimate(series(seed, num_windows))
        truth = np.array([saturating(float(lag)) for lag in found.lags])
        is_in = np.abs(found.value - truth) <= found.critical(0.95) * found.error
        whole.append(is_in.all())
        ages.append(is_in.mean())
    assert np.mean(whole) >= 0.85 and np.mean(ages) >= 0.95
    assert np.median(found.error) < LUCK  # and it is no band that holds everything


def test_models_that_are_equal_have_lost_nothing() -> None:
    users = np.arange(50)
    pairs = [
        Pair(old, window, window - old, np.zeros(50), np.ones(50), users)
        for window in range(6)
        for old in range(window)
    ]
    found = estimate(pairs)
    assert found.value.tolist() == [0.0, 0.0] and found.error.tolist() == [0.0, 0.0]
    assert np.array_equal(found.draws(5), np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("fall", "shape"),
    [(lambda lag: -0.0006 * lag, "linear"), (lambda lag: saturating(lag * 3), "saturating")],
)
def test_the_right_shape_foretells_best(fall, shape: str) -> None:
    found = compare_shapes(series(1, luck=0.001, fall=fall))
    by_name = {each.name: each for each in found}
    assert by_name[shape].is_as_good
    if shape == "saturating":
        assert not by_name["linear"].is_as_good
        assert by_name[shape].parameters["lost_percent"] == pytest.approx(4, abs=1)
    assert compare_shapes(series(1, num_windows=3)) == ()


def test_what_series_were_drawn_with_is_estimated_from_them() -> None:
    """With luck twice as large that much more is found, and not of what is no luck."""
    few, many = (
        np.mean([spread_of(series(seed, 26, luck=luck, step=7)) for seed in range(8)], axis=0)
        for luck in (LUCK, 2 * LUCK)
    )
    assert few[0] == pytest.approx(LUCK, rel=0.2) and many[0] == pytest.approx(2 * LUCK, rel=0.2)
    assert 0.3 * TASTES < few[2] < TASTES  # Users' own change grows with the lag, up to TASTES.
    assert few[2:] == pytest.approx(many[2:], rel=0.2)
    assert few[3] == pytest.approx(USER, rel=0.05)
