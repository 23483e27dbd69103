"""Embeddings of items that have none: of their texts, of who chose what up to a day, or of both.

Of texts, nothing is fitted: the n-grams of characters within words are hashed (scikit-learn's
HashingVectorizer), counted by their logarithms, and projected at random (Achlioptas,
Database-friendly random projections, 2003). So the same text has the same vector for ever, a new
item is folded in by itself, and texts that share words and stems are near each other.

Of choices, log(1 + count) of each user's actions on each item is divided by the item's and by the
user's length, so that neither what is popular nor who is busy outweighs others, and factorised
(scikit-learn's TruncatedSVD; Halko, Martinsson, Tropp, Finding structure with randomness, 2011).
Items that nobody chose before the day have zeros there.

Letters: N items, E width.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.errors import DataContractError
from pipelines.sources.event_log_writer import id_of

_SEED = 20170401
_NUM_HASHES = 1 << 16
_NGRAMS = (3, 5)


def vectors_of(texts: list[str], width: int) -> npt.NDArray[np.float32]:
    """Return a vector of length 1 for each text, or zeros for an empty one, float32 (N, width)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(
        analyzer="char_wb", ngram_range=_NGRAMS, n_features=_NUM_HASHES, norm=None
    )
    counts = hashing.transform(texts)
    counts.data = np.sign(counts.data) * np.log1p(np.abs(counts.data))
    found = (counts @ _signs(width)).astype(np.float32)
    return _of_length_1(found)


def co_occurrence_of(chosen: pa.Table, width: int) -> dict[int, npt.NDArray[np.float32]]:
    """Return a vector of length 1, float32 (E,), for each item that was chosen, by its id.

    Args:
        chosen: user_id, pin_id and num, how many actions of that user there were on that item.
        width: E; columns beyond what so few users and items span are zero.

    Raises:
        DataContractError: fewer than three users or items.
    """
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    users, pins = (
        chosen[name].combine_chunks().dictionary_encode() for name in ("user_id", "pin_id")
    )
    shape = len(users.dictionary), len(pins.dictionary)
    if min(shape) < 3:
        raise DataContractError(
            f"vectors.co_occurrence: {shape[0]} users chose {shape[1]} items before its day; "
            f"expected many of both; give the actions before it, or a later day"
        )
    places = users.indices.to_numpy(), pins.indices.to_numpy()
    counts = csr_matrix((np.log1p(chosen["num"].to_numpy()), places), shape=shape)
    svd = TruncatedSVD(min(width, min(shape) - 1), random_state=_SEED)
    svd.fit(normalize(normalize(counts, axis=0), axis=1))
    found = np.zeros((shape[1], width), np.float32)
    found[:, : svd.n_components] = svd.components_.T * np.sqrt(svd.singular_values_)
    ids = (id_of(pin) if isinstance(pin, str) else pin for pin in pins.dictionary.to_pylist())
    return dict(zip(ids, _of_length_1(found), strict=True))


def _of_length_1(found_NE: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(found_NE, axis=1, keepdims=True)
    return np.divide(found_NE, lengths, out=np.zeros_like(found_NE), where=lengths > 0)


@cache
def _signs(width: int) -> npt.NDArray[np.float32]:
    """Return random signs, float32 (hashes, width), the same for ever."""
    bits = np.random.Generator(np.random.PCG64(_SEED)).integers(0, 2, (_NUM_HASHES, width))
    return (2 * bits - 1).astype(np.float32)
