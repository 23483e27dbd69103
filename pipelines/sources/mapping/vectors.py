"""Embeddings of items that have none: from their texts, without anything that is fitted.

The n-grams of characters within words are hashed (scikit-learn's HashingVectorizer), counted by
their logarithms, and projected at random (Achlioptas, Database-friendly random projections, 2003).
So the same text has the same vector for ever, a new item is folded in by itself, and texts that
share words and stems are near each other.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

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
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)


@cache
def _signs(width: int) -> npt.NDArray[np.float32]:
    """Return random signs, float32 (hashes, width), the same for ever."""
    bits = np.random.Generator(np.random.PCG64(20170401)).integers(0, 2, (_NUM_HASHES, width))
    return (2 * bits - 1).astype(np.float32)
