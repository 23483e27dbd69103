"""The schema of each snapshot file follows the recipe's features."""

import pyarrow as pa
import pytest

from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.schemas import (
    EXAMPLE_KEYS,
    PIN_ROWS,
    REQUESTS,
    TIMELINE,
    USER_ROWS,
    snapshot_schema,
)
from pipelines.recipes import smoke

FEATURES = smoke().features.model_copy(
    update={
        "categorical": (
            CategoricalFeature(name="state", table="users", values=("core",)),
            CategoricalFeature(name="surface", table="impressions", values=("search",)),
            CategoricalFeature(name="brand", table="pins", values=("private",)),
        )
    }
)


@pytest.mark.parametrize(
    ("file", "keys", "added"),
    [
        ("timeline", TIMELINE, {}),
        ("requests", REQUESTS, {}),
        ("users", USER_ROWS, {"cat_state": pa.int16()}),
        ("pins", PIN_ROWS, {"cat_brand": pa.int16()}),
        (
            "examples",
            EXAMPLE_KEYS,
            {
                "cat_surface": pa.int16(),
                "num_pin_popularity": pa.float32(),
                "num_past_engagements": pa.float32(),
                "num_pin_popularity_1d": pa.float32(),
                "num_pin_popularity_7d": pa.float32(),
                "num_pin_popularity_28d": pa.float32(),
                "num_pin_age": pa.float32(),
                "num_pin_age_missing": pa.int8(),
                "label_repin": pa.int8(),
                "label_long_click": pa.int8(),
                "label_save": pa.int8(),
            },
        ),
    ],
)
def test_a_file_has_its_own_columns_then_the_recipes(
    file: str, keys: pa.Schema, added: dict[str, pa.DataType]
) -> None:
    schema = snapshot_schema(file, FEATURES)
    assert {field.name: field.type for field in list(schema)[len(keys) :]} == added
    assert list(schema)[: len(keys)] == list(keys)
    assert not any(field.nullable for field in schema)
