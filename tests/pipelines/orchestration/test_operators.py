"""Stages under Airflow's operators: quoting, exit codes, retries, as_of."""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from airflow.providers.docker.exceptions import DockerContainerFailedException
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowException

from pipelines.contracts import errors
from pipelines.orchestration.operators import (
    StageRetryPolicy,
    choose_as_of,
    exit_code_of,
    stage_operator,
)
from pipelines.settings import Settings

HOUR = timedelta(hours=1)
START_ARGUMENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def run_in_bash(script: str, run_uri: str) -> str:
    """Run a stage's operator with `script` in place of the command line; return its result."""
    operator = stage_operator("build_snapshot", run_uri, HOUR, Settings(command=script))
    return operator.execute({})


def action_of(error: BaseException) -> RetryAction:
    return StageRetryPolicy().evaluate(error, try_number=1, max_tries=3).action


def test_the_run_uri_reaches_the_command_unharmed(tmp_path):
    hostile = f'file:///tmp/a b\'; touch {tmp_path}/hit; echo "$HOME" `id`'
    script = tmp_path / "stage.sh"
    script.write_text('#!/bin/bash\nprintf "%s|" "$@"\n')
    script.chmod(0o755)
    assert run_in_bash(str(script), hostile) == f"stage|build_snapshot|--run|{hostile}|"
    assert not (tmp_path / "hit").exists()


def test_a_stage_ends_when_its_worker_is_killed(tmp_path):
    # As in Airflow: a worker, under it the task's runner, under that the stage's shell.
    runner = (
        "from datetime import timedelta;"
        "from pipelines.orchestration.operators import stage_operator;"
        "from pipelines.settings import Settings;"
        f"command = 'bash -c \"echo $$ > {tmp_path}/pid; sleep 600\" #';"
        "stage_operator('build_snapshot', 'x', timedelta(1), Settings(command=command)).execute({})"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", START_ARGUMENT, runner],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 40
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline and worker.poll() is None
        time.sleep(0.1)
    stage = psutil.Process(int((tmp_path / "pid").read_text()))
    time.sleep(2.5)
    assert stage.is_running()  # it is not ended for nothing
    worker.kill()
    worker.wait()
    psutil.wait_procs([stage], timeout=15)
    assert not stage.is_running()


@pytest.mark.parametrize("code", sorted(errors.PERMANENT_EXIT_CODES))
def test_an_exit_code_that_no_retry_helps_fails_at_once(code):
    with pytest.raises(AirflowException) as caught:
        run_in_bash(f"bash -c 'exit {code}'", "file:///run")
    assert exit_code_of(caught.value) == code
    assert action_of(caught.value) is RetryAction.FAIL


@pytest.mark.parametrize("code", [1, 69, 70, 75, 99, 137])
def test_every_other_exit_code_is_left_to_the_retries(code):
    with pytest.raises(AirflowException) as caught:
        run_in_bash(f"bash -c 'exit {code}'", "file:///run")
    assert exit_code_of(caught.value) == code
    assert action_of(caught.value) is RetryAction.DEFAULT


def test_the_last_line_is_what_crosses():
    assert run_in_bash("printf 'log\\nfile:///run/manifest.json\\n' #", "x") == (
        "file:///run/manifest.json"
    )


@pytest.mark.parametrize(
    "error, action",
    [
        (errors.DataGateFailedError("no"), RetryAction.FAIL),
        (errors.PromotionRefusedError("no"), RetryAction.FAIL),
        (errors.ConfigurationError("no"), RetryAction.FAIL),
        (errors.TransientStorageError("later"), RetryAction.DEFAULT),
        (errors.TrackingUnavailableError("later"), RetryAction.DEFAULT),
        (RuntimeError("who knows"), RetryAction.DEFAULT),
        # The words of Docker's and Kubernetes' operators:
        (
            DockerContainerFailedException("Docker container failed: {'StatusCode': 65}"),
            RetryAction.FAIL,
        ),
        (AirflowException("Pod x returned a failure. {'exit_code': 78}"), RetryAction.FAIL),
        (AirflowException("Pod x returned a failure. {'exit_code': 137}"), RetryAction.DEFAULT),
    ],
)
def test_the_class_or_the_code_decides_about_a_retry(error, action):
    assert action_of(error) is action


def test_docker_gets_the_same_command_without_a_shell():
    settings = Settings(stage_runner="docker", stage_image="homefeed:1", workspace="s3://w")
    operator = stage_operator("train_challenger", "s3://w/runs/a b", HOUR, settings)
    assert isinstance(operator, DockerOperator)
    assert operator.command == ["homefeed", "stage", "train_challenger", "--run", "s3://w/runs/a b"]
    assert operator.execution_timeout == HOUR


def test_kubernetes_gets_the_same_command_without_a_shell():
    pod = pytest.importorskip("airflow.providers.cncf.kubernetes.operators.pod")
    settings = Settings(stage_runner="kubernetes", stage_image="homefeed:1")
    operator = stage_operator("train_challenger", "s3://w/runs/a b", HOUR, settings)
    assert isinstance(operator, pod.KubernetesPodOperator)
    assert [*operator.cmds, *operator.arguments] == [
        *("homefeed", "stage", "train_challenger", "--run", "s3://w/runs/a b")
    ]
    assert operator.deferrable and operator.durable


def test_bash_is_the_default():
    assert isinstance(stage_operator("check_snapshot", "x", HOUR, Settings()), BashOperator)


@pytest.mark.parametrize("runner", ["docker", "kubernetes"])
def test_a_container_runner_without_an_image_is_refused(runner):
    with pytest.raises(errors.ConfigurationError, match="HOMEFEED_STAGE_IMAGE"):
        stage_operator("check_snapshot", "x", HOUR, Settings(stage_runner=runner))


END = datetime(2026, 1, 19, 6, tzinfo=UTC)
NOW = datetime(2026, 2, 3, 17, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    "param, interval_end, expected_day",
    [
        ("2017-06-12", END, "2017-06-12"),
        (None, END, "2026-01-19"),
        ("", END, "2026-01-19"),
        (None, None, "2026-02-03"),
    ],
)
def test_as_of_is_the_param_else_the_interval_end_else_now(param, interval_end, expected_day):
    found = choose_as_of(param, interval_end, NOW)
    assert found.isoformat() == f"{expected_day}T00:00:00+00:00"


def test_as_of_is_floored_in_utc():
    berlin_night = datetime.fromisoformat("2026-02-03T00:30:00+01:00")
    assert choose_as_of(None, None, berlin_night).isoformat() == "2026-02-02T00:00:00+00:00"


def test_an_as_of_that_is_no_day_is_refused():
    with pytest.raises(errors.ConfigurationError, match="'yesterday'"):
        choose_as_of("yesterday", None, NOW)
