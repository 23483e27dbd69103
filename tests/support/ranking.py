"""Ranking requests for a small bundle, and the same requests as a snapshot's batch has them."""

from typing import Any

import numpy as np

from pipelines.contracts.config import flag_name
from training.bundle.files import BundleConfig
from training.data.batches import Batch


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


def requests_of(batch: Batch, config: BundleConfig) -> list[dict]:
    """Return the requests of a batch, as a client would give them."""
    features, found = config.features, []
    for row in range(len(batch.users_RE)):
        own, is_action = batch.request_of_C == row, batch.action_types_RS[row] > 0
        codes, numbers = batch.categorical_CG[own].numpy(), batch.numeric_CN[own].numpy()
        columns: dict[str, Any] = {
            "pin_id": batch.candidate_pin_keys_C[own].tolist(),
            "embedding": batch.candidate_pins_CE[own].tolist(),
        }
        for g, each in enumerate(features.categorical):
            columns[each.name] = [("no such value", *each.values)[code] for code in codes[:, g]]
        places = {name: n for n, name in enumerate(features.numeric_inputs)}
        for each in features.numeric:
            values = numbers[:, places[each.name]].astype(float).tolist()
            if each.has_flag:
                is_missing = numbers[:, places[flag_name(each.name)]]
                values = [None if m else v for v, m in zip(values, is_missing, strict=True)]
            columns[each.name] = values
        types = batch.action_types_RS[row][is_action].tolist()
        actions = {
            "action_type": [features.action_types[code - 1] for code in types],
            "pin_id": batch.action_pin_keys_RS[row][is_action].tolist(),
            "embedding": batch.action_pins_RSE[row][is_action].tolist(),
            "age_ms": batch.action_ages_ms_RS[row][is_action].tolist(),
        }
        user = {"embedding": batch.users_RE[row].tolist()}
        found.append({"request_id": f"{row}", "user": user, "actions": actions if types else {}})
        found[-1]["candidates"] = columns
    return found
