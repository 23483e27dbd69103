"""What a snapshot's rows look like, in numbers worked by hand."""

import numpy as np
import pytest

from validation.data_gate import measures


def test_psi_by_hand_and_of_nothing() -> None:
    now, before = np.array([49, 149]), np.array([99, 99])
    # With half a row added: 49.5/199, 149.5/199 against 99.5/199 twice.
    p, q = np.array([49.5, 149.5]) / 199, np.array([0.5, 0.5])
    expected = ((p - q) * np.log(p / q)).sum()
    assert measures.population_stability_index(now, before) == pytest.approx(expected)
    assert measures.population_stability_index(before, before) == 0.0
