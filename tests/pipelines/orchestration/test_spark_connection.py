"""The master of a Spark cluster that a connection of Airflow's names reaches the stage."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.execution_time.context import ConnectionAccessor

from pipelines.contracts.errors import ConfigurationError
from pipelines.orchestration.containers import environment_of
from pipelines.orchestration.operators import stage_operator
from pipelines.settings import Settings
from support.cluster_tasks import pod_template

OF_CONNECTION = {
    "spark://10.0.0.7": ("spark://10.0.0.7", 7077, "spark://10.0.0.7:7077"),
    "host and port": ("master.example.com", 7077, "master.example.com:7077"),
    "without a port": ("yarn", None, "yarn"),
}


@pytest.fixture(autouse=True)
def in_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOMEFEED_POD_TEMPLATE", pod_template(tmp_path))


def variables_of(runner: str, **settings: Any) -> dict[str, str]:
    """Return the variables of a stage's task as Airflow fills them in."""
    chosen = Settings(stage_runner=runner, stage_image="trainer:1", **settings)
    operator: Any = stage_operator("build_snapshot", "s3://b/run", timedelta(hours=1), chosen)
    operator.render_template_fields({"conn": ConnectionAccessor()})
    if runner == "kubernetes":
        return {each.name: each.value for each in operator.env_vars}
    if runner == "docker":
        return {**operator.environment, **operator._private_environment}
    return operator.env


@pytest.mark.parametrize("runner", ["bash", "docker", "kubernetes"])
@pytest.mark.parametrize(("host", "port", "master"), OF_CONNECTION.values(), ids=OF_CONNECTION)
def test_a_connection_names_the_master(
    runner: str, host: str, port: int | None, master: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {"conn_type": "spark", "host": host, "port": port}
    monkeypatch.setenv("AIRFLOW_CONN_BIG_ONE", json.dumps(value))
    # Where both are set, the connection is the one that counts.
    found = variables_of(runner, spark_conn_id="big_one", spark_master="local[2]")
    assert found["HOMEFEED_SPARK_MASTER"] == master


def test_options_reach_a_container_as_the_json_that_it_reads() -> None:
    options = {"spark.executor.memory": "3g"}
    chosen = Settings(snapshot_engine="spark", spark_master="yarn", spark_options=options)
    told = environment_of("build_snapshot", chosen)
    assert told["HOMEFEED_SNAPSHOT_ENGINE"] == "spark"
    assert told["HOMEFEED_SPARK_MASTER"] == "yarn"
    assert json.loads(told["HOMEFEED_SPARK_OPTIONS"]) == options


def test_what_is_no_name_of_a_connection_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="HOMEFEED_SPARK_CONN_ID.*id of an Airflow conn"):
        Settings(spark_conn_id="x') }}{{ 1")


@pytest.mark.parametrize("runner", ["bash", "docker", "kubernetes"])
def test_a_connection_that_is_not_there_ends_the_task(runner: str) -> None:
    """An empty master would mean this machine, which would do the cluster's work in silence."""
    with pytest.raises(AirflowNotFoundException, match="not-there"):
        variables_of(runner, spark_conn_id="not-there")
