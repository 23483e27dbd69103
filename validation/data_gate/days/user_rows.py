"""Users' rows without their embeddings: what a day's numbers need of each, in a few bytes.

An embedding is projected onto a few fixed directions, so that two million users of any width fit
into memory. Lengths and angles between projections are those of the embeddings up to noise, which
averages out over users (Johnson and Lindenstrauss, 1984). Not for single users' embeddings.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.hashing import hash_rows, mix
from validation.data_gate.days.queries import NUM_PROJECTIONS

_KEPT = pa.schema(
    {
        "u": pa.int64(),
        "as_of": pa.int64(),
        "state": pa.string(),
        "is_zero": pa.bool_(),
        "vector": pa.uint64(),  # equal for equal embeddings
        "length": pa.float32(),
        **{f"q{n}": pa.float32() for n in range(NUM_PROJECTIONS)},
    }
)


def summarise_users(parts: Iterable[pa.Table]) -> pa.Table:
    """Return one short row for each row of users, by user and time.

    Args:
        parts: Tables with user_id, as_of (ms), state and embedding (fixed-size lists, finite).

    Returns:
        u, as_of, state, is_zero, vector (a hash of the embedding), length, q0 and so on, and
        likeness: the cosine of the projection with that of the user's row before; null for the
        first row of a user, and where one of the two is zero.
    """
    rows = pa.concat_tables([_KEPT.empty_table(), *(_summarise(part) for part in parts)])
    order = np.lexsort((to_numpy(rows["as_of"]), to_numpy(rows["u"])))
    rows = rows.take(pa.array(order)).combine_chunks()
    return rows.append_column("likeness", _likeness(rows))


def _summarise(part: pa.Table) -> pa.Table:
    vectors = to_numpy(part["embedding"]).astype(np.float32)
    # In double precision these sums are exact. Rounded to single precision on the way they would
    # depend on how many rows the processor multiplies at once, so on what else is in this part.
    projected = (vectors.astype(np.float64) @ _directions(vectors.shape[1])).astype(np.float32)
    columns = {
        "u": part["user_id"],
        "as_of": part["as_of"],
        "state": part["state"].cast(pa.string()),
        "is_zero": ~vectors.any(axis=1),
        "vector": hash_rows(vectors),
        "length": np.sqrt((vectors**2).sum(axis=1)),
        **{f"q{n}": projected[:, n] for n in range(NUM_PROJECTIONS)},
    }
    return pa.table(columns, schema=_KEPT)


def _directions(width: int) -> npt.NDArray[np.float64]:
    """Return a fixed [width, NUM_PROJECTIONS] matrix of 1 and -1, scaled so that lengths stay."""
    signs = mix(np.arange(width * NUM_PROJECTIONS), width) >> np.uint64(63)
    matrix = (signs.astype(np.float64) * 2 - 1).reshape(width, NUM_PROJECTIONS)
    return matrix / np.sqrt(NUM_PROJECTIONS)


def _likeness(rows: pa.Table) -> pa.Array:
    """Return each row's cosine with the row before it, where that is of the same user."""
    projected = np.stack([to_numpy(rows[f"q{n}"]) for n in range(NUM_PROJECTIONS)], axis=1)
    user = to_numpy(rows["u"])
    before, after = projected[:-1], projected[1:]
    scale = np.sqrt((before**2).sum(axis=1) * (after**2).sum(axis=1))
    is_pair = (user[1:] == user[:-1]) & (scale > 0)
    cosine = np.full(len(rows), np.nan)
    products: npt.NDArray[Any] = (before * after).sum(axis=1)
    cosine[1:][is_pair] = products[is_pair] / scale[is_pair]
    return pa.array(cosine, from_pandas=True)
