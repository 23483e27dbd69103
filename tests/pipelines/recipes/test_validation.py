"""Bad values of a recipe: each is named by its place, with what stands there and is allowed."""

from typing import Any

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import RECIPES, smoke
from pipelines.recipes.validation import validated


def fields(**sections: dict[str, Any]) -> dict[str, Any]:
    """Return the smoke recipe's JSON form with some values replaced."""
    found = smoke().model_dump(mode="json")
    for name, values in sections.items():
        found[name] |= values
    return found


def told(value: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        validated(value, "here")
    first, *lines, last = str(caught.value).splitlines()
    assert first == "recipe here is not valid:" and "homefeed recipe show" in last
    return lines


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_sound_value_stays_what_it_is(name: str) -> None:
    assert validated(RECIPES[name]().model_dump(mode="json"), "here") == RECIPES[name]()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (
            fields(training={"learnin_rate": 1}),
            "- training.learnin_rate: there is no such field; did you mean training.learning_rate?",
        ),
        (
            fields() | {"learning_rate": 1},
            "- learning_rate: there is no such field; did you mean training.learning_rate?",
        ),
        (
            fields(snapshot={"zzz": 1}),
            "- snapshot.zzz: there is no such field; expected one of embedding_version, "
            "training_days, embargo_days, holdout_days, label_window_hours, history_days, "
            "popularity_days, core_days, num_shards",
        ),
        (
            fields(training={"num_epochs": "2"}),
            '- training.num_epochs is "2": input should be a valid integer (passes over the '
            "training window)",
        ),
        (
            fields(training={"num_epochs": True}),
            "- training.num_epochs is true: input should be a valid integer (passes over the "
            "training window)",
        ),
        (
            fields(training={"precision": 16}),
            "- training.precision is 16: input should be '32-true', 'bf16-mixed' or '64-true' "
            "(arithmetic of training; 64-true, slow, compares trainings beyond rounding)",
        ),
        (
            fields(training={"learning_rate": float("nan")}),
            "- training.learning_rate is NaN: input should be a finite number (peak rate of Adam)",
        ),
        (fields() | {"model": 7}, "- model is 7: input should be an object"),
        (
            fields() | {"source": "elsewhere"},
            "- source: this is set by who reads the recipe; remove the field",
        ),
    ],
)
def test_a_bad_value_is_named(value: dict[str, Any], line: str) -> None:
    assert told(value) == [line]


def test_all_that_is_wrong_is_said_at_once() -> None:
    value = fields(
        features={"heads": [{"name": "repin", "action": "repin", "utility_weight": 1}]},
        snapshot={"embargo_days": 0},
    )
    del value["serving"], value["model"]
    assert told(value) == [
        "- features.heads[0].action_type is missing (the action type whose presence is the label)",
        "- features.heads[0].action: there is no such field; did you mean "
        "features.heads[0].action_type?",
        "- snapshot.embargo_days=0 is shorter than snapshot.label_window_hours=24: a training "
        "label could come from the holdout; set embargo_days to at least 1",
        "- model is missing",
    ]
