"""A recipe as text: it can be read again, and what differs is named field by field."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.config import CategoricalFeature, RunConfig
from pipelines.recipes import RECIPES, make_recipe, smoke
from pipelines.recipes.showing import differences, to_yaml


def changed(section: str, **values: Any) -> RunConfig:
    part = getattr(smoke(), section).model_copy(update=values)
    return smoke().model_copy(update={section: part})


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_is_shown_is_the_recipe_when_it_is_read_again(name: str, tmp_path: Path) -> None:
    shown = to_yaml(RECIPES[name]())
    (tmp_path / "saved.yaml").write_text(shown)
    again = make_recipe(str(tmp_path / "saved.yaml"))
    assert again.model_copy(update={"source": ""}) == RECIPES[name]()
    assert shown.startswith(f"# digest {again.recipe_digest}\n# read from {name}\nrecipe: {name}\n")


def test_a_value_of_any_script_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    values = ("ä", "日本", "\u202e", "no", "1e3", "3", "~", "2017-01-01", " ", "a: b")
    odd = CategoricalFeature(name="land", table="users", values=values)
    shown = to_yaml(changed("features", categorical=(odd,)))
    assert shown.isascii()
    (tmp_path / "saved.yaml").write_text(shown)
    assert make_recipe(str(tmp_path / "saved.yaml")).features.categorical == (odd,)


def test_fields_that_differ_are_named_and_the_name_is_none() -> None:
    other = changed("training", learning_rate=0.004, num_epochs=3)
    other = other.model_copy(update={"recipe": "other", "source": "a:b"})
    assert differences(smoke(), other) == [
        "training.num_epochs: 1 -> 3",
        "training.learning_rate: 0.002 -> 0.004",
    ]
    assert differences(smoke(), smoke().model_copy(update={"recipe": "other"})) == []


def test_entries_of_a_list_are_named_by_their_names() -> None:
    repin, *others = smoke().features.heads
    other = changed("features", heads=(repin.model_copy(update={"utility_weight": 2.0}), *others))
    assert differences(smoke(), other) == ["features.heads[repin].utility_weight: 1.0 -> 2.0"]


def test_lists_with_other_entries_or_another_order_are_shown_whole() -> None:
    turned = changed("features", heads=smoke().features.heads[::-1])
    [line] = differences(smoke(), turned)
    assert line.startswith('features.heads: [{"name": "repin"') and ' -> [{"name": "save"' in line
    fewer = changed("features", numeric=())
    assert differences(fewer, smoke())[0].startswith("features.numeric: [] -> [{")
