"""A cycle's run has a name that Airflow takes, each change is said, and at the end each cycle."""

import re
from pathlib import Path

import pytest

from pipelines.local import retrain
from pipelines.local.home import LocalHome
from pipelines.local.services import ServiceError
from support.judgements import CHAMPION
from support.kept_cycles import end
from support.runs import make_run


@pytest.mark.parametrize(
    ("recipe", "run_id"),
    [
        ("smoke", "retrain__smoke__2017-06-12"),
        ("ours.ranking:careful", "retrain__careful-[0-9a-f]{8}__2017-06-12"),
        ("file:///a%20b/c%20d.yaml", "retrain__c_20d-[0-9a-f]{8}__2017-06-12"),
    ],
)
def test_a_recipe_s_reference_becomes_a_name_that_airflow_takes(recipe: str, run_id: str) -> None:
    found = retrain.run_id_of(recipe, "2017-06-12")
    assert re.fullmatch(run_id, found) and re.fullmatch(r"[A-Za-z0-9_.~:+-]+", found)


def test_each_change_of_a_task_is_said_once() -> None:
    states = {"train_challenger": "running", "resolve_run": "success", "train_anchor": "queued"}
    states = (states | {"alert": None}).items()
    tasks = [{"task_id": name, "state": state, "duration": 61.2} for name, state in states]
    said, shown = list[str](), dict[str, str]()
    for _ in range(2):
        retrain.show_changes(tasks, shown, said.append)
    expected = [["resolve_run", "success", "61", "s"], ["train_challenger", "running"]]
    assert [line.split()[1:] for line in said] == expected


def test_a_cycle_that_has_ended_is_told_without_a_start_and_how_to_ask_what_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ServiceError("started")

    monkeypatch.setattr(retrain, "running", refuse)
    monkeypatch.setattr(retrain, "ingest", lambda *_: None)
    day, home, said = "2017-03-02", LocalHome(tmp_path), list[str]()
    home.create()
    names = {"run_id": f"{day}--ab12cd34", "trigger": retrain.run_id_of("smoke", day)}
    end(make_run(tmp_path, champion=CHAMPION, **names))
    assert retrain.retrain(home, tmp_path, "smoke", (day,), said.append) == 0
    first, title, page, serving, more = said
    assert first.endswith("nothing to run.") and title.startswith(f"{day}  void: ")
    assert page.startswith(f"  {tmp_path}/") and page.endswith("/verdict.html")
    assert serving == "There is no champion yet." and "make ui" in more
    assert str(home.passwords) in more and home.password() not in "".join(said)
    with pytest.raises(ServiceError):
        retrain.retrain(home, tmp_path, "smoke", (day, "2017-03-16"), said.append)
