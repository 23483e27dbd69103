"""Lists and matrices, there and back."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.arrow import to_list_column, to_numpy

MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)
LISTS = to_list_column(MATRIX)
WITH_NULLS = pa.array([[1.0, None], [3.0, 4.0]], pa.list_(pa.float32(), 2))


@pytest.mark.parametrize("type_", [np.float32, np.float64, np.int16])
def test_a_matrix_comes_back_in_its_own_type_without_a_copy(type_: type) -> None:
    column = pa.chunked_array([to_list_column(MATRIX.astype(type_))])
    found = to_numpy(column)
    assert found.dtype == type_ and found.tolist() == MATRIX.tolist()
    assert np.shares_memory(found, np.asarray(column.chunk(0).values))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.chunked_array([LISTS]).slice(1, 2), MATRIX[1:3]),
        (pa.chunked_array([LISTS]).slice(4), MATRIX[4:]),
        (pa.chunked_array([LISTS.slice(2), LISTS.slice(0, 1)]), MATRIX[[2, 3, 0]]),
        (pa.chunked_array([], type=LISTS.type), MATRIX[:0]),
        (pa.chunked_array([[1, 2], [3]]), np.array([1, 2, 3])),
        (pa.chunked_array([["a", "b"]]), np.array(["a", "b"], object)),
        (pa.chunked_array([WITH_NULLS]), np.array([[1, np.nan], [3, 4]])),
        (pa.chunked_array([pa.array([None, [1.0]], pa.list_(pa.float32(), 1))])[1:], [[1.0]]),
    ],
)
def test_slices_chunks_nulls_and_plain_columns_have_their_own_rows(
    column: pa.ChunkedArray, expected: np.ndarray
) -> None:
    np.testing.assert_array_equal(to_numpy(column), expected)
