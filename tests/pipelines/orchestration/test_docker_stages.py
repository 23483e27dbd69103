"""What Docker is asked for when it runs a stage; tests/production/kubernetes has it run."""

import contextlib
import os
import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException
from airflow.serialization.serialized_objects import BaseSerialization
from docker.errors import NotFound

from pipelines.orchestration.docker_stages import StageContainer, container_task
from pipelines.places import store_errors
from pipelines.settings import Resources, Settings

RUN_URI = "s3://w/runs/a b"
HOUR = timedelta(hours=1)
ON_GPUS = {"accelerator": "gpu", "devices": 4, "nodes": 1}
KEY_FILES = (
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "AZURE_FEDERATED_TOKEN_FILE"),
)
OWN = {"check_snapshot": Resources(cpus=1.5, memory_gib=0.5)}
IN_BUCKET = {"event_log": "s3://b/log", "workspace": "s3://b/work"}


@pytest.fixture(autouse=True)
def without_files_of_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in KEY_FILES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def task(stage: str, hardware: Any = None, **settings: Any) -> StageContainer:
    chosen = {"stage_runner": "docker", "stage_image": "trainer:1", **IN_BUCKET} | settings
    return container_task(stage, RUN_URI, HOUR, Settings(**chosen), hardware)


@pytest.mark.parametrize(
    ("stage", "settings", "resources"),
    [
        ("check_snapshot", {"stage_resources": OWN}, (1.5, 2**29, None)),
        ("train_challenger", {}, (8, 32 * 2**30, 2 * 2**30)),
    ],
)
def test_command_image_and_resources_are_the_settings(
    stage: str, settings: dict[str, Any], resources: tuple[Any, ...]
) -> None:
    found = task(stage, docker_network="host", **settings)
    # In place of the image's own entry point.
    assert [*found.entrypoint, *found.command] == ["homefeed", "stage", stage, RUN_URI]
    assert (found.image, found.execution_timeout) == ("trainer:1", HOUR)
    assert (found.cpus, found.mem_limit, found.shm_size) == resources
    assert (found.network_mode, task(stage).network_mode) == ("host", None)


def test_local_folders_are_mounted_where_they_are_and_written_as_the_worker(tmp_path) -> None:
    places = {"event_log": f"file://{tmp_path}/log", "workspace": str(tmp_path / "work")}
    found = task("train_challenger", work_folder=str(tmp_path / "kept"), **places)
    assert [(mount["Source"], mount["Target"]) for mount in found.mounts] == [
        (f"{tmp_path}/{name}", f"{tmp_path}/{name}") for name in ("kept", "log", "work")
    ]
    assert found.user == f"{os.getuid()}:0"
    in_bucket = task("train_challenger")
    assert (in_bucket.mounts, in_bucket.user) == ([], None)


def test_credentials_and_key_files_reach_the_container_and_nothing_that_airflow_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "swordfish", "MLFLOW_TRACKING_PASSWORD": "shibboleth"}
    files = {name: f"/run/secrets/{name}" for name in KEY_FILES}
    for name, value in (secrets | files | {"AIRFLOW__CORE__FERNET_KEY": "melon"}).items():
        monkeypatch.setenv(name, value)
    found = task("train_challenger", ON_GPUS)
    assert (secrets | files).items() <= found._private_environment.items()
    assert "AIRFLOW__CORE__FERNET_KEY" not in found._private_environment
    shown = [str(getattr(found, name)) for name in found.template_fields]
    shown += [str(BaseSerialization.serialize(found)), repr(found)]
    assert not [text for text in shown for value in secrets.values() if value in text]
    mounts = {(each["Source"], each["Target"], each["ReadOnly"]) for each in found.mounts}
    assert mounts == {(path, path, True) for path in files.values()}
    assert found.user == f"{os.getuid()}:0"  # who may read them


def test_every_variable_that_a_message_asks_for_reaches_the_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = set(re.findall(r"[A-Z]+_[A-Z_]+", store_errors._KEYS))
    assert {"GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_SECRET"} <= asked
    for name in asked:
        monkeypatch.setenv(name, "/a/value")
    assert asked <= task("build_snapshot")._private_environment.keys()


class Engine:
    """Stands for Docker's client: what it was asked to remove, and one container of before."""

    def __init__(self, code: int) -> None:
        self.code, self.asked, self.removed = code, {}, []

    def containers(self, all: bool, filters: dict[str, Any]) -> list[dict[str, str]]:
        self.asked = filters
        return [{"Id": "earlier"}]

    def remove_container(self, container: str, force: bool, v: bool) -> None:
        assert force and v  # with its scratch volume
        self.removed.append(container)
        if container == "earlier":
            raise NotFound("the engine has removed it meanwhile")

    def __getattr__(self, name: str) -> Any:
        """Answer whatever else the operator asks for."""
        told = {"create_container": {"Id": "own"}, "wait": {"StatusCode": self.code}}
        return lambda *_, **__: told.get(name, [])


@pytest.mark.parametrize(
    ("stage", "hardware", "code", "gpus"),
    [
        ("train_challenger", ON_GPUS, 0, [(4, [["gpu"]])]),
        ("train_anchor", ON_GPUS | {"accelerator": "cpu"}, 75, []),
        ("build_snapshot", ON_GPUS, 75, []),
        ("compare_with_champion", ON_GPUS, 75, [(1, [["gpu"]])]),
    ],
)
def test_gpus_are_asked_for_an_earlier_container_is_ended_and_none_is_left(
    stage: str, hardware: Any, code: int, gpus: list[Any]
) -> None:
    made, engine = task(stage, hardware), Engine(code)
    made.__dict__["hook"] = SimpleNamespace(api_client=engine, client_created=True)
    with contextlib.nullcontext() if code == 0 else pytest.raises(AirflowException, match="75"):
        made.execute({})
    assert engine.removed == ["earlier", "own"]
    assert engine.asked == {"label": [f"homefeed.run={RUN_URI}", f"homefeed.stage={stage}"]}
    times = gpus[0][0] if gpus else 1
    assert (made.cpus, made.mem_limit) == tuple(times * each for each in made.own_resources)
    asked = made.device_requests or []
    assert [(each["Count"], each["Capabilities"]) for each in asked] == gpus
    made.on_kill()
    assert engine.removed == ["earlier", "own", "own"]
