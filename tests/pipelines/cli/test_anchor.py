"""`homefeed anchor`: the accepted recipe, recipes on hold, and the noise of seeds."""

import json
import statistics
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.cli.train import measure_seeds
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import smoke
from pipelines.registry.history import Entry, HeldRecipe, Recipe, Recipes, load
from pipelines.registry.standing import measured_deviation
from pipelines.stages.runner import run_stage
from pipelines.storage import to_uri
from support.moves import record_move
from support.runs import make_run, save_run
from support.worlds import write_planted_world

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    return to_uri(tmp_path / "workspace")


def run(*words: str) -> str:
    return CliRunner().invoke(app, ["anchor", *words], catch_exceptions=False).output


def accepted(workspace: str) -> Recipe:
    recipe = load(workspace, "homefeed_ranker").recipes.accepted
    assert recipe is not None
    return recipe


def test_a_person_accepts_a_recipe_with_a_reason(workspace: str) -> None:
    assert "no recipe of homefeed_ranker is accepted yet" in run("show")
    nothing = {"entries": [], "in_force": {"accepted": None, "held": []}}
    assert json.loads(run("show", "--json")) == nothing
    said = run("set", "--recipe", "smoke", "--reason", "we begin here")
    assert said == f"accepted recipe of homefeed_ranker: smoke ({smoke().recipe_digest[:12]})\n"
    assert accepted(workspace).parse() == smoke()
    assert "by_hand    smoke  we begin here" in run("show")
    read = json.loads(run("show", "--json"))
    assert [entry["reason"] for entry in read["entries"]] == ["we begin here"]
    assert read["in_force"] == read["entries"][0]["recipes"]
    read = json.loads(run("set", "--recipe", "smoke", "--reason", "again", "--json"))
    assert len(load(workspace, "homefeed_ranker").entries) == 1  # It was given again.
    assert read["recipe_digest"] == smoke().recipe_digest


def test_a_recipe_from_outside_is_accepted_with_its_reference(
    workspace: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\ntraining: {learning_rate: 1e-3}\n")
    run("set", "--recipe", str(path), "--reason", "agreed on")
    path.unlink()
    found = accepted(workspace).parse()
    assert (found.recipe, found.reference) == ("mine", path.as_uri())
    assert found.training.learning_rate == 0.001
    assert f"by_hand    {path.as_uri()}  agreed on" in run("show")


def test_a_recipe_on_hold_is_shown_and_released(workspace: str) -> None:
    run("set", "--recipe", "smoke", "--reason", "we begin here")
    held = HeldRecipe(recipe=accepted(workspace), reason="v4 was rolled back")
    change = Entry(moved_at=NOW, kind="by_hand", reason="as a rollback does")
    recipes = Recipes(accepted=accepted(workspace), held=(held,))
    record_move(workspace, change, "homefeed_ranker", recipes)
    digest = smoke().recipe_digest
    assert f"on hold: {digest[:12]}  smoke: v4 was rolled back" in run("show")
    said = run("release", "--recipe", digest[:6], "--reason", "it was the log")
    assert said == f"{digest[:6]} is released; on hold: nothing\n"
    assert "on hold" not in run("show")


@pytest.mark.parametrize(
    "words", [("--recipe", "smok", "--reason", "x"), ("--recipe", "smoke", "--reason", " ")]
)
def test_what_is_wrong_is_named_and_nothing_is_recorded(
    workspace: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigurationError, match="unknown recipe 'smok'|--reason is empty"):
        run("set", *words)
    assert load(workspace, "homefeed_ranker").entries == ()


@pytest.mark.slow
def test_seeds_are_measured_once_and_kept_for_the_recipe(
    workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_planted_world(tmp_path / "event_log", num_users=40)
    run_of_seeds = save_run(make_run(tmp_path))
    run_stage("build_snapshot", run_of_seeds.run_uri)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    measured = measure_seeds(run_of_seeds.run_uri, 2)
    values, seed = measured.values, smoke().training.seed
    assert measured.seeds == (seed, seed + 1) and values[0] != values[1]
    of_recipe = (workspace, smoke().recipe_digest)
    expected = statistics.stdev(values) / statistics.fmean(values)
    assert measured_deviation(*of_recipe, "repin_volume_at_3") == pytest.approx(expected)
    assert measured_deviation(*of_recipe, "save_volume_at_3") is None
    assert measured_deviation(workspace, "f" * 64, "repin_volume_at_3") is None
    left = [path.name for path in (tmp_path / "workspace" / "seed_noise").iterdir()]
    assert left == [f"{smoke().recipe_digest}.json"]


def test_fewer_than_five_seeds_are_too_few_to_tell(workspace: str) -> None:
    assert "5" in run("seeds", "--run", "nowhere", "--num", "4")
    assert measured_deviation(workspace, smoke().recipe_digest, "repin_volume_at_3") is None
