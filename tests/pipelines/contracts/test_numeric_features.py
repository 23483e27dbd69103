"""What a recipe may say of numeric features, and the columns that follow from it."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.contracts.config import FeatureConfig, NumericFeature, RunConfig
from pipelines.contracts.features import BASELINE_FEATURES
from pipelines.contracts.schemas import snapshot_schema
from pipelines.recipes import completejourney, smoke

BRAND = {"name": "brand", "table": "pins", "values": ("a",)}


def features_with(*numeric: dict[str, Any], **changes: Any) -> FeatureConfig:
    fields = smoke().features.model_dump() | {"numeric": numeric} | changes
    return FeatureConfig.model_validate(fields)


def test_a_saved_recipe_of_before_loads_and_keeps_its_digest() -> None:
    saved = json.loads(completejourney().model_dump_json())
    assert saved["features"]["numeric"] == [
        {"name": "pin_popularity"},
        {"name": "past_engagements"},
    ]
    assert RunConfig.model_validate(saved) == completejourney()
    digest = "7b836ba60458f4a33daf19d04d5e5a9b70369551e468b1fc2ea9662cb3d0a28f"
    assert completejourney().recipe_digest == digest


def test_options_survive_json_and_only_those_that_were_given() -> None:
    feature = NumericFeature(name="similarity_decayed", half_life_days=3)
    assert json.loads(feature.model_dump_json()) == {
        "name": "similarity_decayed",
        "half_life_days": 3.0,
    }
    assert NumericFeature.model_validate_json(feature.model_dump_json()) == feature
    assert (feature.option("half_life_days"), feature.option("num_actions")) == (3.0, 50.0)
    assert feature.label == "similarity_decayed (half_life_days=3.0)"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "pin_popularity", "days": 3}, "has no option 'days'; expected no option"),
        ({"name": "pin_age", "days": 3}, r"expected some of \['column'\]"),
        ({"name": "since_last_touch_of_category"}, "needs the option 'category'"),
        ({"name": "weekday", "may_be_missing": True}, "has no option 'may_be_missing'"),
        ({"name": "similarity_best", "num_actions": 0}, "greater than or equal to 1"),
        ({"name": "wekday"}, "did you mean 'weekday'"),
        ({"name": "weekday", "half_live_days": 3}, "Extra inputs are not permitted"),
    ],
)
def test_a_feature_that_cannot_be_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        NumericFeature.model_validate(fields)


@pytest.mark.parametrize(
    ("numeric", "expected"),
    [
        ({"name": "user_actions:hide"}, "'user_actions:hide' counts an action type that is not in"),
        (
            {"name": "since_last_touch_of_category", "category": "color"},
            r"category='color'; expected a categorical feature of pins: \('brand',\)",
        ),
    ],
)
def test_a_feature_needs_the_rest_of_the_recipe(numeric: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        features_with(numeric, categorical=(BRAND,))


def test_two_features_with_one_column_are_refused() -> None:
    with pytest.raises(ValidationError, match="two features have the column 'pins.x_missing'"):
        features_with({"name": "pins.x"}, {"name": "pins.x_missing"})
    with pytest.raises(ValidationError, match="names must be unique"):
        features_with({"name": "pins.x"}, {"name": "pins.x"})


def test_the_model_is_told_of_a_feature_and_then_of_its_flag() -> None:
    features = features_with(
        {"name": "weekday"}, {"name": "pin_age"}, {"name": "a.b:c"}, {"name": "users.spent"}
    )
    told = ("weekday", "pin_age", "pin_age_missing", "a.b:c", "users.spent", "users.spent_missing")
    assert features.numeric_inputs == told


def test_a_snapshot_holds_the_baselines_and_what_is_chosen() -> None:
    chosen = features_with({"name": "weekday"}, {"name": "pin_age", "column": "created_at"})
    held = {feature.name: feature for feature in chosen.numeric_held}
    assert tuple(held) == (*BASELINE_FEATURES, "weekday")
    assert held["pin_age"].column == "created_at"
    names = snapshot_schema("examples", chosen).names
    assert [name for name in names if name.startswith("num_")][-3:] == [
        "num_pin_age",
        "num_pin_age_missing",
        "num_weekday",
    ]
