"""Rules of embeddings: lists of one width per embedding version, every number finite.

As in `checks`, each rule yields a `Finding`, and a reader raises the first. Not for whether the
vectors make sense: the data gate judges that.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.errors import DataContractError
from pipelines.event_log.findings import Finding, require_none


class FoundWidth(NamedTuple):
    """The width of the embeddings in a file, and the first row that has it."""

    path: str
    row_key: str  # such as pin_id=20
    embedding_dim: int


def embedding_matrix(path: str, key: str, rows: pa.Table, embedding_dim: int = 0) -> np.ndarray:
    """Return the `embedding` column as float32 [rows, width]: one width, every number finite.

    Args:
        path: the file, for the message.
        key: the column that names a row, for the message.
        rows: rows of one embedding version, their lists of float16, float32 or float64.
        embedding_dim: the width wanted; 0 takes the width that most of the rows have.

    Raises:
        DataContractError: a list is null or of another width, or a number is null, NaN or infinite;
            the message names the row.
    """
    column = rows["embedding"].combine_chunks()
    widths = widths_of(column)
    wanted = embedding_dim or usual_width(column.type, widths)
    require_none(width_problems(path, key, rows[key], widths, wanted))
    numbers = column.flatten().cast(pa.float32(), safe=False)
    matrix = np.asarray(numbers.to_numpy(zero_copy_only=False)).reshape(len(column), wanted)
    require_none(number_problems(path, key, rows[key], matrix))
    return matrix


def widths_of(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return the width of each list of a column, -1 for a null."""
    if pa.types.is_fixed_size_list(column.type):
        return np.where(np.asarray(column.is_null()), -1, column.type.list_size)
    return np.asarray(pc.fill_null(pc.list_value_length(column), -1)).astype(np.int64)


def usual_width(type_: pa.DataType, widths: npt.NDArray[np.int64]) -> int:
    """Return the width that most rows have, the smallest of several; 0 where there is no row."""
    if pa.types.is_fixed_size_list(type_):
        return int(type_.list_size)
    found, counts = np.unique(widths[widths >= 0], return_counts=True)
    return int(found[counts.argmax()]) if len(found) else 0


def width_problems(
    path: str, key: str, keys: pa.ChunkedArray, widths: npt.NDArray[np.int64], wanted: int
) -> Iterator[Finding]:
    """Yield the embeddings that are null, and those that are of another width."""
    yield from _embeddings(
        "null",
        path,
        key,
        keys,
        widths < 0,
        lambda row: "is null",
        f"{wanted} numbers",
        "leave out the row, or give it an embedding",
    )
    yield from _embeddings(
        "embedding_width",
        path,
        key,
        keys,
        (widths >= 0) & ((widths != wanted) | (widths == 0)),
        lambda row: f"has {widths[row]} numbers",
        f"{wanted or 'at least 1'}, the width of this embedding version",
        "embed the row anew, or give embeddings of another width a version of their own",
    )


def number_problems(
    path: str, key: str, keys: pa.ChunkedArray, matrix: npt.NDArray[np.floating]
) -> Iterator[Finding]:
    """Yield the embeddings [rows, width] that hold a null, NaN or infinite number."""
    yield from _embeddings(
        "embedding_number",
        path,
        key,
        keys,
        ~np.isfinite(matrix).all(axis=1),
        lambda row: "has a null, NaN or infinite number",
        f"{matrix.shape[1]} finite float32 numbers",
        "write these embeddings again",
    )


def check_one_width(found: Sequence[FoundWidth], whose: str, remedy: str) -> None:
    """Check that embeddings that belong together have one width.

    Args:
        found: the widths of some files, the one that counts first.
        whose: what must have one width, for the message.
        remedy: what to change, for the message.

    Raises:
        DataContractError: two widths; the message names a file and a row of each.
    """
    for other in found[1:]:
        first = found[0]
        if other.embedding_dim != first.embedding_dim:
            raise DataContractError(
                f"{other.path}: embedding of {other.row_key} has {other.embedding_dim} numbers; "
                f"expected {first.embedding_dim}, as {first.row_key} in {first.path} has, because "
                f"{whose}; {remedy}"
            )


def _embeddings(
    rule: str,
    path: str,
    key: str,
    keys: pa.ChunkedArray,
    is_bad: npt.NDArray[np.bool_],
    describe: Callable[[int], str],
    expected: str,
    remedy: str,
) -> Iterator[Finding]:
    if not is_bad.any():
        return
    row, num_rows = int(np.flatnonzero(is_bad)[0]), int(is_bad.sum())
    named = f"{key}={keys[row].as_py()}"
    yield Finding(
        rule,
        path,
        f"embedding of {named} {describe(row)} (row {row}, {num_rows} such rows)",
        expected,
        remedy,
        column="embedding",
        row=row,
        key=named,
        value=describe(row),
        num_rows=num_rows,
    )
