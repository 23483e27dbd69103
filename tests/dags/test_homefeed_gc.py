"""The DAG file of the deletion: its one task, its schedule, and how light it is to read."""

import runpy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.orchestration.retries import StageRetryPolicy
from support.commands import parse


def read(repository: Path) -> Any:
    return runpy.run_path(str(repository / "dags" / "homefeed_gc.py"))["homefeed_gc"]


def test_it_runs_the_command_once_a_week_and_waits_to_be_unpaused(repository: Path) -> None:
    dag = read(repository)
    assert dag.is_paused_upon_creation is True
    assert dag.catchup is False and dag.max_active_runs == 1
    assert dag.schedule == "0 2 * * 4"
    [task] = dag.tasks
    command = task.bash_command.removeprefix("exec ")
    context = parse(command)
    assert command == "homefeed gc" and context.params == {"dry_run": False, "as_json": False}
    assert task.append_env and task.skip_on_exit_code in (None, [])


def test_its_task_has_retries_timeout_and_pool(repository: Path) -> None:
    dag = read(repository)
    [task] = dag.tasks
    assert task.retries == 2 and isinstance(task.retry_policy, StageRetryPolicy)
    assert task.pool == "default_pool"
    assert (task.retries + 1) * task.execution_timeout < dag.dagrun_timeout < timedelta(days=7)


def test_the_command_is_a_setting(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFEED_COMMAND", "/opt/homefeed/bin/homefeed")
    [task] = read(repository).tasks
    assert task.bash_command == "exec /opt/homefeed/bin/homefeed gc"
