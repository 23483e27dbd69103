"""The runner: a stage happens once, again when it must, and leaves its failure behind."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.alerts.compose import alert_on_failure
from pipelines.contracts.artifacts import StageFailure
from pipelines.contracts.base import Artifact
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    LostRaceError,
    RunInProgressError,
)
from pipelines.contracts.run_layout import failure_uri, manifest_uri, stage_lease_uri
from pipelines.settings import Settings
from pipelines.stages import runner
from pipelines.stages.table import TABLE, Stage
from support import commands
from support.runs import make_run, save_run


class Number(Artifact):
    value: int
    file_uri: str = ""

    def places(self) -> dict[str, int | None]:
        return {self.file_uri: 1} if self.file_uri else {}


@pytest.fixture
def run_uri(tmp_path: Path) -> str:
    run = make_run(tmp_path)
    save_run(run)
    return run.run_uri


@pytest.fixture
def set_body(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Put a body in the place of a stage's function; it takes what the inputs give."""

    def set_it(name: str, body: Callable, *inputs: str) -> None:
        numbers = dict.fromkeys(inputs, Number)
        stage = Stage(name, inputs=numbers, gives=Number, also=("output_uri",))
        monkeypatch.setitem(TABLE, name, stage)
        monkeypatch.setattr(f"pipelines.stages.{name}.{name}", body)

    return set_it


def test_a_stage_runs_once(run_uri: str, set_body: Callable) -> None:
    calls = []

    def body(output_uri: str) -> Number:
        calls.append(output_uri)
        return Number(value=len(calls))

    set_body("build_snapshot", body)
    first = runner.run_stage("build_snapshot", run_uri)
    assert runner.run_stage("build_snapshot", run_uri) == first
    assert len(calls) == 1
    assert runner.read_artifact(run_uri, "build_snapshot", Number).value == 1


def test_a_stage_runs_again_when_its_input_changed(run_uri: str, set_body: Callable) -> None:
    values = iter((1, 2))
    seen = []
    set_body("build_snapshot", lambda output_uri: Number(value=next(values)))

    def body(number: Number, output_uri: str) -> Number:
        seen.append(number.value)
        return Number(value=0)

    set_body("check_snapshot", body, "build_snapshot")
    for _ in range(2):
        runner.run_stage("build_snapshot", run_uri)
        runner.run_stage("check_snapshot", run_uri)
        storage.remove(manifest_uri(run_uri, "build_snapshot"))
    assert seen == [1, 2]


def test_a_missing_input_names_the_stage_to_run(run_uri: str) -> None:
    with pytest.raises(ConfigurationError, match="no manifest of build_snapshot"):
        runner.run_stage("check_snapshot", run_uri)


def test_a_failure_is_noted_and_removed_by_success(run_uri: str, set_body: Callable) -> None:
    outcomes = iter((DataContractError("bad rows"), Number(value=1)))

    def body(output_uri: str) -> Artifact:
        storage.write_bytes(storage.join(output_uri, "file"), b"x")
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    set_body("build_snapshot", body)
    with pytest.raises(DataContractError):
        runner.run_stage("build_snapshot", run_uri)
    failure = storage.read_model(failure_uri(run_uri, "build_snapshot"), StageFailure)
    assert (failure.error_class, failure.exit_code, failure.is_retryable) == (
        "DataContractError",
        65,
        False,
    )
    assert not storage.exists(manifest_uri(run_uri, "build_snapshot"))
    runner.run_stage("build_snapshot", run_uri)
    names = storage.list_names(storage.join(run_uri, "build_snapshot"))
    assert "failure.json" not in names
    assert sum(name.startswith("output-") for name in names) == 1, "the failed attempt's is gone"


def test_an_unforeseen_error_counts_as_retryable(run_uri: str, set_body: Callable) -> None:
    set_body("build_snapshot", lambda output_uri: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runner.run_stage("build_snapshot", run_uri)
    failure = storage.read_model(failure_uri(run_uri, "build_snapshot"), StageFailure)
    assert (failure.exit_code, failure.is_retryable) == (70, True)


@pytest.mark.parametrize(
    ("code", "error_class", "exit_code", "is_retryable"),
    [
        (errno.ENOENT, "PlaceError", 78, False),
        (errno.EACCES, "ConfigurationError", 78, False),
        (errno.ENOSPC, "TransientStorageError", 75, True),
    ],
)
def test_an_error_of_the_operating_system_becomes_one_of_ours(
    run_uri: str,
    set_body: Callable,
    code: int,
    error_class: str,
    exit_code: int,
    is_retryable: bool,
) -> None:
    def body(output_uri: str) -> Number:
        raise OSError(code, os.strerror(code), "/data/rows")

    set_body("build_snapshot", body)
    with pytest.raises(HomefeedError, match="working on /data/rows") as caught:
        runner.run_stage("build_snapshot", run_uri)
    assert type(caught.value).__name__ == error_class
    failure = storage.read_model(failure_uri(run_uri, "build_snapshot"), StageFailure)
    assert (failure.error_class, failure.exit_code) == (error_class, exit_code)
    assert failure.is_retryable == is_retryable


def test_a_killed_attempt_does_not_leave_the_reason_of_an_earlier_one(
    tmp_path: Path, run_uri: str, set_body: Callable
) -> None:
    def refuse(output_uri: str) -> Number:
        raise DataContractError("bad rows")

    set_body("build_snapshot", refuse)
    with pytest.raises(DataContractError):
        runner.run_stage("build_snapshot", run_uri)
    assert storage.exists(failure_uri(run_uri, "build_snapshot"))
    assert kill_in_the_middle(tmp_path, run_uri) == -9
    assert not storage.exists(failure_uri(run_uri, "build_snapshot"))
    receipt = alert_on_failure(run_uri, Settings(home=str(tmp_path)), "build_snapshot")
    assert receipt.alert is not None
    assert "ended without saying why" in receipt.alert.happened
    assert "bad rows" not in receipt.alert.model_dump_json()


DIES = """
import os, sys
from pathlib import Path
from pipelines import storage
from pipelines.contracts.base import Artifact
from pipelines.stages import build_snapshot, runner
from pipelines.stages.table import TABLE, Stage

class Number(Artifact):
    value: int

def die(*_):
    os.kill(os.getpid(), 9)

def body(output_uri: str) -> Number:
    storage.write_bytes(storage.join(output_uri, "file"), b"x")
    if sys.argv[1] == "in the stage":
        die()
    runner._tidy = die
    return Number(value=1)

TABLE["build_snapshot"] = Stage("build_snapshot", {}, Number, ("output_uri",))
build_snapshot.build_snapshot = body
runner.run_stage("build_snapshot", sys.argv[2])
"""


def test_what_two_killed_attempts_left_is_removed_though_the_second_one_was_done(
    run_uri: str, set_body: Callable
) -> None:
    for when in ("in the stage", "after the manifest"):
        killed = subprocess.run([sys.executable, "-c", DIES, when, run_uri], check=False)
        assert killed.returncode == -9
    folder = storage.join(run_uri, "build_snapshot")
    made = [name for name in storage.list_names(folder) if name.startswith("output-")]
    assert [name[:16] for name in made] == ["output-00000001-", "output-00000002-"]
    set_body("build_snapshot", lambda output_uri: pytest.fail("it is done already"))
    runner.run_stage("build_snapshot", run_uri)
    assert storage.list_names(folder) == ["manifest.json", made[1], "stage.lock"]


def test_the_record_names_the_code_that_was_there_when_the_stage_began(
    run_uri: str, set_body: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout may be updated while a training runs for hours."""
    order = []
    known = runner.environment
    monkeypatch.setattr(runner, "environment", lambda: order.append("environment") or known())
    set_body("build_snapshot", lambda output_uri: order.append("stage") or Number(value=1))
    runner.run_stage("build_snapshot", run_uri)
    assert order == ["environment", "stage"]


def kill_in_the_middle(tmp_path: Path, run_uri: str) -> int:
    """Run the stage in a process that ends itself as the kernel ends one without memory."""
    (tmp_path / "dies.py").write_text(
        "import os\n"
        "from pipelines.stages import runner, build_snapshot\n"
        "build_snapshot.build_snapshot = lambda run: os.kill(os.getpid(), 9)\n"
        f"runner.run_stage('build_snapshot', {run_uri!r})\n"
    )
    return subprocess.run([sys.executable, str(tmp_path / "dies.py")], check=False).returncode


def test_two_at_once_are_refused_and_nobody_is_told_that_the_run_broke(
    tmp_path: Path, run_uri: str, set_body: Callable
) -> None:
    settings = Settings(home=str(tmp_path))

    def body(output_uri: str) -> Number:
        with pytest.raises(RunInProgressError, match="already running"):
            runner.run_stage("build_snapshot", run_uri)
        assert alert_on_failure(run_uri, settings, "build_snapshot", "task_failure").alert is None
        return Number(value=1)

    set_body("build_snapshot", body)
    assert runner.run_stage("build_snapshot", run_uri)
    # Also where the other process has ended by the time that Airflow calls.
    assert alert_on_failure(run_uri, settings, "build_snapshot", "task_failure").alert is None
    assert storage.list_names(storage.to_uri(tmp_path / "workspace" / "outbox")) == []


def test_a_race_lost_to_an_attempt_that_fails_later_hides_nothing(
    tmp_path: Path, run_uri: str, set_body: Callable
) -> None:
    def body(output_uri: str) -> Number:
        with pytest.raises(RunInProgressError):
            runner.run_stage("build_snapshot", run_uri)
        raise DataContractError("bad rows")

    set_body("build_snapshot", body)
    with pytest.raises(DataContractError):
        runner.run_stage("build_snapshot", run_uri)
    told = alert_on_failure(run_uri, Settings(home=str(tmp_path)), "build_snapshot").alert
    assert told is not None and "bad rows" in told.happened


def test_a_race_lost_to_an_attempt_that_is_killed_later_hides_nothing(
    tmp_path: Path, run_uri: str, set_body: Callable
) -> None:
    set_body("build_snapshot", lambda output_uri: Number(value=1))
    settings = Settings(home=str(tmp_path))
    with storage.exclusive_lock(stage_lease_uri(run_uri, "build_snapshot"), "an attempt"):
        with pytest.raises(LostRaceError):
            runner.run_stage("build_snapshot", run_uri)
        assert alert_on_failure(run_uri, settings, "build_snapshot").alert is None
    told = alert_on_failure(run_uri, settings, "build_snapshot", "task_failure").alert
    assert told is not None and "ended without saying why (task_failure)" in told.happened


def test_a_stage_that_fails_because_another_place_is_held_is_told(
    tmp_path: Path, run_uri: str, set_body: Callable
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
        told = alert_on_failure(run_uri, Settings(home=str(tmp_path)), "build_snapshot").alert
    assert told is not None and "a promotion is already running" in told.happened


def test_a_stage_that_is_done_does_its_work_again_when_it_is_told_to(
    run_uri: str, set_body: Callable
) -> None:
    values = iter((1, 2))
    set_body("build_snapshot", lambda output_uri: Number(value=next(values)))
    runner.run_stage("build_snapshot", run_uri)
    runner.run_stage("build_snapshot", run_uri, again=True)
    assert runner.read_artifact(run_uri, "build_snapshot", Number).value == 2
    for name in ("resolve_run", "promote_challenger", "alert"):
        with pytest.raises(ConfigurationError, match=f"given for {name}; expected one of build_"):
            runner.run_stage(name, run_uri, again=True)


def test_a_stage_s_damaged_manifest_is_mended_as_told(run_uri: str, set_body: Callable) -> None:
    set_body("build_snapshot", lambda output_uri: Number(value=1))
    runner.run_stage("build_snapshot", run_uri)
    storage.write_bytes(manifest_uri(run_uri, "build_snapshot"), b"{}")
    with pytest.raises(DataContractError, match="--again") as caught:
        runner.run_stage("build_snapshot", run_uri)
    commands.run(str(caught.value).split("`")[1])
    assert runner.read_artifact(run_uri, "build_snapshot", Number).value == 1


def test_an_altered_manifest_is_refused(run_uri: str) -> None:
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
    storage.remove(first.file_uri)
    if content is not None:
        storage.write_bytes(first.file_uri, content)
    runner.run_stage("build_snapshot", run_uri)
    second = runner.read_artifact(run_uri, "build_snapshot", Number)
    assert second.value == 2
    assert storage.read_bytes(second.file_uri) == b"x"


def test_a_manifest_that_was_edited_is_refused(run_uri: str, set_body: Callable) -> None:
    set_body("build_snapshot", lambda output_uri: Number(value=1))
    set_body("check_snapshot", lambda number, output_uri: Number(value=0), "build_snapshot")
    path = storage.local_path(runner.run_stage("build_snapshot", run_uri))
    sound = path.read_text()
    path.write_text(sound.replace('"value": 1', '"value": 2'))
    for stage in ("build_snapshot", "check_snapshot"):
        with pytest.raises(DataContractError, match="edited .* --again") as caught:
            runner.run_stage(stage, run_uri)
        assert str(path) in str(caught.value).replace("file://", "")
    runner.run_stage("build_snapshot", run_uri, again=True)
    runner.run_stage("check_snapshot", run_uri)


def test_a_manifest_of_before_there_were_leases_is_read_and_its_seal_fits(
    run_uri: str, set_body: Callable
) -> None:
    set_body("build_snapshot", lambda output_uri: Number(value=1))
    path = storage.local_path(runner.run_stage("build_snapshot", run_uri))
    record = runner.read_record(run_uri, "build_snapshot")
    assert record.lease == 1
    before = record.model_dump_json(exclude={"lease"})
    path.write_text(before)
    assert runner.read_record(run_uri, "build_snapshot").lease == 0
    runner.run_stage("build_snapshot", run_uri)
    assert path.read_text() == before, "it is done already"


def test_a_run_folder_that_was_copied_is_refused_and_the_original_stays(
    run_uri: str, set_body: Callable, tmp_path: Path
) -> None:
    set_body("build_snapshot", lambda output_uri: Number(value=1))
    original = storage.local_path(run_uri)
    copied = tmp_path / "copied"
    shutil.copytree(original, copied)
    with pytest.raises(ConfigurationError, match=f"resolved for {run_uri}; expected"):
        runner.run_stage("build_snapshot", str(copied))
    assert not (original / "build_snapshot").exists()
    linked = tmp_path / "linked"
    linked.symlink_to(original)
    runner.run_stage("build_snapshot", str(linked))
    assert (original / "build_snapshot" / "manifest.json").exists()
