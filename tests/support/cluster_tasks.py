"""Runs the task of a Job against a cluster, as Airflow's worker and triggerer do between them."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import BaseTrigger

from support.small_cluster import SmallCluster

Names = tuple[str, str, str]
"""Ids of the DAG, of the task and of the DAG's run."""


def use_cluster(cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Airflow's connection lead to the cluster."""
    extra = {"kube_config_path": str(cluster.folder / "config"), "namespace": "stages"}
    connection = {"conn_type": "kubernetes", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))


def pod_template(folder: Path) -> str:
    """Write what pods begin as, with a secret of the cluster, and return its path."""
    secret = [{"secretRef": {"name": "credentials"}}]
    container = {"name": "base", "image": "trainer:1", "envFrom": secret}
    path = folder / "pod.yaml"
    path.write_text(json.dumps({"kind": "Pod", "spec": {"containers": [container]}}))
    return str(path)


def begin(operator: KubernetesJobOperator, names: Names) -> BaseTrigger:
    """Run the task until it waits; return what it waits for."""
    operator.job_poll_interval = 0.2
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(task_context(names))
    return deferred.value.trigger


def run(operator: KubernetesJobOperator, names: Names) -> None:
    """Run the task to its end; its error is raised."""
    trigger = begin(operator, names)

    async def wait() -> Any:
        return await anext(trigger.run())

    operator.execute_complete(task_context(names), asyncio.run(wait()).payload)


def task_context(names: Names) -> Any:
    """Return what a task is given when it is run."""

    def push(key: str, value: Any) -> None:
        json.dumps(value, default=str)  # as Airflow's database must be able to hold it

    dag_id, task_id, run_id = names
    ti = SimpleNamespace(dag_id=dag_id, task_id=task_id, map_index=-1, try_number=1, xcom_push=push)
    return {"ti": ti, "run_id": run_id, "dag": SimpleNamespace()}
