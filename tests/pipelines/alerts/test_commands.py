"""Commands that a person is told to run: understood by `homefeed` and a shell, and of use."""

import shlex
import subprocess

import pytest

from pipelines import storage
from pipelines.alerts.commands import (
    command_at,
    cycle_command,
    new_cycle_command,
    rebuild_command,
)
from pipelines.alerts.compose import Ended, alert_about_failure
from pipelines.alerts.links import airflow_link
from pipelines.alerts.outcomes import outcome_of
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.artifacts import STAGES, ResolvedRun, Snapshot
from pipelines.contracts.errors import SnapshotDamagedError
from pipelines.contracts.judgement import Decision, Judgement
from pipelines.contracts.run_layout import manifest_uri
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact, run_stage
from support import commands
from support.commands import EXECUTABLE, parse
from support.damage import flip_a_byte
from support.judgements import CHAMPION, make_judgement
from support.runs import make_run
from support.worlds import write_planted_world


def test_a_cycle_of_several_machines_is_begun_with_them_or_run_whole_on_one(tmp_path):
    odd = {"accelerator": "gpu", "trigger": "it's a key", "may_promote": False}
    run = make_run(tmp_path, num_devices=4, num_nodes=2, **odd)
    request = run.to_request()
    begun = parse(cycle_command(request, run, "resolve")).params
    whole = parse(cycle_command(request, run)).params
    assert (begun["devices"], begun["nodes"]) == (4, 2)
    assert whole == begun | {"devices": 8, "nodes": 1}  # so many processes train the same
    assert (whole["accelerator"], whole["key"], whole["promote"]) == ("gpu", "it's a key", False)


@pytest.fixture
def cycle(tmp_path, tracking_uri, monkeypatch) -> ResolvedRun:
    """A resolved cycle on a planted world; the environment does not know where it runs."""
    write_planted_world(tmp_path / "event_log")
    monkeypatch.setenv("HOMEFEED_HOME", str(tmp_path))
    monkeypatch.setenv("HOMEFEED_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("HOMEFEED_REGISTERED_MODEL", f"r_{tmp_path.name}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    commands.run("homefeed resolve --as-of 2017-03-02 --recipe smoke --no-promote --key 'a cycle'")
    for name in ("HOME", "TRACKING_URI", "REGISTERED_MODEL"):
        monkeypatch.delenv(f"HOMEFEED_{name}")
    runs_uri = storage.to_uri(tmp_path / "workspace" / "runs")
    [name] = storage.list_names(runs_uri)
    return read_artifact(storage.join(runs_uri, name), "resolve_run", ResolvedRun)


def stages_done(run_uri: str) -> list[str]:
    return [stage for stage in STAGES if storage.exists(manifest_uri(run_uri, stage))]


@pytest.mark.services
@pytest.mark.slow
def test_what_is_told_after_damage_and_after_a_rejection_works(cycle: ResolvedRun) -> None:
    for stage in ("build_snapshot", "check_snapshot"):
        run_stage(stage, cycle.run_uri)
    snapshot = read_artifact(cycle.run_uri, "build_snapshot", Snapshot)
    flip_a_byte(storage.local_path(snapshot.uri) / "pins.arrow")
    repeated = new_cycle_command(cycle).replace(f"again-{cycle.run_id}", "'a cycle'")
    with pytest.raises(SnapshotDamagedError, match=r"pins\.arrow was altered"):
        commands.run(repeated)
    assert stages_done(cycle.run_uri) == list(STAGES[:3])

    alert = alert_about_failure(cycle, Settings(), Ended("train_challenger"))
    assert rebuild_command(cycle.run_uri) in alert.happened
    for command in (rebuild_command(cycle.run_uri), *(x for _, x in alert.next_step.commands)):
        commands.run(command)
    assert stages_done(cycle.run_uri) == list(STAGES)

    step = outcome_of(cycle, make_judgement(Decision.REJECT), None, Settings()).next_step
    commands.run(step.commands[-1][1])
    runs_uri = storage.join(cycle.workspace_uri, "runs")
    [other] = [name for name in storage.list_names(runs_uri) if name != cycle.run_id]
    again = read_artifact(storage.join(runs_uri, other), "resolve_run", ResolvedRun)
    assert stages_done(again.run_uri) == list(STAGES)
    assert (again.as_of, again.may_promote) == (cycle.as_of, cycle.may_promote)
    page = read_artifact(again.run_uri, "compare_with_champion", Judgement).report_uri
    told = read_artifact(again.run_uri, "alert", AlertReceipt).alert.next_step
    assert all(line in storage.read_bytes(page).decode() for _, line in told.commands)


@pytest.mark.parametrize("folder", ["a folder", "plain"])
def test_what_is_to_be_run_next_works_as_pasted_from_any_folder(tmp_path, folder):
    """By a real shell, with nothing of ours on its PATH and no settings of ours."""
    workspace = tmp_path / folder
    workspace.mkdir()
    run = make_run(workspace, tracking_uri="http://127.0.0.1:9", champion=CHAMPION)
    command = command_at(run, "serving")
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    # It got as far as to look for the workspace that the command names.
    assert done.returncode == 78, done.stderr
    assert run.workspace_uri in done.stderr and "not found" not in done.stderr


def test_settings_stand_before_the_command_and_a_container_names_no_installation(monkeypatch):
    odd = Settings(workspace="/srv/our homefeed data")
    command = command_at(odd, "serving")
    before = f"HOMEFEED_WORKSPACE={shlex.quote(storage.to_uri(odd.workspace))} "
    assert command == f"{before}{EXECUTABLE} serving"
    # A stage's container is gone when somebody reads what it has composed.
    monkeypatch.setenv("HOMEFEED_DAG_VERSION", "1a2b3c4")
    assert command_at(odd, "serving") == f"{before}homefeed serving"


@pytest.mark.parametrize("account", ["me:sEcReT", "me:sEc/ReT", "sEcReT"])
def test_who_logs_in_stands_in_no_command_and_in_no_link(account):
    server = f"http://{account}@host:5000"
    told = command_at(Settings(tracking_uri=server), "serving")
    assert " HOMEFEED_TRACKING_URI=http://host:5000 " in told
    link = airflow_link("run", Settings(airflow_url=server))
    assert link.startswith("http://host:5000/dags/") and "ReT" not in told + link
