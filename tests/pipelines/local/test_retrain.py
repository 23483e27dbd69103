"""A cycle's run has a name that Airflow takes, each change is said, and at the end each cycle."""

import os
import re
from pathlib import Path

import pytest

from pipelines.local import retrain
from pipelines.local.home import LocalHome
from pipelines.local.retrain import Cycle, show_summary
from pipelines.settings import Settings
from support.commands import EXECUTABLE, parse
from support.judgements import CHAMPION
from support.runs import make_run, save_run


@pytest.mark.parametrize(
    ("recipe", "run_id"),
    [
        ("smoke", "retrain__smoke__2017-06-12"),
        ("ours.ranking:careful", "retrain__careful-[0-9a-f]{8}__2017-06-12"),
        ("file:///a%20b/c%20d.yaml", "retrain__c_20d-[0-9a-f]{8}__2017-06-12"),
    ],
)
def test_a_recipe_s_reference_becomes_a_name_that_airflow_takes(recipe: str, run_id: str) -> None:
    cycle = Cycle("2017-06-12", recipe)
    assert re.fullmatch(run_id, cycle.run_id)
    assert re.fullmatch(r"[A-Za-z0-9_.~:+-]+", cycle.run_id)


def test_whoever_stops_it_is_told_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    said: list[str] = []
    monkeypatch.setattr(retrain, "_run_cycles", interrupt)
    with pytest.raises(KeyboardInterrupt):
        retrain.retrain(LocalHome(tmp_path), tmp_path, "smoke", ("2017-06-12",), said.append)
    assert said == ["stopped; the same command goes on from what had ended"]


def test_each_change_of_a_task_is_said_once() -> None:
    states = {"train_challenger": "running", "resolve_run": "success", "train_anchor": "queued"}
    tasks = [{"task_id": n, "state": state} for n, state in (states | {"alert": None}).items()]
    said, shown = list[str](), dict[str, str]()
    for _ in range(2):
        retrain.show_changes(tasks, shown, said.append)
    expected = [["resolve_run", "success"], ["train_challenger", "running"]]
    assert [line.split()[1:] for line in said] == expected


def test_the_newest_line_of_a_training_is_found(tmp_path: Path) -> None:
    assert retrain.last_line(tmp_path) == ""
    for number, text in enumerate(("[#.] step 1/2\n[##] step 2/2\n", "old\n[#.] step 3/9\n", "")):
        log = tmp_path / f"runs/{9 - number}/train_challenger/training/training.log"
        log.parent.mkdir(parents=True)
        log.write_text(text)
        os.utime(log, (number, number))
        lines = ["[##] step 2/2", "[#.] step 3/9", ""]
        assert retrain.last_line(tmp_path) == lines[number]


def test_each_cycle_is_told_and_how_to_ask_what_serves(tmp_path: Path) -> None:
    run = save_run(make_run(tmp_path, champion=CHAMPION, trigger="one"))
    said: list[str] = []
    show_summary(Settings(home=str(tmp_path)), ["one", "two"], said.append)
    title, folder, other, serving = said
    assert title == "2017-03-02  not ended: build_snapshot has not ended."
    assert folder == f"  run folder: {run.run_uri}"
    assert other == "two: did not begin"
    assert serving.startswith("which model serves now: ") and f" {EXECUTABLE} serving" in serving
    assert parse(serving.partition(": ")[2]).info_name == "serving"
