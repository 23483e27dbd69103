"""Kills, races, damage and copies: what a run survives on a local disk it survives on a store.

Each test runs twice, with the workspace on the disk and in a bucket of a real S3 server.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.alerts.compose import Ended
from pipelines.alerts.incidents import alert_on_failure
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    LostRaceError,
    RunInProgressError,
)
from pipelines.contracts.run_layout import failure_uri, manifest_uri, stage_lease_uri
from pipelines.settings import Settings
from pipelines.stages import runner
from support import commands
from support.holders import TTL_S
from support.runs import make_run, save_run
from support.stage_bodies import Number


@pytest.fixture
def run_uri(tmp_path: Path, workspace_uri: str) -> str:
    return save_run(make_run(tmp_path, workspace_uri=workspace_uri)).run_uri


@pytest.fixture
def settings(workspace_uri: str) -> Settings:
    return Settings(workspace=workspace_uri)


def test_a_killed_attempt_does_not_leave_the_reason_of_an_earlier_one(
    tmp_path: Path, run_uri: str, settings: Settings, set_body: Callable
) -> None:
    def refuse(output_uri: str) -> Number:
        raise DataContractError("bad rows")

    set_body("build_snapshot", refuse)
    with pytest.raises(DataContractError):
        runner.run_stage("build_snapshot", run_uri)
    assert storage.exists(failure_uri(run_uri, "build_snapshot"))
    assert kill_in_the_middle(tmp_path, run_uri) == -9
    assert not storage.exists(failure_uri(run_uri, "build_snapshot"))
    receipt = alert_on_failure(run_uri, settings, Ended("build_snapshot"))
    assert receipt.alert is not None
    assert "ended without saying why" in receipt.alert.happened
    assert "bad rows" not in receipt.alert.model_dump_json()


DIES = """
import os, sys
from pipelines import deletion, storage
from pipelines.contracts.base import Artifact
from pipelines.places import lease as store_lease
from pipelines.stages import build_snapshot, runner
from pipelines.contracts.stage_table import TABLE, Stage

store_lease.TTL_S = float(sys.argv[3])

class Number(Artifact):
    value: int

def die(*_):
    os.kill(os.getpid(), 9)

def body(output_uri: str) -> Number:
    storage.write_bytes(storage.join(output_uri, "file"), b"x")
    if sys.argv[1] == "in the stage":
        die()
    runner.tidy = die
    return Number(value=1)

TABLE["build_snapshot"] = Stage("build_snapshot", {}, Number, ("output_uri",))
build_snapshot.build_snapshot = body
runner.run_stage("build_snapshot", sys.argv[2])
"""


def test_what_two_killed_attempts_left_is_removed_though_the_second_one_was_done(
    run_uri: str, set_body: Callable
) -> None:
    for when in ("in the stage", "after the manifest"):
        command = [sys.executable, "-c", DIES, when, run_uri, str(TTL_S)]
        killed = subprocess.run(command, check=False)
        assert killed.returncode == -9
    folder = storage.join(run_uri, "build_snapshot")
    made = [name for name in storage.list_names(folder) if name.startswith("output-")]
    assert [name[:16] for name in made] == ["output-00000001-", "output-00000002-"]
    set_body("build_snapshot", lambda output_uri: pytest.fail("it is done already"))
    runner.run_stage("build_snapshot", run_uri)
    lease = "stage.lock" if storage.is_local(run_uri) else "stage.lease"
    assert storage.list_names(folder) == ["manifest.json", made[1], lease]


def kill_in_the_middle(tmp_path: Path, run_uri: str) -> int:
    """Run the stage in a process that ends itself as the kernel ends one without memory."""
    (tmp_path / "dies.py").write_text(
        "import os\n"
        "from pipelines.places import lease as store_lease\n"
        "from pipelines.stages import runner, build_snapshot\n"
        f"store_lease.TTL_S = {TTL_S}\n"
        "build_snapshot.build_snapshot = lambda run: os.kill(os.getpid(), 9)\n"
        f"runner.run_stage('build_snapshot', {run_uri!r})\n"
    )
    return subprocess.run([sys.executable, str(tmp_path / "dies.py")], check=False).returncode


def test_two_at_once_are_refused_and_nobody_is_told_that_the_run_broke(
    run_uri: str, settings: Settings, set_body: Callable
) -> None:

    def body(output_uri: str) -> Number:
        with pytest.raises(RunInProgressError, match="already running"):
            runner.run_stage("build_snapshot", run_uri)
        assert (
            alert_on_failure(run_uri, settings, Ended("build_snapshot", "task_failure")).alert
            is None
        )
        return Number(value=1)

    set_body("build_snapshot", body)
    assert runner.run_stage("build_snapshot", run_uri)
    # Also where the other process has ended by the time that Airflow calls.
    assert (
        alert_on_failure(run_uri, settings, Ended("build_snapshot", "task_failure")).alert is None
    )
    assert storage.list_names(storage.join(settings.workspace, "outbox")) == []


def test_a_race_lost_to_an_attempt_that_fails_later_hides_nothing(
    run_uri: str, settings: Settings, set_body: Callable
) -> None:
    def body(output_uri: str) -> Number:
        with pytest.raises(RunInProgressError):
            runner.run_stage("build_snapshot", run_uri)
        raise DataContractError("bad rows")

    set_body("build_snapshot", body)
    with pytest.raises(DataContractError):
        runner.run_stage("build_snapshot", run_uri)
    told = alert_on_failure(run_uri, settings, Ended("build_snapshot")).alert
    assert told is not None and "bad rows" in told.happened


def test_a_race_lost_to_an_attempt_that_is_killed_later_hides_nothing(
    run_uri: str, settings: Settings, set_body: Callable
) -> None:
    set_body("build_snapshot", lambda output_uri: Number(value=1))
    with storage.exclusive_lock(stage_lease_uri(run_uri, "build_snapshot"), "an attempt"):
        with pytest.raises(LostRaceError):
            runner.run_stage("build_snapshot", run_uri)
        assert alert_on_failure(run_uri, settings, Ended("build_snapshot")).alert is None
    told = alert_on_failure(run_uri, settings, Ended("build_snapshot", "task_failure")).alert
    assert told is not None and "ended without saying why (task_failure)" in told.happened


def test_a_stage_that_fails_because_another_place_is_held_is_told(
    run_uri: str, settings: Settings, set_body: Callable
) -> None:
    """Somebody rolls back, say, and has suspended the command."""

    def body(output_uri: str) -> Number:
        with storage.exclusive_lock(storage.join(run_uri, "elsewhere"), "a promotion"):
            return Number(value=1)

    set_body("build_snapshot", body)
    with storage.exclusive_lock(storage.join(run_uri, "elsewhere"), "a rollback"):
        with pytest.raises(RunInProgressError) as caught:
            runner.run_stage("build_snapshot", run_uri)
        assert not isinstance(caught.value, LostRaceError)
        told = alert_on_failure(run_uri, settings, Ended("build_snapshot")).alert
    assert told is not None and "a promotion is already running" in told.happened


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b'"value": 1', b'"value": 2', "edited"),
        (b'"schema_version": 1', b'"schema_version": 2', "schema_version is 2"),
        (b"{", b"", "Invalid JSON"),
    ],
)
def test_a_manifest_that_is_not_as_it_was_written_is_refused_and_mended_as_told(
    run_uri: str, set_body: Callable, before: bytes, after: bytes, said: str
) -> None:
    set_body("build_snapshot", lambda output_uri: Number(value=1))
    set_body("check_snapshot", lambda number, output_uri: Number(value=0), "build_snapshot")
    uri = runner.run_stage("build_snapshot", run_uri)
    storage.write_bytes(uri, storage.read_bytes(uri).replace(before, after))
    for stage in ("check_snapshot", "build_snapshot"):
        with pytest.raises(DataContractError, match=f"(?s){said}.*--again") as caught:
            runner.run_stage(stage, run_uri)
        assert uri in str(caught.value)
    commands.run(str(caught.value).split("`")[1])
    runner.run_stage("check_snapshot", run_uri)


def test_a_first_manifest_that_is_damaged_is_to_be_made_anew(run_uri: str) -> None:
    storage.write_bytes(manifest_uri(run_uri, "resolve_run"), b"{}")
    with pytest.raises(DataContractError, match="delete it and repeat the command"):
        runner.run_stage("build_snapshot", run_uri)


@pytest.mark.parametrize("content", [None, b"too long"])
def test_a_stage_runs_again_when_its_file_is_gone_or_of_another_size(
    run_uri: str, set_body: Callable, content: bytes | None
) -> None:
    values = iter((1, 2))

    def body(output_uri: str) -> Number:
        file_uri = storage.join(output_uri, "file")
        storage.write_bytes(file_uri, b"x")
        return Number(value=next(values), file_uri=file_uri)

    set_body("build_snapshot", body)
    for _ in range(2):
        runner.run_stage("build_snapshot", run_uri)
    first = runner.read_artifact(run_uri, "build_snapshot", Number)
    assert first.value == 1
    deletion.remove(first.file_uri)
    if content is not None:
        storage.write_bytes(first.file_uri, content)
    runner.run_stage("build_snapshot", run_uri)
    second = runner.read_artifact(run_uri, "build_snapshot", Number)
    assert second.value == 2
    assert storage.read_bytes(second.file_uri) == b"x"


def test_a_run_folder_that_was_copied_is_refused_and_the_original_stays(
    run_uri: str, set_body: Callable
) -> None:
    set_body("build_snapshot", lambda output_uri: Number(value=1))
    copied = f"{run_uri}-copied"
    storage.write_bytes(
        manifest_uri(copied, "resolve_run"),
        storage.read_bytes(manifest_uri(run_uri, "resolve_run")),
    )
    with pytest.raises(ConfigurationError, match=f"resolved for {run_uri}; expected"):
        runner.run_stage("build_snapshot", copied)
    assert storage.list_names(storage.join(run_uri, "build_snapshot")) == []
