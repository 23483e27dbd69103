"""Ranking requests for a small bundle, and the same requests as a snapshot's batch has them."""

from typing import Any

import numpy as np
import pyarrow as pa

from training.bundle.files import BundleConfig


def arrow_of(requests: list[dict]) -> bytes:
    """Return requests as an Arrow stream has them."""
    table, sink = pa.Table.from_pylist(requests), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def ranking_request(config: BundleConfig, num: int = 3, name: str = "r1", seed: int = 1) -> dict:
    """Return a request with two actions and some candidates."""
    rng, width, features = np.random.default_rng(seed), config.embedding_dim, config.features
    candidates: dict[str, Any] = {
        "pin_id": [7, *range(100, 99 + num)],
        "embedding": rng.normal(size=(num, width)).tolist(),
    }
    candidates |= {each.name: each.values[0] for each in features.categorical}
    candidates |= {each.name: rng.random(num).tolist() for each in features.numeric}
    return {
        "request_id": name,
        "user": {"embedding": rng.normal(size=width).tolist()},
        "actions": {
            "action_type": list(features.action_types[:2]),
            "pin_id": [7, 8],
            "embedding": rng.normal(size=(2, width)).tolist(),
            "age_ms": [1_000, 90_000],
        },
        "candidates": candidates,
    }
