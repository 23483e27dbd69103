"""The DAG in a real scheduler: two cycles, a regression, broken stages, killed workers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from local.conftest import FIRST_DAY, SECOND_DAY, THIRD_DAY

from pipelines.contracts.artifacts import STAGES, Judgement, Promotion
from pipelines.local import processes
from pipelines.local.layout import is_free
from pipelines.local.summary import find_finished_run, find_run
from support.lab import DAGS, homefeed_local

pytestmark = pytest.mark.services

RUN_IDS = (f"retrain__smoke__{FIRST_DAY}", f"retrain__smoke__{SECOND_DAY}")


def outcome_of(home: Path, run_id: str):
    found = find_finished_run(str(home / "workspace"), run_id)
    assert found is not None, f"{run_id} has not published every stage"
    return found


def judgement_of(home: Path, run_id: str) -> Judgement:
    record = outcome_of(home, run_id).records["compare_with_champion"]
    return Judgement.model_validate(record.artifact)


def promotion_of(home: Path, run_id: str) -> Promotion:
    record = outcome_of(home, run_id).records["promote_challenger"]
    return Promotion.model_validate(record.artifact)


def test_retrain_runs_two_cycles_and_sums_up(retrained):
    assert retrained.returncode == 0, retrained.output
    for run_id in RUN_IDS:
        assert judgement_of(retrained.home, run_id).report_uri in retrained.output
        assert judgement_of(retrained.home, run_id).verdict.reasons[0] in retrained.output
    assert promotion_of(retrained.home, RUN_IDS[0]).is_promoted
    first, second = (judgement_of(retrained.home, run_id).comparison for run_id in RUN_IDS)
    assert first.champion_model is None
    assert second.champion_model == first.challenger_model
    assert "http://127.0.0.1:" in retrained.output and "make ui" in retrained.output


def ports_in(output: str) -> set[int]:
    """The ports of the addresses that were shown."""
    return {int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", output)}


def test_nothing_is_left_running_afterwards(retrained):
    assert processes.marked(f"{retrained.home}#") == []
    ports = ports_in(retrained.output)
    assert len(ports) == 2
    assert all(is_free(port) for port in ports), "a server outlived its mark"


def test_retraining_again_is_quick_and_harmless(retrained):
    before = sorted(str(p) for p in (retrained.home / "workspace").rglob("*"))
    started = time.monotonic()
    done = homefeed_local(
        *("retrain", "--home", str(retrained.home), "--recipe", "smoke"),
        *("--as-of", FIRST_DAY, "--as-of", SECOND_DAY),
        event_log=retrained.event_log,
    )
    assert done.returncode == 0
    assert "nothing to run" in done.stdout
    assert judgement_of(retrained.home, RUN_IDS[1]).report_uri in done.stdout
    assert time.monotonic() - started < 15
    assert sorted(str(p) for p in (retrained.home / "workspace").rglob("*")) == before


def test_a_second_copy_says_that_one_is_running(lab):
    done = homefeed_local("ui", "--home", str(lab.home.path))
    assert done.returncode == 75
    assert "already running" in done.stderr
    lab.services.require_alive()


def test_the_asset_is_updated_by_promotions_only(lab, retrained):
    promotions = [promotion_of(retrained.home, run_id) for run_id in RUN_IDS]
    events = [e for e in lab.api.asset_events() if e["name"] == "homefeed/champion"]
    expected = [p.champion_after.version for p in promotions if p.is_promoted]
    assert [event["extra"]["version"] for event in events] == expected


def test_what_crosses_between_tasks_is_json(lab):
    path = f"/api/v2/dags/homefeed_retrain/dagRuns/{RUN_IDS[0]}/taskInstances"
    for stage in STAGES:
        found = lab.api.get(f"{path}/{stage}/xcomEntries/return_value?deserialize=true")["value"]
        assert json.loads(json.dumps(found)) == found
        if stage == "resolve_run":
            assert set(found) == {"run_id", "run_uri", "as_of"}
        else:
            assert found.endswith(f"/{stage}/manifest.json")


def wait_for_stage(stage: str, run_uri: str, timeout_s: float = 60.0) -> psutil.Process:
    """Return the process of a stage's command, once it runs."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if stage in words and run_uri in words and "stage" in words:
                return process
        time.sleep(0.05)
    raise AssertionError(f"{stage} of {run_uri} did not start within {timeout_s} s")


def wait_for_run_uri(lab, trigger: str, timeout_s: float = 60.0) -> str:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := find_run(str(lab.home.path / "workspace"), trigger):
            return found.run.run_uri
        time.sleep(0.2)
    raise AssertionError(f"{trigger} was not resolved within {timeout_s} s")


@pytest.fixture(scope="module")
def third_cycle(lab):
    """A cycle on spoilt data, in which a stage is killed, and later a worker under its stage."""
    lab.start("third", THIRD_DAY, promote=True)
    run_uri = wait_for_run_uri(lab, "third")
    wait_for_stage("check_snapshot", run_uri).send_signal(signal.SIGKILL)
    runner = wait_for_stage("train_challenger", run_uri).parent()
    runner.parent().send_signal(signal.SIGKILL)
    return lab.finish("third")


def test_a_killed_stage_and_a_killed_worker_are_tried_again(third_cycle, retrained):
    assert third_cycle.state == "success"
    assert third_cycle.tries_of("check_snapshot") == 2
    assert third_cycle.tries_of("train_challenger") >= 2
    outcome_of(retrained.home, "third")


def test_a_regression_is_green_and_told_once(lab, third_cycle, retrained):
    assert {third_cycle.state_of(stage) for stage in STAGES} == {"success"}
    assert judgement_of(retrained.home, "third").verdict.decision == "REJECT"
    promotion = promotion_of(retrained.home, "third")
    assert not promotion.is_promoted
    assert promotion.champion_after == promotion.champion_before
    run_id = outcome_of(retrained.home, "third").run.run_id
    (alert,) = lab.alerts(run_id)
    assert alert["kind"] == "regression"


def test_data_that_cannot_be_used_fails_at_once_and_is_told_once(lab):
    outcome = lab.run("no-data", "2019-01-07")
    assert outcome.state == "failed"
    failed = [task for task in STAGES if outcome.state_of(task) == "failed"]
    assert len(failed) == 1
    assert outcome.tries_of(failed[0]) == 1  # no retry helps
    run = find_run(str(lab.home.path / "workspace"), "no-data").run
    (alert,) = lab.alerts(run.run_id, wait_s=20)
    assert failed[0] in alert["happened"] or alert["kind"] == "data_gate_failed"
    assert "homefeed " in alert["next_command"]
    time.sleep(2)
    assert len(lab.alerts(run.run_id)) == 1


def test_a_run_that_cannot_be_resolved_is_told_of_too(lab):
    outcome = lab.run("too-old", "2017-01-20", promote=True)
    assert outcome.state == "failed"
    assert outcome.tries_of("resolve_run") == 1
    (alert,) = lab.alerts("too-old", wait_s=20)
    assert alert["kind"] == "broken_run"
    assert "not newer than the champion" in alert["happened"]


def test_a_killed_start_leaves_nothing_running(tmp_path, retrained):
    home = tmp_path / "home"
    (home / "airflow").mkdir(parents=True)
    for path in [retrained.home / "airflow" / "airflow.db"] + [
        *(retrained.home / "airflow").glob("migrated-*")
    ]:
        shutil.copy(path, home / "airflow")  # a database that is made already
    ui = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "local", "ui", "--home", str(home)]
        + ["--dags", str(DAGS)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    lines: list[str] = []
    while "Ctrl-C" not in "".join(lines):
        line = ui.stdout.readline()
        assert line, f"ui ended early: {lines}"
        lines.append(line)
    assert len(processes.marked(f"{home}#")) >= 4
    ui.kill()
    ui.wait()
    deadline = time.monotonic() + 30
    while processes.marked(f"{home}#"):
        assert time.monotonic() < deadline, processes.marked(f"{home}#")
        time.sleep(0.3)
    assert all(is_free(port) for port in ports_in("".join(lines))), "a server outlived its mark"
