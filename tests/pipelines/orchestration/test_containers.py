"""What a stage's container is told of the deployment, and what of it is nobody's business there."""

import json

import pytest

from pipelines.contracts.code_identity import project_digest
from pipelines.orchestration.containers import command_line, environment_of, places_of
from pipelines.settings import Settings

VERSION = "6736cd9a0b1c"
OWN_CODE = {"HOMEFEED_DAG_VERSION", "HOMEFEED_DAG_CODE"}


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
    both = Settings(stage_image="trainer:2", stage_runner="docker", anchor_code="trainer:1")
    assert environment_of("train_challenger", both)["HOMEFEED_DAG_VERSION"] == VERSION
    assert environment_of("train_challenger", both)["HOMEFEED_DAG_CODE"] == project_digest()
    assert not environment_of("train_anchor", both).keys() & OWN_CODE
    by_command = Settings(anchor_code="/old/homefeed")
    assert not environment_of("train_anchor", by_command).keys() & OWN_CODE
    same = Settings(stage_image="trainer:2")
    assert environment_of("train_anchor", same)["HOMEFEED_DAG_VERSION"] == VERSION


def test_the_command_is_a_list_in_which_nothing_is_split_twice() -> None:
    settings = Settings(command="/opt/old env/bin/homefeed --x".replace(" env", "\\ env"))
    assert command_line("build_snapshot", "s3://w/a b", settings) == (
        *("/opt/old env/bin/homefeed", ["--x", "stage", "build_snapshot", "--run", "s3://w/a b"]),
    )


def test_options_reach_a_container_as_the_json_that_it_reads() -> None:
    options = {"spark.master": "yarn", "spark.executor.memory": "3g"}
    told = environment_of("build_snapshot", Settings(spark_options=options))
    assert json.loads(told["HOMEFEED_SPARK_OPTIONS"]) == options
