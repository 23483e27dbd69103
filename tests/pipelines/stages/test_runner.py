from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import StageFailure
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError, DataContractError, RunInProgressError
from pipelines.contracts.run_layout import failure_uri, manifest_uri
from pipelines.stages import runner
from pipelines.stages import table as bodies
from support.runs import make_run, save_run


class Number(Frozen):
    value: int


@pytest.fixture
def run_uri(tmp_path: Path) -> str:
    run = make_run(tmp_path)
    save_run(run)
    return run.run_uri


@pytest.fixture
def set_body(monkeypatch: pytest.MonkeyPatch) -> Callable:
    def set_it(name: str, body: Callable, inputs: tuple[str, ...] = ()) -> None:
        monkeypatch.setitem(bodies.STAGE_BODIES, name, runner.Stage(name, inputs, body))

    return set_it


def test_a_stage_runs_once(run_uri: str, set_body: Callable) -> None:
    calls = []

    def body(context: runner.StageContext) -> Number:
        calls.append(context.output_uri)
        return Number(value=len(calls))

    set_body("build_snapshot", body)
    first = runner.run_stage("build_snapshot", run_uri)
    assert runner.run_stage("build_snapshot", run_uri) == first
    assert len(calls) == 1
    assert runner.read_artifact(run_uri, "build_snapshot", Number).value == 1


def test_a_stage_runs_again_when_its_input_changed(run_uri: str, set_body: Callable) -> None:
    values = iter((1, 2))
    seen = []
    set_body("build_snapshot", lambda context: Number(value=next(values)))

    def body(context: runner.StageContext) -> Number:
        seen.append(context.artifact("build_snapshot", Number).value)
        return Number(value=0)

    set_body("check_snapshot", body, ("build_snapshot",))
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

    def body(context: runner.StageContext) -> Frozen:
        storage.write_bytes(storage.join(context.output_uri, "file"), b"x")
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
    set_body("build_snapshot", lambda context: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runner.run_stage("build_snapshot", run_uri)
    failure = storage.read_model(failure_uri(run_uri, "build_snapshot"), StageFailure)
    assert (failure.exit_code, failure.is_retryable) == (70, True)


def test_two_at_once_are_refused(run_uri: str, set_body: Callable) -> None:
    def body(context: runner.StageContext) -> Number:
        with pytest.raises(RunInProgressError, match="already running"):
            runner.run_stage("build_snapshot", run_uri)
        return Number(value=1)

    set_body("build_snapshot", body)
    assert runner.run_stage("build_snapshot", run_uri)


def test_an_altered_manifest_is_refused(run_uri: str) -> None:
    storage.write_bytes(manifest_uri(run_uri, "resolve_run"), b"{}")
    with pytest.raises(DataContractError, match="delete it to have the stage run again"):
        runner.run_stage("build_snapshot", run_uri)
