"""Calibration: recovers a known distortion, repairs downsampling, follows a rate that moves."""

import math

import numpy as np
import pytest

from training.bundle.calibration import (
    apply_calibrator,
    correct_downsampling,
    drift_shift,
    fit_calibrator,
    sigmoid,
)

ROWS = np.full(14, 7_000)


@pytest.mark.parametrize(
    ("sign", "scale", "shift"),
    [(1.0, 0.5, -0.7), (-1.0, 1.0, None)],
    ids=["distorted", "backwards, which is not turned around"],
)
def test_labels_come_as_often_as_is_said(sign: float, scale: float, shift: float | None) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(-1.5, 1.5, 200_000)
    label = (rng.random(len(truth)) < sigmoid(truth)).astype(np.int8)
    logits = sign * (truth + 0.7) / 0.5
    calibrator = fit_calibrator("repin", logits, label)
    assert calibrator.scale == pytest.approx(scale, abs=0.02)
    assert shift is None or calibrator.shift == pytest.approx(shift, abs=0.03)
    assert apply_calibrator(calibrator, logits).mean() == pytest.approx(label.mean(), rel=0.03)


def test_downsampled_odds_come_back() -> None:
    rng = np.random.default_rng(1)
    label = rng.random(400_000) < 0.1
    kept = label | (rng.random(len(label)) < 0.25)
    rate = label[kept].mean()
    logit = np.log(rate / (1 - rate))
    assert sigmoid(correct_downsampling(np.array([logit]), 0.25))[0] == pytest.approx(0.1, rel=0.02)


def test_no_rows_and_few_rows_change_little_and_extremes_stay_finite() -> None:
    for num_rows, near in ((0, 0.0), (30, 0.1)):
        found = fit_calibrator("save", np.full(num_rows, -3.0), np.zeros(num_rows))
        assert (found.scale, found.shift) == pytest.approx((1.0, 0.0), abs=near)
    calibrator = fit_calibrator("repin", np.array([-900.0, 900.0] * 50), np.array([0, 1] * 50))
    extremes = apply_calibrator(calibrator, np.array([-900.0, 0.0, 900.0]))
    assert ((extremes >= 0) & (extremes <= 1)).all()


@pytest.mark.parametrize(
    ("positives", "rows"),
    [
        (np.zeros(14, int), ROWS),
        (ROWS, ROWS),
        (np.array([3, 0, 9, 1, 2]), np.full(5, 100)),
        (np.array([], int), np.array([], int)),
    ],
)
def test_no_drift_is_said_where_nothing_can_be_learnt(positives, rows) -> None:
    assert drift_shift(positives, rows) == 0.0


def test_a_rate_that_falls_is_followed() -> None:
    falling = np.where(np.arange(14) < 9, 0.006, 0.0015)  # a campaign ends
    shift = drift_shift(np.random.default_rng(1).binomial(ROWS, falling), ROWS)
    needed = math.log(0.0015 / 0.0044)  # the last days' rate against the window's mean
    assert 1.1 * needed < shift < 0.5 * needed


@pytest.mark.parametrize(("scatter", "most"), [(0.0, 0.03), (0.1, 0.1)])
def test_days_without_direction_are_left_alone(scatter: float, most: float) -> None:
    """Of steady days 1 % seem to move by chance, at four looks; of scattered ones a few."""
    rng = np.random.default_rng(2)
    rates = 0.13 * rng.lognormal(0, scatter, (200, 14))
    shifts = np.array([drift_shift(rng.binomial(ROWS, of_days), ROWS) for of_days in rates])
    assert np.mean(shifts != 0) < most and np.abs(shifts).max() < 0.2
