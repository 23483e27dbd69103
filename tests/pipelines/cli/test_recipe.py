"""`homefeed recipe`: what it prints can be used, and what it checks is what a cycle would meet."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.preconditions import cycle
from pipelines.recipes import completejourney, make_recipe, smoke
from pipelines.registry import registry, tracking
from support.judgements import make_model
from support.worlds import write_planted_world


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_url: str) -> Path:
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", unused_url)
    return tmp_path


def run(*words: str) -> str:
    return CliRunner().invoke(app, ["recipe", *words], catch_exceptions=False).output


def test_what_show_prints_is_a_recipe_that_differs_in_nothing(home: Path) -> None:
    saved = home / "saved.yaml"
    saved.write_text(run("show", "completejourney"))
    made = make_recipe(str(saved))
    assert made.model_copy(update={"source": ""}) == completejourney()
    same = run("diff", "completejourney", str(saved)).splitlines()
    digest = completejourney().recipe_digest
    assert same == ["no field differs", f"digests: {digest}, {digest}"]


def test_diff_names_fields_and_digests(home: Path) -> None:
    path = home / "mine.yaml"
    path.write_text("extends: smoke\ntraining: {learning_rate: 0.004}\n")
    first, last = run("diff", "smoke", str(path)).splitlines()
    assert first == "training.learning_rate: 0.002 -> 0.004"
    digests = smoke().recipe_digest, make_recipe(str(path)).recipe_digest
    assert last == f"digests: {digests[0]}, {digests[1]}" and digests[0] != digests[1]
    assert json.loads(run("diff", "smoke", str(path), "--json")) == {
        "differences": [first],
        "digests": list(digests),
    }
    assert json.loads(run("show", "smoke", "--json"))["digest"] == digests[0]
    path.write_text("extends: smoke\n")
    assert run("diff", "smoke", str(path)).startswith("no field differs\n")
    path.write_text("extends: smoke\ntraining: {seed: 18}\n")
    assert run("diff", "smoke", str(path)).splitlines()[0] == "training.seed: 17 -> 18"


def test_check_says_what_it_was_held_against(home: Path) -> None:
    write_planted_world(home / "event_log")
    log, windows, champ, last = run("check", "smoke").splitlines()
    assert windows == (
        "impressions that it would use: training 2017-02-07 to 2017-02-21, holdout 2017-02-22 to "
        "2017-03-01; the last day is not included"
    )
    assert log == f"event log: {(home / 'event_log').as_uri()}, as of 2017-03-02"
    assert champ.startswith("champion: not checked, because ")
    read = json.loads(run("check", "smoke", "--json"))
    assert read["can_be_run"] and read["problems"] == [] and len(read["not_checked"]) == 1
    assert last == f"recipe smoke ({smoke().recipe_digest[:12]}) can be run, once MLflow answers"


def test_check_lists_all_that_is_wrong_with_recipe_and_log(home: Path) -> None:
    write_planted_world(home / "event_log")
    path = home / "mine.yaml"
    path.write_text(
        "extends: smoke\n"
        "snapshot: {embedding_version: planted-9}\n"
        "model_gate: {target_metric: hide_volume_at_3}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        run("check", str(path))
    first, *lines = str(caught.value).splitlines()
    assert first == f"recipe {path.as_uri()} cannot be run:"
    assert [bool(re.search(r"hide_volume|planted-9", line)) for line in lines] == [True, True]
    with pytest.raises(DataContractError, match="cannot be run: no impressions in the training"):
        run("check", "smoke", "--as-of", "2026-01-01")


def test_check_without_a_log_says_how_to_get_one(home: Path) -> None:
    with pytest.raises(DataContractError, match="no event log at .* correct HOMEFEED_EVENT_LOG"):
        run("check", "smoke")


def test_check_names_a_champion_that_cannot_be_compared(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_planted_world(home / "event_log")
    older = smoke().snapshot.model_copy(update={"embedding_version": "planted-0"})
    its_own = smoke().model_copy(update={"snapshot": older})
    model = make_model("3", datetime(2017, 2, 1, tzinfo=UTC))
    monkeypatch.setattr(tracking, "connect", lambda _: object())
    monkeypatch.setattr(cycle, "require_record", lambda *_, **__: None)
    monkeypatch.setattr(registry, "read_champion", lambda *_: model)
    monkeypatch.setattr(cycle, "recipe_of", lambda *_: its_own)
    with pytest.raises(
        ConfigurationError, match=f"{model.label} serves and cannot be compared: .*"
    ):
        run("check", "smoke")
    monkeypatch.setattr(cycle, "recipe_of", lambda *_: smoke())
    assert f"champion: {model.label}, recipe smoke (" in run("check", "smoke")
    monkeypatch.setattr(cycle, "recipe_of", lambda *_: None)
    assert f"champion: {model.label} is not checked; its cycle is" in run("check", "smoke")
    monkeypatch.setattr(registry, "read_champion", lambda *_: None)
    assert "champion: homefeed_ranker has none yet" in run("check", "smoke")


def test_check_refuses_the_champions_own_day_as_a_cycle_would(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_planted_world(home / "event_log")
    model = make_model("3", datetime(2017, 3, 2, tzinfo=UTC))
    settled: list[bool] = []
    monkeypatch.setattr(tracking, "connect", lambda _: object())
    monkeypatch.setattr(cycle, "require_record", lambda *_, may_settle: settled.append(may_settle))
    monkeypatch.setattr(registry, "read_champion", lambda *_: model)
    monkeypatch.setattr(cycle, "recipe_of", lambda *_: smoke())
    with pytest.raises(ConfigurationError, match="as_of 2017-03-02 is not newer than the champion"):
        run("check", "smoke")
    monkeypatch.setenv("HOMEFEED_ACCELERATOR", "gpu")
    monkeypatch.setattr("training.environment.count_gpus", lambda: 0)
    with pytest.raises(
        ConfigurationError, match="(?s)cannot be run:\n- accelerator is 'gpu'.*newer"
    ):
        run("check", "smoke")
    assert settled == [False, False]  # nothing is recorded
