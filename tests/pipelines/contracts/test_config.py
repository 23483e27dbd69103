"""Recipes that contradict themselves are refused by option; digests, and columns of features."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.contracts.config import (
    FeatureConfig,
    Limit,
    NumericFeature,
    RelativeLimit,
    RunConfig,
)
from pipelines.contracts.features import BASELINE_FEATURES
from pipelines.contracts.schemas import snapshot_schema
from pipelines.recipes import completejourney, smoke

STATE = {"name": "state", "table": "users", "values": ["core"]}
BRAND = {"name": "brand", "table": "pins", "values": ["a"]}
WEIGHTS = [{"feature": "state", "value": "core", "weight": 2}]
OF_CATEGORY = {"name": "since_last_touch_of_category"}
HIDDEN = smoke().features.model_dump()["heads"][0] | {"is_wanted": False}


def changed(section: str, **values: Any) -> dict[str, Any]:
    """Return the smoke recipe's JSON form with some values of one section replaced."""
    recipe = smoke().model_dump(mode="json")
    recipe[section] |= values
    return recipe


OF_FEATURES = [
    ({"action_types": ["click"]}, "head 'repin' needs action type 'repin'"),
    ({"categorical": [STATE, STATE]}, "features.categorical: names must be unique"),
    ({"numeric": [{"name": "pins.x"}] * 2}, "names must be unique"),
    ({"action_types": [str(n) for n in range(128)]}, "at most 127 items"),
    ({"categorical": [STATE | {"values": [str(n) for n in range(32_768)]}]}, "at most 32767 items"),
    (
        {"categorical": [STATE], "user_weights": [WEIGHTS[0] | {"value": "none"}]},
        "found state='none'; expected a categorical feature",
    ),
    ({"categorical": [], "user_weights": WEIGHTS}, "found state='core'; expected a categorical"),
    ({"numeric": [{"name": "user_actions:hide"}]}, "'user_actions:hide' counts an action type"),
    (
        {"categorical": [BRAND], "numeric": [OF_CATEGORY | {"category": "color"}]},
        r"category='color'; expected a categorical feature of pins: \('brand',\)",
    ),
    (
        {"numeric": [{"name": "pins.x"}, {"name": "pins.x_missing"}]},
        "features.numeric: names must be unique, found .*'pins.x_missing'",
    ),
    ({"heads": [HIDDEN]}, "'hit_at_3.repin' needs a relative limit"),
]


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        *(("features", *each) for each in OF_FEATURES),
        (
            "snapshot",
            {"embargo_days": 0, "label_window_hours": 25},
            "embargo_days=0 is shorter than .*=25: .* set embargo_days to at least 2",
        ),
        ("snapshot", {"holdout_weeks": 1}, "Extra inputs are not permitted"),
        ("model_gate", {"floors": [{"metric": "ece"}]}, "neither minimum nor maximum"),
        ("model_gate", {"guardrails": [{"metric": "ece"}]}, "neither max_increase nor max_decrea"),
        ("model_gate", {"guardrails": [{"metric": "e", "max_increase": -1}]}, "or equal to 0"),
    ],
)
def test_what_contradicts_itself_is_named(
    section: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        RunConfig.model_validate(changed(section, **values))


def test_a_bound_of_zero_is_a_bound() -> None:
    assert Limit(metric="ece", minimum=0.0).minimum == 0.0
    assert RelativeLimit(metric="ece", max_decrease=0.0).max_decrease == 0.0


def test_a_saved_recipe_loads_and_keeps_its_digest_wherever_it_was_read() -> None:
    base, saved = completejourney(), json.loads(completejourney().model_dump_json())
    assert [*saved["features"]["numeric"]] == [
        {"name": "pin_popularity"},
        {"name": "past_engagements"},
    ]
    assert RunConfig.model_validate(saved) == base and "source" not in saved
    digest = "09e388cf5f5646b6bcc44dc49980f3c5659bc492d9601516e9ea98eea8b6c231"
    assert base.recipe_digest == digest
    outside = base.model_copy(update={"recipe": "mine", "source": "s3://bucket/mine.yaml"})
    assert outside.recipe_digest == digest
    assert RunConfig.model_validate_json(outside.model_dump_json()) == outside
    assert base.recipe_ref.label == f"completejourney ({digest[:12]})"
    assert outside.recipe_ref.label == f"mine ({digest[:12]}, s3://bucket/mine.yaml)"


def test_options_of_a_feature_survive_json_and_only_those_that_were_given() -> None:
    feature, given = NumericFeature(name="similarity_decayed", half_life_days=3), "half_life_days"
    assert json.loads(feature.model_dump_json()) == {"name": "similarity_decayed", given: 3.0}
    assert NumericFeature.model_validate_json(feature.model_dump_json()) == feature
    assert (feature.option(given), feature.option("num_actions")) == (3.0, 50.0)
    assert feature.label == "similarity_decayed (half_life_days=3.0)"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "pin_popularity", "days": 3}, "has no option 'days'; expected no option"),
        ({"name": "pin_age", "days": 3}, r"expected some of \['column'\]"),
        (OF_CATEGORY, "needs the option 'category'"),
        ({"name": "weekday", "may_be_missing": True}, "has no option 'may_be_missing'"),
        ({"name": "similarity_best", "num_actions": 0}, "greater than or equal to 1"),
        ({"name": "wekday"}, "did you mean 'weekday'"),
        ({"name": "weekday", "half_live_days": 3}, "Extra inputs are not permitted"),
    ],
)
def test_a_feature_that_cannot_be_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        NumericFeature.model_validate(fields)


def test_a_snapshot_holds_the_baselines_and_what_is_chosen_each_with_its_flag() -> None:
    numeric = [
        *({"name": "weekday"}, {"name": "pin_age", "column": "created_at"}),
        *({"name": "a.b:c"}, {"name": "users.spent"}),
    ]
    chosen = FeatureConfig.model_validate(changed("features", numeric=numeric)["features"])
    told = ("weekday", "pin_age", "pin_age_missing", "a.b:c", "users.spent", "users.spent_missing")
    assert chosen.numeric_inputs == told
    held = {feature.name: feature for feature in chosen.numeric_held}
    assert tuple(held) == (*BASELINE_FEATURES, "weekday", "a.b:c", "users.spent")
    assert held["pin_age"].column == "created_at"
    numbers = [name for name in snapshot_schema("examples", chosen).names if "num_" in name]
    ends = ("pin_age", "pin_age_missing", "weekday", "a.b:c", "users.spent", "users.spent_missing")
    assert numbers[-6:] == [f"num_{name}" for name in ends]
