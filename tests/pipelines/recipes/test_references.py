"""What names a recipe: names of ours, functions and files of others, and what is none of these."""

import re
from pathlib import Path

import pytest

from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import RECIPES, canonical, key_of, make_recipe, smoke
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


@pytest.mark.parametrize("end", ["/mine.yaml", "/mine", "", "/mine.yaml?x=1"])
@pytest.mark.parametrize("is_extended", [False, True])
def test_a_uri_with_keys_is_refused_and_not_repeated(
    tmp_path: Path, end: str, is_extended: bool
) -> None:
    reference = f"s3://AKIA123:secret@bucket{end}"
    (tmp_path / "a.yaml").write_text(f"extends: {reference}\n")
    with pytest.raises(ConfigurationError, match="has keys or a user name in it") as caught:
        make_recipe(str(tmp_path / "a.yaml") if is_extended else reference)
    assert "secret" not in str(caught.value) and "AKIA" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("smok", "unknown recipe 'smok'; did you mean 'smoke'"),
        ("mine.recipes", "a module alone names no recipe: add ':' and its function"),
        ("mine.recipes:", "expected one of completejourney, production, smoke, world, or package"),
        ("a b:c", "unknown recipe 'a b:c'"),
        ("", "unknown recipe ''"),
        ("s3://[b/x.yaml", "recipe 's3://[b/x.yaml' is no path and no URI: Invalid IPv6 URL"),
        ("~nobody_x/x.yaml", "is no path and no URI: Could not determine home directory"),
        ("a\0.yaml", "is no path and no URI: it names no file"),
        ("file:///%00.yaml", "is no path and no URI: it names no file"),
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
