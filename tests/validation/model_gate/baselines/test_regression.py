"""The regression finds planted coefficients, and says where it cannot be fitted."""

import numpy as np
import pytest

from pipelines.contracts.errors import DataContractError
from validation.model_gate.baselines import fit_and_score


def planted(num_examples: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return numbers (N, 3), of which the last is noise, their labels and the true log-odds."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(num_examples, 3)) * [1.0, 100.0, 1.0] + [0.0, 500.0, 0.0]
    log_odds = 1.5 * numbers[:, 0] - (numbers[:, 1] - 500) / 100 - 1.0
    label = (rng.random(num_examples) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
    return numbers, label, log_odds


def test_it_finds_the_planted_log_odds_whatever_the_units() -> None:
    training, label, _ = planted(40_000, 1)
    holdout, _, truth = planted(5_000, 2)
    score = fit_and_score(training, label, holdout)
    assert np.corrcoef(score, truth)[0, 1] > 0.999
    assert abs(np.mean(score - truth)) < 0.05
    assert np.array_equal(score, fit_and_score(training, label, holdout))


def test_what_cannot_be_fitted_is_named() -> None:
    training, label, _ = planted(50, 3)
    with pytest.raises(DataContractError, match="no numeric feature"):
        fit_and_score(training[:, :0], label, training[:, :0])
    with pytest.raises(DataContractError, match="all 50 training labels are the same"):
        fit_and_score(training, np.zeros(50, np.int8), training)
