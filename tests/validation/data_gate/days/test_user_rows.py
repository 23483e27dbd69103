"""Users' rows without their embeddings are the same however the rows come."""

import numpy as np
import pyarrow as pa
import pytest

from validation.data_gate.days.queries import NUM_PROJECTIONS
from validation.data_gate.days.user_rows import summarise_users

NUM_ROWS, WIDTH = 3_000, 64


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    draw = np.random.default_rng(5)
    vectors = draw.normal(size=(NUM_ROWS, WIDTH)).astype(np.float32)
    return pa.table(
        {
            "user_id": np.arange(NUM_ROWS) // 3,
            "as_of": np.arange(NUM_ROWS),
            "state": ["new", "core", "casual"] * (NUM_ROWS // 3),
            "embedding": pa.FixedSizeListArray.from_arrays(vectors.ravel(), WIDTH),
        }
    )


@pytest.mark.parametrize("num_per_part", [1, 3, 7, 64, 1_001])
def test_a_row_has_the_same_numbers_whichever_rows_it_came_with(
    rows: pa.Table, num_per_part: int
) -> None:
    """A matrix product in single precision rounds by the number of rows, on some processors."""
    parts = [rows.slice(start, num_per_part) for start in range(0, NUM_ROWS, num_per_part)]
    assert summarise_users(parts).equals(summarise_users([rows]))


def test_lengths_and_angles_of_the_projections_are_those_of_the_embeddings(rows: pa.Table) -> None:
    found = summarise_users([rows])
    vectors = np.stack(rows["embedding"].to_numpy()).astype(np.float64)
    projected = np.stack([found[f"q{n}"].to_numpy() for n in range(NUM_PROJECTIONS)], axis=1)
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(found["length"].to_numpy(), lengths, rtol=1e-6)
    assert np.mean(np.linalg.norm(projected, axis=1) / lengths) == pytest.approx(1, abs=0.05)
    pairs = vectors[:-1] * vectors[1:]
    cosines = pairs.sum(axis=1) / (lengths[:-1] * lengths[1:])
    is_same = np.arange(1, NUM_ROWS) % 3 != 0
    likeness = found["likeness"].to_numpy()[1:]
    assert np.isnan(likeness[~is_same]).all()
    assert np.mean(likeness[is_same] - cosines[is_same]) == pytest.approx(0, abs=0.02)
