"""`homefeed anchor`: the accepted recipe, recipes on hold, and the noise of seeds."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.recipes import smoke
from pipelines.registry.history import Entry, HeldRecipe, Recipe, Recipes, load
from pipelines.storage import to_uri
from support.commands import as_json, lines, refusal
from support.desk import record_move

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DIGEST = smoke().recipe_digest
BEGIN = ("anchor", "set", "--recipe", "smoke", "--reason", "we begin here")


@pytest.fixture
def workspace(home: Path) -> str:
    return to_uri(home / "workspace")


def accepted(workspace: str) -> Recipe:
    recipe = load(workspace, "homefeed_ranker").recipes.accepted
    assert recipe is not None
    return recipe


def test_a_person_accepts_a_recipe_with_a_reason(workspace: str, tmp_path: Path) -> None:
    assert lines("anchor", "show") == ["no recipe of homefeed_ranker is accepted yet"]
    nothing = {"entries": [], "in_force": {"accepted": None, "held": []}}
    assert as_json("anchor", "show") == nothing
    assert lines(*BEGIN) == [f"accepted recipe of homefeed_ranker: smoke ({DIGEST[:12]})"]
    assert accepted(workspace).parse() == smoke()
    [line] = lines("anchor", "show")
    assert line.endswith(f"by_hand    smoke ({DIGEST[:12]})  we begin here")
    read = as_json("anchor", "show")
    assert [entry["reason"] for entry in read["entries"]] == ["we begin here"]
    assert read["in_force"] == read["entries"][0]["recipes"]
    assert as_json(*BEGIN[:-1], "again")["recipe_digest"] == DIGEST
    assert len(load(workspace, "homefeed_ranker").entries) == 1  # It was given again.
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\ntraining: {learning_rate: 1e-3}\n")
    lines("anchor", "set", "--recipe", str(path), "--reason", "agreed on")
    path.unlink()
    found = accepted(workspace).parse()
    assert (found.reference, found.training.learning_rate) == (path.as_uri(), 0.001)
    assert lines("anchor", "show")[-1].endswith(f", {path.as_uri()})  agreed on")


def test_a_recipe_on_hold_is_shown_and_released(workspace: str) -> None:
    lines(*BEGIN)
    held = HeldRecipe(recipe=accepted(workspace), reason="v4 was rolled back")
    change = Entry(moved_at=NOW, kind="by_hand", reason="as a rollback does")
    recipes = Recipes(accepted=accepted(workspace), held=(held,))
    record_move(workspace, change, "homefeed_ranker", recipes)
    assert lines("anchor", "show")[-1] == f"on hold: smoke ({DIGEST[:12]}): v4 was rolled back"
    [said] = lines("anchor", "release", "--recipe", DIGEST[:6], "--reason", "it was the log")
    assert said == f"{DIGEST[:6]} is released; on hold: nothing"
    assert not any("on hold" in line for line in lines("anchor", "show"))


@pytest.mark.parametrize(
    ("recipe", "reason", "said"),
    [("smok", "x", "unknown recipe 'smok'"), ("smoke", " ", "--reason is empty")],
)
def test_what_is_wrong_is_named_and_nothing_is_recorded(
    workspace: str, recipe: str, reason: str, said: str
) -> None:
    error = refusal("anchor", "set", "--recipe", recipe, "--reason", reason)
    assert error.exit_code == 78 and said in str(error)
    assert load(workspace, "homefeed_ranker").entries == ()
