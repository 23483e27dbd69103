"""The DAG in a real scheduler: `homefeed local retrain` runs two cycles and sums up."""

import json
import stat
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import STAGES
from pipelines.local import processes
from support.cycles import cycle_of, judgement_of, promotion_of
from support.lab import FIRST_DAY, SECOND_DAY, homefeed_local, ports_in
from support.listeners import Listeners
from support.untouched import look_of

pytestmark = pytest.mark.services

RUN_IDS = (f"retrain__smoke__{FIRST_DAY}", f"retrain__smoke__{SECOND_DAY}")


@pytest.mark.smoke
def test_retrain_runs_its_cycles_and_sums_up(retrained):
    assert retrained.returncode == 0, retrained.output
    for run_id in retrained.run_ids:
        judged = judgement_of(retrained.home, run_id)
        assert str(storage.local_path(judged.report_uri)) in retrained.output
        assert judged.outcome.number.partition(":")[0] in retrained.output
    last = retrained.output.rpartition("ending Airflow and MLflow")[2]
    assert len(last.splitlines()) <= 15 and "http" not in last
    assert " serves since " in last
    assert promotion_of(retrained.home, RUN_IDS[0]).is_promoted
    first, *later = (judgement_of(retrained.home, each).comparison for each in retrained.run_ids)
    assert first.baseline_model is None
    assert [each.baseline_model for each in later] == [first.challenger_model] * len(later)
    assert "http://127.0.0.1:" in retrained.output and "make ui" in retrained.output


@pytest.mark.smoke
def test_nothing_is_left_running_afterwards(retrained):
    assert retrained.left_running == ()
    assert len(ports_in(retrained.output)) == 2
    assert retrained.ports_in_use == (), "a server outlived its mark"


@pytest.mark.smoke
def test_retraining_again_starts_nothing_and_is_harmless(retrained):
    before, logs = look_of(retrained.home / "workspace"), look_of(retrained.home / "logs")
    done = retrained.again()
    assert done.returncode == 0
    assert "nothing to run" in done.stdout
    page = judgement_of(retrained.home, retrained.run_ids[-1]).report_uri
    assert str(storage.local_path(page)) in done.stdout
    assert look_of(retrained.home / "workspace") == before
    assert look_of(retrained.home / "logs") == logs != {}, "a service was started"


def test_a_second_start_in_a_home_says_that_one_is_running(lab, retrained):
    cycle = ("retrain", "--recipe", "smoke", "--as-of", "2017-03-30")
    for words in (("ui",), cycle):
        done = homefeed_local(*words, "--home", str(lab.home.path), event_log=retrained.event_log)
        assert done.returncode == 75 and "already running" in done.stderr
    lab.services.look_after()


def test_all_services_listen_on_this_machine_only_at_the_ports_of_before(lab, retrained):
    ports = lab.services.ports
    assert ports_in(retrained.output) == {ports.airflow, ports.mlflow}
    listeners = Listeners()
    listeners.look(processes.marked(processes.marks_of(lab.home.path)))
    assert len(listeners.by_process) == 2, "Airflow's api-server and MLflow"
    assert listeners.open_to_others == set()


def test_all_that_is_written_is_for_this_user_only(lab, retrained):
    home = lab.home
    assert {mode(folder) for folder in (home.airflow, home.mlflow, home.logs)} == {0o700}
    run = storage.local_path(cycle_of(retrained.home, RUN_IDS[1]).run_uri)
    (bundle,) = run.glob("train_challenger/output-*/bundle")
    assert len(files(bundle)) == 3 and {mode(path) & 0o077 for path in files(bundle)} == {0}
    assert {mode(folder) for folder in (home.path, home.workspace, bundle)} == {0o700}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_asset_is_updated_by_promotions_only(lab, retrained):
    promotions = [promotion_of(retrained.home, run_id) for run_id in RUN_IDS]
    found = lab.get("assets/events?order_by=timestamp")["asset_events"]
    events = [event for event in found if event["name"] == "homefeed/champion"]
    expected = [p.champion_after.version for p in promotions if p.is_promoted]
    assert [event["extra"]["version"] for event in events] == expected


def test_what_crosses_between_tasks_is_json(lab):
    path = f"dags/homefeed_retrain/dagRuns/{RUN_IDS[0]}/taskInstances"
    for stage in STAGES:
        found = lab.get(f"{path}/{stage}/xcomEntries/return_value?deserialize=true")["value"]
        assert json.loads(json.dumps(found)) == found
        if stage == "resolve_run":
            assert set(found) == {"run_uri", "hardware"}
        else:
            assert found.endswith(f"/{stage}/manifest.json")
