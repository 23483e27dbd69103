"""Embeddings from planted purchases; the whole sample's are in test_adapter.py."""

from datetime import UTC, datetime

import numpy as np
import pytest

from pipelines.contracts.time import DAY_MS
from pipelines.sources.completejourney import embeddings, events


def test_a_product_unseen_before_the_basis_is_folded_in_from_its_content() -> None:
    own = np.zeros((4, embeddings.EMBEDDING_DIM))
    own[0, 0] = own[1, 1] = 1.0
    department = np.array([0, 1, 0, 1])
    folded = embeddings._fold(own, np.array([50.0, 50.0, 0.0, 0.0]), [department])
    assert folded[2] @ folded[0] > 0.9  # same department
    assert folded[2] @ folded[1] < 0.3
    assert np.linalg.norm(folded, axis=1) == pytest.approx(1.0)


def test_user_rows_know_nothing_of_their_own_day_or_later() -> None:
    """Leaving out everything from a Monday on leaves that Monday's rows as they are."""
    monday = int(datetime(2017, 3, 6, tzinfo=UTC).timestamp()) * 1000
    generator = np.random.default_rng(0)
    count = 4000
    time_ms = np.sort(monday + generator.integers(-60 * DAY_MS, 60 * DAY_MS, count))
    purchases = events.Purchases(
        user_id=generator.integers(1, 50, count),
        basket_id=np.arange(count),
        pin_id=generator.integers(0, 30, count),
        time_ms=time_ms,
        num_units=np.ones(count, dtype=np.int64),
        has_coupon=np.zeros(count, dtype=bool),
        store_week=np.zeros(count, dtype=np.int64),
        promotion=generator.integers(-1, 1, count),
    )
    before = time_ms < monday
    past = events.Purchases(
        *(getattr(purchases, n)[before] for n in purchases.__dataclass_fields__)
    )
    vectors = embeddings.embedding_lists(generator.normal(size=(30, embeddings.EMBEDDING_DIM)))
    pins = embeddings.pa.table({"pin_id": np.arange(30), "embedding": vectors})
    all_rows, past_rows = (
        [r for r in embeddings.make_users(p, pins).to_pylist() if r["as_of"] <= monday]
        for p in (purchases, past)
    )
    assert all_rows == past_rows
    assert {row["state"] for row in all_rows} == {"new", "core"}
