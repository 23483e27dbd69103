"""Stages under Airflow's operators: quoting, the end with the worker, the three runners."""

import subprocess
import sys
import time
from datetime import timedelta

import psutil
import pytest
from airflow.providers.standard.operators.bash import BashOperator

from pipelines.contracts import errors
from pipelines.orchestration.operators import stage_operator
from pipelines.settings import Settings

HOUR = timedelta(hours=1)
START_ARGUMENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def run_in_bash(script: str, run_uri: str) -> str:
    """Run a stage's operator with `script` in place of the command line; return its result."""
    operator = stage_operator("build_snapshot", run_uri, HOUR, Settings(command=script))
    return operator.execute({})


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
    psutil.wait_procs([stage], timeout=60)
    assert not stage.is_running()


def test_the_last_line_is_what_crosses():
    assert run_in_bash("printf 'log\\nfile:///run/manifest.json\\n' #", "x") == (
        "file:///run/manifest.json"
    )


def test_bash_is_the_default():
    assert isinstance(stage_operator("check_snapshot", "x", HOUR, Settings()), BashOperator)


@pytest.mark.parametrize("runner", ["docker", "kubernetes"])
def test_a_container_runner_without_an_image_is_refused(runner):
    with pytest.raises(errors.ConfigurationError, match="HOMEFEED_STAGE_IMAGE"):
        stage_operator("check_snapshot", "x", HOUR, Settings(stage_runner=runner))


def test_the_accepted_recipe_may_be_trained_by_an_image_and_a_command_of_its_own():
    docker = Settings(stage_runner="docker", stage_image="homefeed:2", anchor_code="homefeed:1")
    images = {
        name: stage_operator(name, "x", HOUR, docker).image
        for name in ("train_challenger", "train_anchor", "compare_with_champion")
    }
    assert images == {
        "train_challenger": "homefeed:2",
        "train_anchor": "homefeed:1",
        "compare_with_champion": "homefeed:2",
    }
    by_command = Settings(anchor_code="/old/cli")
    bash = stage_operator("train_anchor", "x", HOUR, by_command)
    assert "exec /old/cli stage train_anchor " in bash.bash_command
    bash = stage_operator("train_challenger", "x", HOUR, by_command)
    assert "exec homefeed stage train_challenger " in bash.bash_command
