"""The schema of each snapshot file follows the recipe's features."""

import pytest

from pipelines.contracts import schemas
from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.schemas import PIN_ROWS, PIN_TIME, snapshot_schema
from pipelines.recipes import smoke

PLACES = {"state": "users", "surface": "impressions", "brand": "pins"}
LISTS = tuple(CategoricalFeature(name=n, table=t, values=("a",)) for n, t in PLACES.items())
FEATURES = smoke().features.model_copy(update={"categorical": LISTS})
FLOATS = ("pin_popularity", "past_engagements", *(f"pin_popularity_{n}d" for n in (1, 7, 28)))
OF_EXAMPLES = {"cat_surface": "int16"} | {f"num_{name}": "float" for name in FLOATS}
OF_EXAMPLES |= {"num_pin_age": "float", "num_pin_age_missing": "int8"}
OF_EXAMPLES |= {f"label_{name}": "int8" for name in ("repin", "long_click", "save")}


@pytest.mark.parametrize(
    ("file", "keys", "added"),
    [
        ("timeline", schemas.TIMELINE, {}),
        ("requests", schemas.REQUESTS, {}),
        ("users", schemas.USER_ROWS, {"cat_state": "int16"}),
        ("pins", PIN_ROWS.append(PIN_TIME), {"cat_brand": "int16"}),
        ("examples", schemas.EXAMPLE_KEYS, OF_EXAMPLES),
    ],
)
def test_a_file_has_its_own_columns_then_the_recipes(file, keys, added) -> None:
    schema = snapshot_schema(file, FEATURES, embedding_dim=7, has_pin_times=True)
    own, others = list(schema)[: len(keys)], list(schema)[len(keys) :]
    assert {field.name: str(field.type) for field in others} == added
    assert [field.name for field in own] == keys.names
    assert all(field.type.list_size == 7 for field in own if field.name == "embedding")
    assert not any(field.nullable for field in schema)
