"""A rate that moves is followed, one that does not is left alone."""

import math

import numpy as np
import pytest

from training.bundle.drift import drift_shift

ROWS = np.full(14, 7_000)


def drawn(rates: np.ndarray, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).binomial(ROWS, rates)


def test_a_rate_that_falls_is_followed() -> None:
    falling = np.where(np.arange(14) < 9, 0.006, 0.0015)  # a campaign ends
    shift = drift_shift(drawn(falling), ROWS)
    needed = math.log(0.0015 / 0.0044)  # the last days' rate against the window's mean
    assert 1.1 * needed < shift < 0.5 * needed


def test_a_steady_rate_is_left_alone() -> None:
    found = [drift_shift(drawn(np.full(14, 0.13), seed), ROWS) for seed in range(200)]
    assert sum(shift == 0.0 for shift in found) >= 194  # 1 % by chance, four looks


def test_days_that_scatter_without_direction_are_left_alone() -> None:
    rng = np.random.default_rng(2)
    shifts = [
        drift_shift(rng.binomial(ROWS, 0.13 * rng.lognormal(0, 0.1, 14)), ROWS) for _ in range(100)
    ]
    assert np.abs(shifts).max() < 0.2
    assert np.mean(np.array(shifts) != 0) < 0.1


@pytest.mark.parametrize(
    ("positives", "rows"),
    [
        (np.zeros(14, int), ROWS),
        (ROWS, ROWS),
        (np.array([3, 0, 9, 1, 2]), np.full(5, 100)),
        (np.array([], int), np.array([], int)),
    ],
)
def test_nothing_is_said_where_nothing_can_be_learnt(
    positives: np.ndarray, rows: np.ndarray
) -> None:
    assert drift_shift(positives, rows) == 0.0
