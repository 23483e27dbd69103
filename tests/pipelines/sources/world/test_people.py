import numpy as np
import pyarrow.parquet as pq

from pipelines.contracts.schemas import EMBEDDING_DIM


def test_embeddings_are_unit_vectors_that_tell_topics_apart(written) -> None:
    pins = pq.read_table(written[0] / "event_log" / "pins")
    vectors = np.array(pins["embedding"].to_pylist())
    assert vectors.shape == (300, EMBEDDING_DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    topic = np.asarray(pq.read_table(written[0] / "event_log" / "truth" / "pins")["topic"])
    cosines = vectors @ vectors.T
    is_same = topic[:, None] == topic[None, :]
    assert cosines[is_same].mean() > 0.5
    assert abs(cosines[~is_same].mean()) < 0.2
