"""What a snapshot's rows look like, in numbers worked by hand."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.features.numeric import NumericFeature
from validation.data_gate import measures


def test_psi_by_hand_and_of_nothing() -> None:
    now, before = np.array([49, 149]), np.array([99, 99])
    # With half a row added: 49.5/199, 149.5/199 against 99.5/199 twice.
    p, q = np.array([49.5, 149.5]) / 199, np.array([0.5, 0.5])
    expected = ((p - q) * np.log(p / q)).sum()
    assert measures.population_stability_index(now, before) == pytest.approx(expected)
    assert measures.population_stability_index(before, before) == 0.0


def test_a_missing_number_counts_in_its_flag_alone() -> None:
    feature = NumericFeature(name="similarity_best")
    examples = pa.table(
        {
            "num_similarity_best": pa.array([0.0, -0.95, 0.999, 0.0], pa.float32()),
            "num_similarity_best_missing": pa.array([1, 0, 0, 0], pa.int8()),
        }
    )
    found = measures.Measures()
    measures._add_numbers(found, feature, examples)
    counts = found.histograms["similarity_best"]
    assert np.flatnonzero(counts).tolist() == [0, 10, 19]
    assert found.histograms["similarity_best_missing"].tolist() == [3, 1]
