"""Lists and matrices, there and back."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.arrow import to_list_column, to_numpy

MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_a_matrix_comes_back_in_its_own_type_without_a_copy() -> None:
    for matrix in (MATRIX, MATRIX.astype(np.float64), MATRIX.astype(np.int16)):
        column = pa.chunked_array([to_list_column(matrix)])
        found = to_numpy(column)
        assert found.dtype == matrix.dtype
        assert found.tolist() == matrix.tolist()
        assert np.shares_memory(found, np.asarray(column.chunk(0).values))


@pytest.mark.parametrize("rows", [slice(1, 3), slice(0, 0), slice(2, 4)])
def test_a_slice_has_its_own_rows(rows: slice) -> None:
    sliced = pa.chunked_array([to_list_column(MATRIX)]).slice(rows.start, rows.stop - rows.start)
    assert to_numpy(sliced).tolist() == MATRIX[rows].tolist()
    assert to_numpy(sliced).shape[1] == 3


def test_several_chunks_and_none_are_one_matrix() -> None:
    lists = to_list_column(MATRIX)
    both = pa.chunked_array([lists.slice(2), lists.slice(0, 1)])
    assert to_numpy(both).tolist() == MATRIX[[2, 3, 0]].tolist()
    assert to_numpy(pa.chunked_array([], type=lists.type)).shape == (0, 3)


def test_a_null_number_is_nan_and_a_null_list_keeps_its_row() -> None:
    lists = pa.array([[1.0, None], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    found = to_numpy(pa.chunked_array([lists]))
    assert found.shape == (3, 2)
    assert np.isnan(found[0]).tolist() == [False, True]
    assert found[2].tolist() == [3.0, 4.0]


def test_a_plain_column_has_one_dimension() -> None:
    assert to_numpy(pa.chunked_array([[1, 2], [3]])).tolist() == [1, 2, 3]
    assert to_numpy(pa.chunked_array([["a", "b"]])).tolist() == ["a", "b"]
