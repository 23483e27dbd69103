"""A cycle's run has a name that Airflow takes, and at the end each cycle is told."""

import re
from pathlib import Path

import pytest
from rich.console import Console

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
    assert cycle.conf["recipe"] == recipe


def test_whoever_stops_it_is_told_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(retrain, "_run_cycles", interrupt)
    with pytest.raises(KeyboardInterrupt):
        retrain.retrain(LocalHome(tmp_path), tmp_path, "smoke", ("2017-06-12",))
    assert capsys.readouterr().out == "stopped; the same command goes on from what had ended\n"


def test_each_cycle_is_told_and_how_to_ask_what_serves(tmp_path: Path) -> None:
    run = save_run(make_run(tmp_path, champion=CHAMPION, trigger="one"))
    console = Console(record=True, width=500, file=(tmp_path / "shown").open("w"))
    show_summary(console, Settings(home=str(tmp_path)), ["one", "two"])
    title, folder, times, other, serving = console.export_text().splitlines()
    assert title == "2017-03-02  not ended: build_snapshot has not ended."
    assert folder == f"  run folder: {run.run_uri}"
    assert "outside the stages' own work; seconds: resolve_run " in times
    assert other == "two: did not begin"
    assert serving.startswith("which model serves now: ") and f" {EXECUTABLE} serving" in serving
    assert parse(serving.partition(": ")[2]).info_name == "serving"
