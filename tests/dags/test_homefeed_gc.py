"""The DAG file of the deletion: its one task and its schedule."""

import runpy
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.orchestration.retries import StageRetryPolicy
from support.commands import parse


@pytest.mark.parametrize("command", ["homefeed", "/opt/homefeed/bin/homefeed"])
def test_it_runs_the_command_once_a_week_and_waits_to_be_unpaused(
    repository: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("HOMEFEED_COMMAND", command)
    dag = runpy.run_path(str(repository / "dags" / "homefeed_gc.py"))["homefeed_gc"]
    assert dag.is_paused_upon_creation is True
    assert dag.catchup is False and dag.max_active_runs == 1
    assert dag.schedule == "0 2 * * 4"
    [task] = dag.tasks
    assert task.bash_command == f"exec {command} gc"
    assert parse("homefeed gc").params == {"dry_run": False, "as_json": False}
    assert task.append_env and task.skip_on_exit_code in (None, [])
    assert task.retries == 2 and isinstance(task.retry_policy, StageRetryPolicy)
    assert task.pool == "default_pool"
    assert (task.retries + 1) * task.execution_timeout < dag.dagrun_timeout < timedelta(days=7)
