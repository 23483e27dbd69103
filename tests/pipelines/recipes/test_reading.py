"""A file's text becomes plain values and then a recipe, or an error of ours that says where."""

from typing import Any

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import RECIPES, smoke
from pipelines.recipes.reading import parse, validated


def said(text: str, is_toml: bool = False) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "here", is_toml)
    assert caught.value.exit_code == 78
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: x\0y\n", "the character '\\x00' is not allowed at line 2; correct"),
        ("a: \x07\n", "the character '\\x07' is not allowed at line 1"),
        ("a: 1\nb: !!int abc\n", "has no tags, and this is !!int at line 2, column 4"),
        ("a: !!set {b}\n", "this is !!set at line 1"),
        ("a: !!python/name:os.getcwd\n", "this is !!python/name:os.getcwd at line 1"),
        ("a: !mine {b: 1}\n", "this is !mine at line 1"),
        ("a:\n  3: x\n", "field '3' is no text in YAML; expected one in quotes at line 2"),
        ("yes: x\n", "field 'yes' is no text"),
        ("~: x\n", "field '~' is no text"),
        ("a: 0b_\n", "'0b_' is no number"),
        (f"a: {'9' * 5000}\n", f"'{'9' * 40}' is no number (Exceeds the limit"),
        (f"a: {'[' * 2000}{']' * 2000}", "it is nested too deep; expected sections"),
        (f"a: {'{b: ' * 2000}1{'}' * 2000}", "it is nested too deep; expected sections"),
        ("a: 1\nb: &c {d: 1}\n", "no anchors (&) and aliases (*), and this is 'c' at line 2"),
        ("a: *b", "no anchors (&) and aliases (*), and this is 'b' at line 1"),
    ],
)
def test_what_yaml_may_not_hold_is_named_with_its_line(text: str, says: str) -> None:
    message = said(text)
    assert message.startswith("recipe here cannot be read as YAML: ")
    assert says in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"a = {'[' * 2000}{']' * 2000}", "cannot be read as TOML: it is nested too deep"),
        (f"a = {'9' * 5000}", "cannot be read as TOML: Exceeds the limit"),
        ("a = 'x\0'", "cannot be read as TOML: Found invalid character '\\x00' (at line 1"),
    ],
)
def test_what_toml_may_not_hold_is_named(text: str, says: str) -> None:
    assert says in said(text, is_toml=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2026-13-45", {"a": "2026-13-45"}),
        ("a: [2026-01-02, 1e-3, 0x1F, yes, ~, '3', =]", None),
        ("", None),
    ],
)
def test_the_rest_is_plain_values(text: str, value: Any) -> None:
    expected = value or ({"a": ["2026-01-02", 0.001, 31, True, None, "3", "="]} if text else None)
    assert parse(text, "here", is_toml=False) == expected


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
