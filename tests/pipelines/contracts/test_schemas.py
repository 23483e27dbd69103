"""The schema of each snapshot file follows the recipe's features."""

import pytest

from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.schemas import (
    EXAMPLE_KEYS,
    PIN_ROWS,
    PIN_TIME,
    REQUESTS,
    TIMELINE,
    USER_ROWS,
    snapshot_schema,
)
from pipelines.recipes import smoke

PLACES = {"state": "users", "surface": "impressions", "brand": "pins"}
FEATURES = smoke().features.model_copy(
    update={
        "categorical": tuple(
            CategoricalFeature(name=name, table=table, values=("a",))
            for name, table in PLACES.items()
        )
    }
)
ADDED = {
    "timeline": (TIMELINE, {}),
    "requests": (REQUESTS, {}),
    "users": (USER_ROWS, {"cat_state": "int16"}),
    "pins": (PIN_ROWS.append(PIN_TIME), {"cat_brand": "int16"}),
    "examples": (
        EXAMPLE_KEYS,
        {"cat_surface": "int16", "num_pin_popularity": "float", "num_past_engagements": "float"}
        | {f"num_pin_popularity_{days}d": "float" for days in (1, 7, 28)}
        | {"num_pin_age": "float", "num_pin_age_missing": "int8"}
        | {f"label_{name}": "int8" for name in ("repin", "long_click", "save")},
    ),
}


@pytest.mark.parametrize("file", ADDED)
def test_a_file_has_its_own_columns_then_the_recipes(file: str) -> None:
    keys, added = ADDED[file]
    schema = snapshot_schema(file, FEATURES, embedding_dim=7, has_pin_times=True)
    own, others = list(schema)[: len(keys)], list(schema)[len(keys) :]
    assert {field.name: str(field.type) for field in others} == added
    assert [field.name for field in own] == keys.names
    assert all(field.type.list_size == 7 for field in own if field.name == "embedding")
    assert not any(field.nullable for field in schema)
