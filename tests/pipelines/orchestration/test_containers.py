"""What a stage's container is told of the deployment, and what of it is nobody's business there."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.execution_time.context import ConnectionAccessor

from pipelines.contracts.code_identity import project_digest
from pipelines.contracts.errors import ConfigurationError
from pipelines.orchestration.containers import command_line, environment_of, places_of
from pipelines.orchestration.operators import stage_operator
from pipelines.settings import Settings
from support.cluster_tasks import pod_template

VERSION = "6736cd9a0b1c"
OWN_CODE = {"HOMEFEED_DAG_VERSION", "HOMEFEED_DAG_CODE"}
OF_CONNECTION = {
    "spark://10.0.0.7": ("spark://10.0.0.7", 7077, "spark://10.0.0.7:7077"),
    "host and port": ("master.example.com", 7077, "master.example.com:7077"),
    "without a port": ("yarn", None, "yarn"),
}


@pytest.fixture(autouse=True)
def in_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFEED_IMAGE_VERSION", VERSION)


def test_it_is_told_the_places_and_what_else_was_set_for_stages(
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
        "POD_TEMPLATE": "/etc/pod.yaml",
    }.items():
        monkeypatch.setenv(f"HOMEFEED_{name}", value)
    assert environment_of("build_snapshot", Settings()) == {
        "HOMEFEED_EVENT_LOG": "s3://b/log",
        "HOMEFEED_WORKSPACE": "s3://b/work",
        "HOMEFEED_TRACKING_URI": "http://127.0.0.1:5000",
        "HOMEFEED_EXPERIMENT": "ranker",
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


def test_places_in_a_store_stay_as_they_are() -> None:
    found = places_of(Settings(event_log="gs://b/log", workspace="s3://b/w"))
    assert found == {"event_log": "gs://b/log", "workspace": "s3://b/w"}


def test_an_image_of_other_code_on_purpose_is_not_compared() -> None:
    both = Settings(stage_image="trainer:2", anchor_image="trainer:1")
    assert environment_of("train_challenger", both)["HOMEFEED_DAG_VERSION"] == VERSION
    assert environment_of("train_challenger", both)["HOMEFEED_DAG_CODE"] == project_digest()
    assert not environment_of("train_anchor", both).keys() & OWN_CODE
    by_command = Settings(stage_image="trainer:2", anchor_command="/old/homefeed")
    assert not environment_of("train_anchor", by_command).keys() & OWN_CODE
    same = Settings(stage_image="trainer:2")
    assert environment_of("train_anchor", same)["HOMEFEED_DAG_VERSION"] == VERSION


def test_the_command_is_a_list_in_which_nothing_is_split_twice() -> None:
    settings = Settings(command="/opt/old env/bin/homefeed --x".replace(" env", "\\ env"))
    assert command_line("build_snapshot", "s3://w/a b", settings) == [
        *("/opt/old env/bin/homefeed", "--x", "stage", "build_snapshot", "--run", "s3://w/a b")
    ]


def variables_of(runner: str, folder: Path, **settings: Any) -> dict[str, str]:
    """Return the variables of a stage's task as Airflow fills them in."""
    settings |= {"stage_image": "trainer:1", "pod_template": pod_template(folder)}
    chosen = Settings(stage_runner=runner, **settings)
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
    runner: str,
    host: str,
    port: int | None,
    master: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    value = {"conn_type": "spark", "host": host, "port": port}
    monkeypatch.setenv("AIRFLOW_CONN_BIG_ONE", json.dumps(value))
    # Where both are set, the connection is the one that counts.
    found = variables_of(runner, tmp_path, spark_conn_id="big_one", spark_master="local[2]")
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
def test_a_connection_that_is_not_there_ends_the_task(runner: str, tmp_path: Path) -> None:
    """An empty master would mean this machine, which would do the cluster's work in silence."""
    with pytest.raises(AirflowNotFoundException, match="not-there"):
        variables_of(runner, tmp_path, spark_conn_id="not-there")
