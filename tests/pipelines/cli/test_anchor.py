"""`homefeed anchor`: the accepted recipe, recipes on hold, and the noise of seeds."""

import statistics
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.explain.seeds import measure_seeds
from pipelines.recipes import smoke
from pipelines.registry.evidence import measured_deviation
from pipelines.registry.history import Entry, HeldRecipe, Recipe, Recipes, load
from pipelines.stages.runner import run_stage
from pipelines.storage import to_uri
from support.commands import as_json, homefeed, lines, refusal
from support.desk import record_move
from support.runs import make_run, save_run
from support.worlds import write_planted_world

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DIGEST = smoke().recipe_digest
BEGIN = ("anchor", "set", "--recipe", "smoke", "--reason", "we begin here")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    return to_uri(tmp_path / "workspace")


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
    assert line.endswith("by_hand    smoke  we begin here")
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
    assert lines("anchor", "show")[-1].endswith(f"by_hand    {path.as_uri()}  agreed on")


def test_a_recipe_on_hold_is_shown_and_released(workspace: str) -> None:
    lines(*BEGIN)
    held = HeldRecipe(recipe=accepted(workspace), reason="v4 was rolled back")
    change = Entry(moved_at=NOW, kind="by_hand", reason="as a rollback does")
    recipes = Recipes(accepted=accepted(workspace), held=(held,))
    record_move(workspace, change, "homefeed_ranker", recipes)
    assert lines("anchor", "show")[-1] == f"on hold: {DIGEST[:12]}  smoke: v4 was rolled back"
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


@pytest.mark.slow
def test_seeds_are_measured_once_and_kept_for_the_recipe(
    workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = homefeed("anchor", "seeds", "nowhere", "--num", "4")
    assert few.exit_code == 2 and "5" in few.output, "too few to tell"
    write_planted_world(tmp_path / "event_log", num_users=40)
    run_of_seeds = save_run(make_run(tmp_path))
    run_stage("build_snapshot", run_of_seeds.run_uri)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    measured = measure_seeds(run_of_seeds.run_uri, 2)
    values, seed = measured.values, smoke().training.seed
    assert measured.seeds == (seed, seed + 1) and values[0] != values[1]
    expected = statistics.stdev(values) / statistics.fmean(values)
    for digest, metric, deviation in (
        (DIGEST, "repin_volume_at_3", pytest.approx(expected)),
        (DIGEST, "save_volume_at_3", None),
        ("f" * 64, "repin_volume_at_3", None),
    ):
        assert measured_deviation(workspace, digest, metric) == deviation
    left = [path.name for path in (tmp_path / "workspace" / "seed_noise").iterdir()]
    assert left == [f"{DIGEST}.json"]
