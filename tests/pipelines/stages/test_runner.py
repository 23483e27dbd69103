"""The runner: a stage happens once, again when it must, and leaves its failure behind."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import deletion, storage
from pipelines.contracts.base import Artifact
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
)
from pipelines.contracts.run_layout import StageFailure, failure_uri, manifest_uri
from pipelines.stages import runner
from support.runs import make_run, save_run
from support.stage_bodies import Number


@pytest.fixture
def run_uri(tmp_path: Path) -> str:
    run = make_run(tmp_path)
    save_run(run)
    return run.run_uri


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
        deletion.remove(manifest_uri(run_uri, "build_snapshot"))
    assert seen == [1, 2]


def test_the_record_and_the_index_of_all_cycles_tell_what_a_stage_used(
    tmp_path: Path, run_uri: str, set_body: Callable
) -> None:
    set_body("build_snapshot", lambda output_uri: Number(value=len(bytearray(2**20))))
    runner.run_stage("build_snapshot", run_uri)
    used = runner.read_record(run_uri, "build_snapshot").usage
    assert used is not None and used.peak_memory_bytes > 2**20
    index = tmp_path / "workspace" / "cycles.html"
    assert not index.exists()  # there is nothing new to tell of a cycle that goes on
    set_body("check_snapshot", lambda number, output_uri: 1 / 0, "build_snapshot")
    with pytest.raises(ZeroDivisionError):
        runner.run_stage("check_snapshot", run_uri)
    assert "check_snapshot broke: division by zero" in index.read_text()


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
        (errno.ENOENT, "ConfigurationError", 78, False),
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


def test_a_run_folder_is_known_by_a_link_to_it(
    tmp_path: Path, run_uri: str, set_body: Callable
) -> None:
    set_body("build_snapshot", lambda output_uri: Number(value=1))
    linked = tmp_path / "linked"
    linked.symlink_to(storage.local_path(run_uri))
    runner.run_stage("build_snapshot", str(linked))
    assert storage.exists(manifest_uri(run_uri, "build_snapshot"))
