"""A file's text becomes a recipe, or an error that says where; a recipe becomes text again."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.config import CategoricalFeature, RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import RECIPES, make_recipe, smoke
from pipelines.recipes.text import differences, parse, to_yaml, validated


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: \x07\n", "as YAML: unacceptable character #x0007"),
        ("a: !!python/name:os.getcwd\n", "could not determine a constructor for the tag"),
        ("a: 2026-13-45\n", "month must be in 1..12"),
        (f"a: {'9' * 5000}\n", "Exceeds the limit"),
        (f"a: {'[' * 2000}{']' * 2000}", "it is nested too deep; expected sections"),
        ("a: 1\nb: &c {d: 1}\ne: *c\n", "a recipe has no aliases (*) in .* line 3, column 4"),
        ("a: 1\nb: 2\na: 3\n", "field 'a' stands twice in .* line 3, column 1"),
    ],
)
def test_what_a_text_may_not_hold_is_named_with_its_place(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text.encode(), "here")
    said, parts = str(caught.value), says.split(" .* ")
    assert said.startswith("recipe here cannot be read as ") and caught.value.exit_code == 78
    assert all(part in said for part in parts), said


def test_a_list_without_entries_says_how_it_is_emptied() -> None:
    with pytest.raises(
        ConfigurationError, match="features.categorical is null: .* \\[\\] for none"
    ):
        validated(fields(features={"categorical": None}), "here")
    assert validated(fields(features={"categorical": []}), "here").features.categorical == ()


def test_the_rest_is_plain_values() -> None:
    found = parse(b"a: [1e-3, 0x1F, yes, ~, '3']\nb: {c: x}", "here")
    assert found == {"a": [0.001, 31, True, None, "3"], "b": {"c": "x"}}
    assert parse(b"", "here") is None


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


UNKNOWN = "there is no such field"
RATE = f"{UNKNOWN}; did you mean training.learning_rate?"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (fields(training={"learnin_rate": 1}), f"training.learnin_rate: {RATE}"),
        (fields() | {"learning_rate": 1}, f"learning_rate: {RATE}"),
        (fields(model={"learning_rate": 1}), f"model.learning_rate: {RATE}"),
        (fields(snapshot={"zzz": 1}), f"snapshot.zzz: {UNKNOWN}"),
        (fields() | {"trainin": {}}, f"trainin: {UNKNOWN}; did you mean training?"),
        (
            fields(training={"num_epochs": "2"}),
            'training.num_epochs is "2": input should be a vali',
        ),
        (fields(training={"num_epochs": True}), "training.num_epochs is true: input should be a v"),
        (fields(training={"learning_rate": float("nan")}), "training.learning_rate is NaN: input"),
        (fields(model=7), "model is 7: input should be an object"),
        (fields() | {3: 1}, f"3: {UNKNOWN}"),
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
        f"- features.heads[0].action: {UNKNOWN}; did you mean features.heads[0].action_type?",
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
            ["features.heads[0].utility_weight: 1.0 -> 2"],
        ),
        (
            changed("features", heads=(REPIN, OTHERS[0]), numeric=()),
            [
                f"features.heads[2].{name}: "
                for name in ("name", "action_type", "utility_weight", "is_wanted")
            ]
            + [
                f'features.numeric[{place}].name: "{name}" -> nothing'
                for place, name in enumerate(("pin_popularity", "past_engagements"))
            ]
            + ["features.numeric: nothing -> []"],
        ),
    ],
)
def test_fields_that_differ_are_named(other: RunConfig, lines: list[str]) -> None:
    found = differences(smoke(), other)
    assert len(found) == len(lines)
    assert all(each.startswith(line) for each, line in zip(found, lines, strict=True))
