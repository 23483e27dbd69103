"""The DAG file of the rollback: its form, its one task, and what it updates."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import ParamValidationError

from pipelines.orchestration.retries import StageRetryPolicy


@pytest.fixture
def namespace(repository: Path) -> dict[str, Any]:
    return runpy.run_path(str(repository / "dags" / "homefeed_rollback.py"))


@pytest.fixture
def dag(namespace: dict[str, Any]) -> Any:
    return namespace["homefeed_rollback"]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("to_version", [None, "3", "12"], ["v3", "0", "3; rm", "", 3]),
        ("from_version", [None, "4"], ["latest"]),
        ("reason", ["hides rose"], ["", "why", None, "x" * 501]),
    ],
)
def test_the_form_takes_what_fits(dag: Any, name: str, good: list, bad: list) -> None:
    for value in good:
        assert dag.params.get_param(name).resolve(value) == value
    for value in bad:
        with pytest.raises(ParamValidationError):
            dag.params.get_param(name).resolve(value)


def test_it_waits_for_nobody_and_runs_one_at_a_time(dag: Any) -> None:
    assert dag.schedule is None and not dag.is_paused_upon_creation
    assert dag.max_active_runs == 1


def test_its_task_has_retries_timeout_and_pool(dag: Any) -> None:
    [task] = dag.tasks
    assert task.retries == 2 and isinstance(task.retry_policy, StageRetryPolicy)
    assert task.pool == "default_pool"
    assert (task.retries + 1) * task.execution_timeout < dag.dagrun_timeout


def test_the_asset_is_that_of_the_retraining(
    dag: Any, namespace: dict[str, Any], repository: Path
) -> None:
    retrain = runpy.run_path(str(repository / "dags" / "homefeed_retrain.py"))
    assert namespace["CHAMPION"] == retrain["CHAMPION"]
    assert dag.tasks[0].outlets == [retrain["PROMOTED"]]
