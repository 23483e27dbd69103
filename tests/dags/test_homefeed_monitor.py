"""The DAG file of the monitor: its schedule, its command, and the cycle that it may trigger."""

import runpy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DagRunTriggerException

from pipelines.monitor import watching
from pipelines.orchestration.retries import StageRetryPolicy
from pipelines.orchestration.runs import OPTIONS
from pipelines.settings import DAG_ID
from support.commands import parse


@pytest.fixture
def dag(repository: Path) -> Any:
    return runpy.run_path(str(repository / "dags" / "homefeed_monitor.py"))["homefeed_monitor"]


def test_it_runs_the_command_every_day_and_waits_to_be_unpaused(dag: Any) -> None:
    assert dag.is_paused_upon_creation is True and dag.schedule == "0 8 * * *"
    assert dag.catchup is False and dag.max_active_runs == 1
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == {
        "monitor": {"early_retrain"},
        "early_retrain": {"retrain"},
        "retrain": set(),
    }
    monitor = dag.get_task("monitor")
    assert monitor.bash_command == "exec homefeed monitor" and monitor.append_env
    assert parse("homefeed monitor").params == {"as_json": False}
    for task in dag.tasks:
        assert task.retries == 2 and isinstance(task.retry_policy, StageRetryPolicy)
    assert 3 * monitor.execution_timeout < dag.dagrun_timeout < timedelta(days=1)


def test_a_regression_triggers_one_run_of_the_retraining_with_an_id_of_its_own(
    dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide, trigger = (dag.get_task(name) for name in ("early_retrain", "retrain"))
    for run_id in (None, "monitor__0123456789abcdef"):
        monkeypatch.setattr(watching, "early_retrain", lambda settings, run_id=run_id: run_id)
        assert decide.python_callable() == run_id
    assert trigger.trigger_run_id.operator.task_id == "early_retrain"
    trigger.trigger_run_id = run_id
    with pytest.raises(DagRunTriggerException) as raised:
        trigger.execute({"ti": None})
    asked = raised.value
    assert (asked.trigger_dag_id, asked.dag_run_id) == (DAG_ID, run_id)
    assert asked.skip_when_already_exists and asked.logical_date is None
    assert set(asked.conf or {}) <= set(OPTIONS)
