"""Metrics worked by hand, and an independent implementation where there is one."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from support.holdouts import example_rows
from validation.model_gate.ranking_metrics import (
    area_under_curve,
    expected_calibration_error,
    is_in_top,
    places_in,
)


def hits(rows, score: np.ndarray, label: np.ndarray, k: int = 3) -> np.ndarray:
    return np.bincount(rows.request_index, label * is_in_top(rows, score, k))


def test_hits_by_hand() -> None:
    rows = example_rows([4, 2, 3], [1, 1, 2])
    score = np.array([0.1, 0.9, 0.5, 0.4, 0.2, 0.1, 0.3, 0.2, 0.1])
    label = np.array([1, 1, 0, 1, 0, 1, 0, 0, 1])
    assert hits(rows, score, label, k=3).tolist() == [2, 1, 1]
    assert hits(rows, score, label, k=1).tolist() == [1, 0, 0]


def test_ties_are_worth_a_random_order() -> None:
    rng = np.random.default_rng(0)
    rows = example_rows([10] * 4000, range(4000))
    rows = replace(rows, pin_row=rng.integers(0, 5000, 40_000))
    first_is_positive = (np.arange(40_000) % 10 == 0).astype(np.int8)
    # one positive of ten, three chances: 0.3; a stable sort would give 1.0 by position
    found = hits(rows, np.zeros(40_000), first_is_positive)
    assert found.mean() == pytest.approx(0.3, abs=0.03)


def test_hits_do_not_depend_on_the_order_of_candidates() -> None:
    rng = np.random.default_rng(1)
    score, label = rng.integers(0, 3, 300).astype(float), rng.integers(0, 2, 300)  # many ties
    rows = replace(example_rows([6] * 50, range(50)), pin_row=rng.permutation(300))
    order = np.concatenate([6 * r + rng.permutation(6) for r in range(50)])
    shuffled = replace(rows, pin_row=rows.pin_row[order])
    before = hits(rows, score, label)
    assert (hits(shuffled, score[order], label[order]) == before).all()
    # The places in one request are those by which a top is counted, with the same ties.
    places = np.concatenate([places_in(rows, score, request) for request in range(50)])
    assert all(sorted(of) == [1, 2, 3, 4, 5, 6] for of in places.reshape(50, 6).tolist())
    assert all(((places <= k) == is_in_top(rows, score, k)).all() for k in (1, 3, 5))


def test_probability_metrics_by_hand_and_by_scikit_learn() -> None:
    probability, label = np.array([0.5, 0.25, 0.25, 1.0]), np.array([1, 0, 1, 1])
    # bins {0.25, 0.25} and {0.5, 1.0}: |0.5 - 1| and |1.5 - 2| over 4 rows
    assert expected_calibration_error(probability, label, num_bins=2) == pytest.approx(0.25)
    assert area_under_curve(probability, label)[0] == pytest.approx((1 + 0.5 + 1) / 3)
    rng = np.random.default_rng(2)
    probability = np.round(rng.random(500), 2).clip(0.01, 0.99)
    label = (rng.random(500) < probability).astype(int)
    expected = roc_auc_score(label, probability)
    assert area_under_curve(probability, label)[0] == pytest.approx(expected)
