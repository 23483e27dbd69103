"""A file's text becomes a recipe, or an error that says where; a recipe becomes text again."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.config import CategoricalFeature, RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import RECIPES, make_recipe, smoke
from pipelines.recipes.text import differences, parse, to_yaml, validated


@pytest.mark.parametrize(
    ("text", "is_toml", "says"),
    [
        ("a: \x07\n", False, "as YAML: unacceptable character #x0007"),
        ("a: !!python/name:os.getcwd\n", False, "could not determine a constructor for the tag"),
        ("a: 2026-13-45\n", False, "month must be in 1..12"),
        (f"a: {'9' * 5000}\n", False, "Exceeds the limit"),
        (f"a: {'[' * 2000}{']' * 2000}", False, "it is nested too deep; expected sections"),
        (
            "a: 1\nb: &c {d: 1}\ne: *c\n",
            False,
            "a recipe has no aliases (*) in .* line 3, column 4",
        ),
        ("a: 1\nb: 2\na: 3\n", False, "field 'a' stands twice in .* line 3, column 1"),
        (f"a = {'[' * 2000}{']' * 2000}", True, "as TOML: it is nested too deep"),
        ("a = 'x\0'", True, "as TOML: Found invalid character '\\x00' (at line 1"),
    ],
)
def test_what_a_text_may_not_hold_is_named_with_its_place(
    text: str, is_toml: bool, says: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "here", is_toml)
    said, parts = str(caught.value), says.split(" .* ")
    assert said.startswith("recipe here cannot be read as ") and caught.value.exit_code == 78
    assert all(part in said for part in parts), said


def test_the_rest_is_plain_values() -> None:
    found = parse("a: [1e-3, 0x1F, yes, ~, '3']\nb: {c: x}", "here", is_toml=False)
    assert found == {"a": [0.001, 31, True, None, "3"], "b": {"c": "x"}}
    assert parse("", "here", is_toml=False) is None


def fields(**sections: Any) -> dict[str, Any]:
    """Return the smoke recipe's JSON form with some values replaced."""
    found = smoke().model_dump(mode="json", exclude={"source"})
    for name, values in sections.items():
        found[name] = found[name] | values if isinstance(values, dict) else values
    return found


def told(value: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        validated(value, "here")
    first, *lines, last = str(caught.value).splitlines()
    assert first == "recipe here is not valid:" and "homefeed recipe show" in last
    return lines


UNKNOWN = "there is no such field; "


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (
            fields(training={"learnin_rate": 1}),
            f"training.learnin_rate: {UNKNOWN}did you mean training.learning_rate?",
        ),
        (
            fields() | {"learning_rate": 1},
            f"learning_rate: {UNKNOWN}did you mean training.learning_rate?",
        ),
        (
            fields(model={"learning_rate": 1}),
            f"model.learning_rate: {UNKNOWN}did you mean training.learning_rate?",
        ),
        (fields(data_gate={"is_on": 1}), f"data_gate.is_on: {UNKNOWN}expected one of "),
        (
            fields(snapshot={"zzz": 1}),
            f"snapshot.zzz: {UNKNOWN}expected one of embedding_version, training_days, "
            "embargo_days, holdout_days, label_window_hours, history_days, popularity_days, "
            "core_days, num_shards",
        ),
        (
            fields(training={"num_epochs": "2"}),
            'training.num_epochs is "2": input should be a vali',
        ),
        (fields(training={"num_epochs": True}), "training.num_epochs is true: input should be a v"),
        (fields(training={"learning_rate": float("nan")}), "training.learning_rate is NaN: input"),
        (fields(model=7), "model is 7: input should be an object"),
        (fields() | {3: 1}, f"3: {UNKNOWN}expected one of recipe, features, "),
        (fields() | {(1, 2): 1}, "keys must be str, int, float, bool or None, not tuple"),
        (fields() | {"source": "x"}, "source is set by who reads the recipe; remove the field"),
    ],
)
def test_a_bad_value_is_named(value: dict[str, Any], line: str) -> None:
    [found] = told(value)
    assert found.startswith(f"- {line}")


def test_all_that_is_wrong_is_said_at_once() -> None:
    value = fields(
        features={"heads": [{"name": "repin", "action": "repin", "utility_weight": 1}]},
        snapshot={"embargo_days": 0},
    )
    del value["serving"], value["model"]
    found = told(value)
    assert {
        "- features.heads[0].action_type is missing",
        f"- features.heads[0].action: {UNKNOWN}did you mean features.heads[0].action_type?",
        "- snapshot.embargo_days=0 is shorter than snapshot.label_window_hours=24: a training "
        "label could come from the holdout; set embargo_days to at least 1",
        "- model is missing",
    } <= set(found)


def changed(section: str, **values: Any) -> RunConfig:
    part = getattr(smoke(), section).model_copy(update=values)
    return smoke().model_copy(update={section: part})


ODD = ("ä", "日本", "\u202e", "no", "1e3", "3", "~", "2017-01-01", " ", "a: b")
SHOWN = [each() for each in RECIPES.values()] + [
    changed("features", categorical=(CategoricalFeature(name="a", table="users", values=ODD),))
]


@pytest.mark.parametrize("recipe", SHOWN)
def test_what_is_shown_is_the_recipe_when_it_is_read_again(
    recipe: RunConfig, tmp_path: Path
) -> None:
    shown = to_yaml(recipe)
    (tmp_path / "saved.yaml").write_text(shown)
    again = make_recipe(str(tmp_path / "saved.yaml"))
    assert again.model_copy(update={"source": ""}) == recipe
    head = f"# digest {again.recipe_digest}\n# read from {recipe.recipe}\nrecipe: "
    assert shown.startswith(head) and shown.isascii()


REPIN, *OTHERS = smoke().features.heads


@pytest.mark.parametrize(
    ("other", "lines"),
    [
        (smoke().model_copy(update={"recipe": "other", "source": "a:b"}), []),
        (
            changed("training", learning_rate=0.004, num_epochs=3),
            ["training.num_epochs: 1 -> 3", "training.learning_rate: 0.002 -> 0.004"],
        ),
        (
            changed("features", heads=(REPIN.model_copy(update={"utility_weight": 2}), *OTHERS)),
            ["features.heads[repin].utility_weight: 1.0 -> 2"],
        ),
        # The names of a list's entries and their order are its value.
        (
            changed("features", heads=(*OTHERS, REPIN)),
            ['features.heads: ["repin", "long_click", "save"] -> ["long_click", "save", "repin"]'],
        ),
        (
            changed("features", heads=(REPIN, OTHERS[0]), numeric=()),
            ["features.heads: [", "features.heads[save].name: "]
            + [f"features.heads[save].{name}: " for name in list(type(REPIN).model_fields)[1:]]
            + ['features.numeric: ["pin_popularity", "past_engagements"] -> []']
            + [
                f'features.numeric[{name}].name: "{name}" -> nothing'
                for name in ("pin_popularity", "past_engagements")
            ],
        ),
    ],
)
def test_fields_that_differ_are_named(other: RunConfig, lines: list[str]) -> None:
    found = differences(smoke(), other)
    assert len(found) == len(lines)
    assert all(each.startswith(line) for each, line in zip(found, lines, strict=True))
