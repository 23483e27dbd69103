"""Stages under Airflow's operators: quoting, the end with the worker, what a container is told."""

import subprocess
import sys
import time
from datetime import timedelta

import psutil
import pytest

from pipelines.contracts import errors
from pipelines.contracts.code_identity import project_digest
from pipelines.orchestration.containers import command_line, environment_of
from pipelines.orchestration.operators import stage_operator
from pipelines.settings import Settings
from support.serving import wait_until

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
    assert run_in_bash(str(script), hostile) == f"stage|build_snapshot|{hostile}|"
    assert run_in_bash("printf 'log\\nthe last line crosses\\n' #", "x") == "the last line crosses"
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
    (tmp_path / "pid").touch()
    stage = psutil.Process(int(wait_until((tmp_path / "pid").read_text, 40)))
    time.sleep(2.5)
    assert stage.is_running()  # it is not ended for nothing
    worker.kill()
    worker.wait()
    psutil.wait_procs([stage], timeout=60)
    assert not stage.is_running()


@pytest.mark.parametrize("runner", ["docker", "kubernetes"])
def test_a_container_runner_without_an_image_is_refused(runner):
    with pytest.raises(errors.ConfigurationError, match="HOMEFEED_STAGE_IMAGE"):
        stage_operator("check_snapshot", "x", HOUR, Settings(stage_runner=runner))


@pytest.mark.parametrize(("name", "own"), [("train_challenger", False), ("train_anchor", True)])
def test_the_accepted_recipe_may_be_trained_by_an_image_and_a_command_of_its_own(name, own):
    docker = Settings(stage_runner="docker", stage_image="homefeed:2", anchor_code="homefeed:1")
    assert stage_operator(name, "x", HOUR, docker).image == f"homefeed:{1 if own else 2}"
    bash = stage_operator(name, "x", HOUR, Settings(anchor_code="/old/cli"))
    assert f"exec {'/old/cli' if own else 'homefeed'} stage {name} " in bash.bash_command


VERSION = "6736cd9a0b1c"


@pytest.fixture(autouse=True)
def in_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFEED_IMAGE_VERSION", VERSION)


def test_a_container_is_told_the_places_and_what_else_was_set_for_stages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "EVENT_LOG": "s3://b/log",
        "WORKSPACE": "s3://b/work",
        "EXPERIMENT": "ranker",
        "ALERT_EMAIL_TO": '["on.call@example.com"]',
        "STAGE_RUNNER": "docker",
        "STAGE_IMAGE": "trainer:1",
        "KEEP_DAYS": "90",
        "SPARK_OPTIONS": '{"spark.master": "yarn"}',
        "POD_TEMPLATE": "/etc/pod.yaml",
    }.items():
        monkeypatch.setenv(f"HOMEFEED_{name}", value)
    assert environment_of("build_snapshot", Settings()) == {
        "HOMEFEED_EVENT_LOG": "s3://b/log",
        "HOMEFEED_WORKSPACE": "s3://b/work",
        "HOMEFEED_TRACKING_URI": "http://127.0.0.1:5000",
        "HOMEFEED_EXPERIMENT": "ranker",
        "HOMEFEED_KEEP_DAYS": "90.0",
        "HOMEFEED_SPARK_OPTIONS": '{"spark.master": "yarn"}',
        "HOMEFEED_DAG_CODE": project_digest(),
        "HOMEFEED_DAG_VERSION": VERSION,
    }


def test_what_it_is_told_are_settings_that_mean_the_same_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    here = Settings(home="place", registered_model="r", work_folder="trainings", recipe="smoke")
    told = environment_of("train_challenger", here)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")
    there = Settings()
    assert there.workspace_location == f"{tmp_path}/place/workspace"
    assert there.event_log_location == f"{tmp_path}/place/event_log"
    assert there.work_folder == f"{tmp_path}/trainings"
    assert (there.registered_model, there.recipe) == ("r", "smoke")


@pytest.mark.parametrize(
    ("stage", "settings", "is_told"),
    [
        ("train_challenger", {"stage_image": "trainer:2", "anchor_code": "trainer:1"}, True),
        ("train_anchor", {"stage_image": "trainer:2", "anchor_code": "trainer:1"}, False),
        ("train_anchor", {"anchor_code": "/old/homefeed"}, False),
        ("train_anchor", {"stage_image": "trainer:2"}, True),
    ],
)
def test_an_image_of_other_code_on_purpose_is_not_compared(
    stage: str, settings: dict[str, str], is_told: bool
) -> None:
    told = environment_of(stage, Settings(**settings))
    own = {"HOMEFEED_DAG_VERSION": VERSION, "HOMEFEED_DAG_CODE": project_digest()}
    assert {name: told[name] for name in own if name in told} == (own if is_told else {})


def test_the_command_is_a_list_in_which_nothing_is_split_twice() -> None:
    settings = Settings(command="/opt/old env/bin/homefeed --x".replace(" env", "\\ env"))
    assert command_line("build_snapshot", "s3://w/a b", settings) == (
        *("/opt/old env/bin/homefeed", ["--x", "stage", "build_snapshot", "s3://w/a b"]),
    )
