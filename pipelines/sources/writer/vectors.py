"""Embeddings as people have them, as lists of one width, in float16 or float32; or none of users.

Not for what an embedding means: a version is a fixed basis that somebody else makes.
"""

import numpy as np
import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.event_log.record import Vectors
from pipelines.event_log.rules import embedding_matrix, usual_width, widths_of
from pipelines.sources.writer.problems import Problems


def zeros(num_rows: int, vectors: Vectors) -> pa.FixedSizeListArray:
    """Return embeddings of zeros that look like these."""
    return to_list_column(np.zeros((num_rows, vectors.embedding_dim), dtype=vectors.type))


def given_width(column: pa.ChunkedArray) -> int:
    """Return the width that most embeddings have; 0 where there are none, or they are no lists."""
    if not _is_list(column.type):
        return 0
    return usual_width(column.type, widths_of(column.combine_chunks()))


def width_problem(user_width: int, pin_width: int, version: str) -> str:
    """Say that the users' embeddings are not as wide as the pins' of a version, for a message."""
    return (
        f"the users' embeddings have {user_width} numbers, and the pins' of version {version!r} "
        f"have {pin_width}; expected one width, because the users' embeddings lie in the pins' "
        f"space and a model multiplies them; embed users and pins in one space, or leave out the "
        f"users' column 'embedding', which then is zeros, or write another width into a log of its "
        f"own"
    )


def to_vectors(
    key: str, column: pa.ChunkedArray, batch: pa.Table, known: Vectors | None, problems: Problems
) -> tuple[Vectors, pa.FixedSizeListArray] | None:
    """Return embeddings as fixed-size lists, and what they look like.

    Lists of float64 become float32. Where the version has float32, lists of float16 are widened,
    which changes no number.

    Args:
        key: the column that names a row, for messages.
        column: the embeddings.
        batch: the rows that they belong to.
        known: what the version's embeddings look like; None where there are none yet.
        problems: receives what is wrong; then None is returned.
    """
    if not _is_list(column.type) or not pa.types.is_floating(column.type.value_type):
        problems.add(
            f"column 'embedding' is {column.type}; expected lists of float16 or float32 numbers, "
            f"all of one width; cast it"
        )
        return None
    is_half = pa.types.is_float16(column.type.value_type)
    if known is not None and known.type == "float16" and not is_half:
        problems.add(
            f"column 'embedding' has {column.type.value_type} numbers, and this embedding version "
            f"has float16; expected float16, because the others would lose digits; cast it, or "
            f"write a new version"
        )
        return None
    rows = pa.table({key: batch[key], "embedding": column})
    width = known.embedding_dim if known else 0
    matrix = problems.note(embedding_matrix, problems.place, key, rows, width)
    if matrix is None:
        return None
    vectors = known or Vectors(
        embedding_dim=matrix.shape[1], type="float16" if is_half else "float32"
    )
    if vectors.type == "float16":
        matrix = matrix.astype(np.float16)
    return vectors, to_list_column(matrix)


def _is_list(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(type_) for is_kind in kinds)
