"""What names a recipe: names of ours, functions and files of others, and what is none of these."""

import re
from pathlib import Path

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import RECIPES, canonical, key_of, make_recipe, smoke
from pipelines.recipes.references import choices, pattern
from pipelines.storage import to_uri


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_of_this_project_has_no_other_source(name: str) -> None:
    made = make_recipe(name)
    assert (made, made.source, made.reference) == (RECIPES[name](), "", name)
    assert made.recipe_ref.label == f"{name} ({made.recipe_digest[:12]})"


def test_a_file_is_known_by_its_absolute_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text("extends: smoke\n")
    monkeypatch.chdir(tmp_path)
    uri = to_uri(tmp_path / "mine.yaml")
    assert canonical("mine.yaml") == canonical(uri) == uri
    made = make_recipe("mine.yaml")
    assert made == make_recipe(uri)
    assert (made.recipe, made.source, made.reference) == ("mine", uri, uri)
    assert made.recipe_digest == smoke().recipe_digest
    assert made.recipe_ref.label == f"mine ({made.recipe_digest[:12]}, {uri})"


def test_a_uri_with_keys_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        canonical("s3://AKIA123:secret@bucket/mine.yaml")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("smok", "unknown recipe 'smok'; did you mean 'smoke'"),
        ("mine.recipes", "a module alone names no recipe: add ':' and its function"),
        ("mine.recipes:", "expected one of completejourney, production, smoke, world, or package"),
        ("a b:c", "unknown recipe 'a b:c'"),
        ("", "unknown recipe ''"),
        ("mine.json", "a path or URI that ends with .yaml, .yml, .toml"),
    ],
)
def test_what_is_no_reference_is_told_what_is(reference: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        make_recipe(reference)


def test_a_key_is_safe_in_a_path_and_tells_outside_recipes_apart() -> None:
    assert key_of("completejourney") == "completejourney"
    outside = (
        "ours.ranking:careful",
        "theirs.ranking:careful",
        "file:///a/careful.yaml",
        "file:///b/careful.yaml",
        "s3://bucket/careful.toml",
        "s3://bucket/k%20%2F:.toml",
    )
    keys = [key_of(reference) for reference in outside]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"\w+-[0-9a-f]{8}", key) for key in keys)
    assert [key.partition("-")[0] for key in keys[:5]] == ["careful"] * 5


def test_a_form_offers_what_there_is_and_takes_what_may_be() -> None:
    default = "ours.ranking:careful"
    assert choices(default) == sorted([*RECIPES, default])
    taken = [*RECIPES, default, "theirs:make", "/a/b.yaml", "s3://c/d e.toml", "x.yml"]
    assert all(re.search(pattern(default), each) for each in taken)
    refused = ["no_such_recipe", "a:b:c", "module:", ":f", "x.json", "", "smoke2"]
    assert not any(re.search(pattern(default), each) for each in refused)
