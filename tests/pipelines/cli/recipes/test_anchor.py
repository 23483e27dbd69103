"""`homefeed anchor`: the accepted recipe, recipes on hold, and the noise of seeds."""

import json
import statistics
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.cli.recipes.seeds import measure_seeds
from pipelines.contracts.errors import ConfigurationError
from pipelines.recipes import smoke
from pipelines.registry import anchor, history
from pipelines.registry.seed_noise import measured_deviation
from pipelines.stages.runner import run_stage
from pipelines.storage import to_uri
from support.judgements import make_model
from support.runs import make_run, save_run
from support.worlds import write_planted_world

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    return to_uri(tmp_path / "workspace")


def run(*words: str) -> str:
    return CliRunner().invoke(app, ["anchor", *words], catch_exceptions=False).output


def test_a_person_accepts_a_recipe_with_a_reason(workspace: str) -> None:
    assert "no recipe of homefeed_ranker is accepted yet" in run("show")
    said = run("set", "--recipe", "smoke", "--reason", "we begin here")
    assert said == f"accepted recipe of homefeed_ranker: smoke ({smoke().recipe_digest[:12]})\n"
    entry = anchor.present(workspace, "homefeed_ranker")
    assert entry is not None and entry.recipe is not None
    assert entry.recipe.parse() == smoke()
    assert "by_hand    smoke  we begin here" in run("show")
    read = json.loads(run("set", "--recipe", "smoke", "--reason", "again", "--json"))
    assert read["recipe_digest"] == smoke().recipe_digest


def test_a_recipe_from_outside_is_accepted_with_its_reference(
    workspace: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\ntraining: {learning_rate: 1e-3}\n")
    run("set", "--recipe", str(path), "--reason", "agreed on")
    path.unlink()
    entry = anchor.present(workspace, "homefeed_ranker")
    assert entry is not None and entry.recipe is not None
    accepted = entry.recipe.parse()
    assert (accepted.recipe, accepted.reference) == ("mine", path.as_uri())
    assert accepted.training.learning_rate == 0.001
    assert f"by_hand    {path.as_uri()}  agreed on" in run("show")


def test_a_recipe_on_hold_is_shown_and_released(workspace: str) -> None:
    run("set", "--recipe", "smoke", "--reason", "we begin here")
    entry = anchor.present(workspace, "homefeed_ranker")
    assert entry is not None
    held = anchor.HeldRecipe(recipe=entry.recipe, reason="v4 was rolled back")
    now = datetime.now(UTC)
    anchor.append(workspace, entry.model_copy(update={"held": (held,), "set_at": now}))
    digest = smoke().recipe_digest
    assert f"on hold: {digest[:12]}  smoke: v4 was rolled back" in run("show")
    said = run("release", "--recipe", digest[:6], "--reason", "it was the log")
    assert said == f"{digest[:6]} is released; on hold: nothing\n"
    assert "on hold" not in run("show")


def test_the_entry_of_a_rollback_that_was_given_up_is_shown_as_such(workspace: str) -> None:
    run("set", "--recipe", "smoke", "--reason", "we begin here")
    entry = anchor.present(workspace, "homefeed_ranker")
    assert entry is not None and entry.recipe is not None
    model = make_model("1", NOW).model_copy(update={"name": "homefeed_ranker"})
    fields = {"moved_at": NOW, "kind": "rollback", "model": model, "previous": None}
    begun = history.HistoryEntry(**fields, run_uri=None, reason="hides rose")
    move = history.begin(workspace, history.load(workspace, "homefeed_ranker"), begun)
    anchor.after_rollback(workspace, None, (model, entry.recipe), NOW, "hides rose")
    assert "  rollback   unknown  hides rose" in run("show") and "on hold: " in run("show")
    history.settle(move, False, NOW)
    said = run("show")
    assert "  rollback (given up, does not count)  unknown  hides rose" in said
    assert "on hold" not in said


@pytest.mark.parametrize(
    "words", [("--recipe", "smok", "--reason", "x"), ("--recipe", "smoke", "--reason", " ")]
)
def test_what_is_wrong_is_named_and_nothing_is_recorded(
    workspace: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigurationError, match="unknown recipe 'smok'|--reason is empty"):
        run("set", *words)
    assert anchor.read(workspace, "homefeed_ranker") == []


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


def test_json_holds_the_entries(workspace: str) -> None:
    assert json.loads(run("show", "--json")) == {"entries": [], "in_force": None}
    run("set", "--recipe", "smoke", "--reason", "agreed")
    read = json.loads(run("show", "--json"))
    assert [entry["reason"] for entry in read["entries"]] == ["agreed"]
    assert read["in_force"] == read["entries"][0]
