"""Columns between Arrow and numpy: a fixed-size list column and a matrix hold the same numbers.

Not for reading files: `pipelines.contracts.snapshot_files` opens a snapshot's tables.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_list_column(matrix: NDArray[Any]) -> pa.FixedSizeListArray:
    """Return a [rows, width] matrix as a column of `rows` lists, in the matrix's own type."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def to_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column as [rows], or as [rows, width] where it holds fixed-size lists.

    Numbers of one chunk without nulls are not copied. A null number becomes NaN. A null list keeps
    its row, with undefined numbers: whoever allows null lists must look for them first.
    """
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    width = array.type.list_size
    numbers = array.values.slice(array.offset * width, len(array) * width)
    return np.asarray(numbers.to_numpy(zero_copy_only=False)).reshape(len(array), width)
