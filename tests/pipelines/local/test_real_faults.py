"""Faults in a real scheduler: regression, bad data, killed tasks, a run out of time."""

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, date, datetime

import psutil
import pytest

from pipelines import storage
from pipelines.alerts.compose import compose_unresolved
from pipelines.alerts.incidents import tell
from pipelines.contracts.alert import Cycle, NextStep, Unresolved
from pipelines.contracts.artifacts import STAGES
from pipelines.cycles.reading import find_cycle
from pipelines.local import processes
from pipelines.settings import Settings
from support.cycles import cycle_of, judgement_of, promotion_of
from support.kills import kill_tasks, move_start_back, wait_for_run_uri, wait_for_stage
from support.lab import DAGS, DAY_OF_THIN_DATA, THIRD_DAY, Lab, Outcome, is_free, ports_in
from support.serving import wait_until

pytestmark = pytest.mark.services


def the_one_alert(lab: Lab, run_id: str) -> dict:
    """Wait for a run's alert, and a little longer for a second that must not come."""
    lab.alerts(run_id, wait_s=120)
    time.sleep(2)
    (alert,) = lab.alerts(run_id)
    return alert


@pytest.fixture(scope="module")
def third_cycle(lab: Lab) -> Outcome:
    """A cycle on spoilt data in which every task is killed once, one of them with its worker.

    An earlier run of the day had broken: only the words that it left are there, which costs no run.
    """
    settings = Settings(home=str(lab.home.path))
    broken = Unresolved(
        message="ConfigurationError: no such setting",
        next_step=NextStep(sentence="Mend it.", commands=()),
        at=datetime.now(UTC),
        cycle=Cycle(day=date.fromisoformat(THIRD_DAY), recipe="smoke"),
    )
    told = tell(compose_unresolved("broke-before", broken, settings), settings)
    assert told.alert is not None and lab.alerts("broke-before") != []
    lab.start("third", THIRD_DAY, promote=True)
    kill_tasks(lab, "third", "resolve_run")
    run_uri = wait_for_run_uri(lab, "third")
    wait_for_stage("build_snapshot", run_uri).kill()
    wait_for_stage("check_snapshot", run_uri).kill()
    runner = wait_for_stage("train_challenger", run_uri).parent()
    runner.parent().kill()
    kill_tasks(lab, "third", "train_anchor")
    wait_for_stage("compare_with_champion", run_uri).kill()
    kill_tasks(lab, "third", "promote_challenger", "alert")
    return lab.finish("third")


def test_every_killed_task_and_a_killed_worker_are_tried_again(
    third_cycle: Outcome, retrained
) -> None:
    assert third_cycle.state == "success"
    assert [stage for stage in STAGES if third_cycle.tries_of(stage) < 2] == []
    run = cycle_of(retrained.home, "third")
    runs = retrained.home / "workspace" / "runs"
    assert [path.name for path in runs.iterdir() if "2017-04-20" in path.name] == [run.run_id]


def test_a_regression_is_green_and_told_once(lab: Lab, third_cycle: Outcome, retrained) -> None:
    states = {stage: third_cycle.state_of(stage) for stage in STAGES}
    assert states == dict.fromkeys(STAGES, "success") | {"promote_challenger": "skipped"}
    judgement = judgement_of(retrained.home, "third")
    assert judgement.verdict.decision == "REJECT"
    promotion = promotion_of(retrained.home, "third")
    assert not promotion.is_promoted
    assert promotion.champion_after == judgement.comparison.baseline_model
    run_id = cycle_of(retrained.home, "third").run_id
    kinds = [alert["kind"] for alert in lab.alerts(run_id)]
    assert [kind for kind in kinds if kind != "recovered"] == ["regression"]


def test_a_run_that_ends_well_after_one_that_broke_is_told_once_as_a_recovery(
    lab: Lab, third_cycle: Outcome, retrained
) -> None:
    """Airflow's callback about a run that has succeeded tells it, from the DAG processor."""
    assert third_cycle.state == "success"
    lab.alerts('"kind": "recovered"', wait_s=120)
    time.sleep(2)  # a second one must not come
    (alert,) = lab.alerts('"kind": "recovered"')
    assert alert["run_id"] == cycle_of(retrained.home, "third").run_id
    assert "resolve_run" in alert["title"]


def test_a_failed_data_gate_is_red_at_once_and_told_with_its_pages(lab: Lab) -> None:
    outcome = lab.run("thin-data", DAY_OF_THIN_DATA)
    assert outcome.state == "failed"
    assert [task for task in STAGES if outcome.state_of(task) == "failed"] == ["build_snapshot"]
    assert outcome.tries_of("build_snapshot") == 1, "a retry could not have helped"
    assert outcome.state_of("check_snapshot") == "upstream_failed"
    run = find_cycle(str(lab.home.path / "workspace"), "thin-data", Settings())
    alert = the_one_alert(lab, run.run_id)
    assert alert["kind"] == "data_gate_failed"
    assert "log_has_most_days" in alert["happened"]
    docs = alert["happened"].split("Data Docs: ")[1].split("\n")[0]
    assert "log_has_most_days" in storage.local_path(docs).read_text()


def test_a_day_without_data_pages_nobody_and_the_note_says_which_would_do(lab: Lab) -> None:
    outcome = lab.run("no-data", "2019-01-07")
    assert (outcome.state, outcome.state_of("resolve_run")) == ("success", "skipped")
    assert outcome.tries_of("resolve_run") == 1 and lab.alerts("no-data") == []
    note = lab.get("dags/homefeed_retrain/dagRuns/no-data")["note"]
    assert note.startswith("**2019-01-07** **NOT BEGUN**: ")
    assert "no impressions in the training window" in note and "at most the day after" in note


def test_a_run_out_of_time_is_ended_and_told_once(lab: Lab) -> None:
    lab.start("too-long", THIRD_DAY)
    run_uri = wait_for_run_uri(lab, "too-long")
    stage = wait_for_stage("build_snapshot", run_uri)
    stage.suspend()  # hangs, and does not hear SIGTERM either
    move_start_back(lab, "too-long", days=3)
    assert lab.finish("too-long").state == "failed"
    run = find_cycle(str(lab.home.path / "workspace"), "too-long", Settings())
    alert = the_one_alert(lab, run.run_id)
    assert alert["kind"] == "broken_run"
    assert "build_snapshot" in alert["title"] and "timed_out" in alert["happened"]
    assert psutil.wait_procs([stage], timeout=240)[1] == [], "the stage outlived its run"


def test_a_killed_start_leaves_nothing_running(tmp_path, retrained):
    home, made = tmp_path / "home", retrained.home / "airflow"
    (home / "airflow").mkdir(parents=True)
    for path in (made / "airflow.db", *made.glob("migrated-*")):
        shutil.copy(path, home / "airflow")  # a database that is made already
    command = [sys.executable, "-m", "pipelines.cli", "local", "ui", "--home", str(home)]
    options = {"text": True, "env": {**os.environ, "PYTHONUNBUFFERED": "1"}}
    ui = subprocess.Popen([*command, "--dags", str(DAGS)], stdout=subprocess.PIPE, **options)
    said = ""
    while "Ctrl-C" not in said:
        line = ui.stdout.readline()
        assert line, f"ui ended early: {said}"
        said += line
    mark = processes.marks_of(home)
    running = " ".join(word for found in processes.marked(mark) for word in found.cmdline())
    ui.kill()
    ui.wait()
    # Airflow's server gives its own process a title, "airflow api_server".
    for service in ("mlflow", "scheduler", "dag-processor", "api_server"):
        assert service in running, running
    wait_until(lambda: not processes.marked(mark), 120)
    assert all(is_free(port) for port in ports_in(said)), "a server outlived its mark"
