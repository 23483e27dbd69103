"""A stage in a real container, which Airflow's DockerOperator starts by a real engine's socket.

The engine is the one at DOCKER_HOST, or podman, whose service is started here. The image is
HOMEFEED_TEST_IMAGE, or what `make images` has built. The tests are skipped where either is missing,
or the image was built from other code than stands here, which no stage may be run from.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk import RetryAction
from docker.errors import ContainerError, DockerException, ImageNotFound, NotFound

import docker
from pipelines.contracts import code_identity
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.orchestration import containers
from pipelines.orchestration.docker_stages import StageContainer
from pipelines.orchestration.operators import stage_operator
from pipelines.orchestration.retries import StageRetryPolicy
from pipelines.settings import Settings
from pipelines.stages.runner import read_artifact
from support.runs import make_run, save_run
from support.worlds import write_planted_world

pytestmark = pytest.mark.slow
IMAGE = os.environ.get("HOMEFEED_TEST_IMAGE", "localhost/homefeed-trainer:latest")
START_WAIT_S = 60


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.DockerClient]:
    """A client of the engine, whose address is in DOCKER_HOST meanwhile."""
    if "DOCKER_HOST" in os.environ:
        yield docker.from_env()
        return
    if shutil.which("podman") is None:
        pytest.skip("neither DOCKER_HOST nor podman: no engine that runs a container")
    socket = f"unix://{tmp_path_factory.mktemp('engine')}/docker.sock"
    runtime = ["--runtime", "runc"] if shutil.which("runc") else []
    service = subprocess.Popen(
        ["podman", *runtime, "system", "service", "--time=0", socket],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"},
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", socket)
            yield _client(socket)
    finally:
        service.terminate()
        service.wait()


def _client(socket: str) -> docker.DockerClient:
    deadline = time.monotonic() + START_WAIT_S
    while True:
        try:
            client = docker.DockerClient(base_url=socket, version="auto", timeout=300)
            client.ping()
            return client
        except DockerException:
            assert time.monotonic() < deadline, f"{socket} does not answer"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def version(engine: docker.DockerClient) -> str:
    """The version of the code in the image."""
    try:
        image = engine.images.get(IMAGE)
    except ImageNotFound:
        pytest.skip(f"no image {IMAGE}: `make images` builds it")
    variables = dict(each.split("=", 1) for each in image.attrs["Config"]["Env"])
    return variables["HOMEFEED_IMAGE_VERSION"]


@pytest.fixture(scope="module")
def same_version(engine: docker.DockerClient, version: str) -> str:
    """The version of the code in the image, which is the code that stands here."""
    ask = f"from {code_identity.__name__} import project_digest as ask; print(ask())"
    try:
        told = engine.containers.run(
            IMAGE, entrypoint=["python", "-c", ask], network_mode="host", remove=True
        )
    except ContainerError:  # code from before it could tell
        told = b"unknown"
    if told.decode().strip() != code_identity.project_digest():
        pytest.skip(f"{IMAGE} holds other code (version {version}): `make images` builds it anew")
    return version


@pytest.fixture
def run(tmp_path: Path) -> ResolvedRun:
    write_planted_world(tmp_path / "event_log")
    return save_run(make_run(tmp_path))


def execute(run: ResolvedRun, home: Path) -> None:
    """Run `build_snapshot` as Airflow does."""
    stage = "build_snapshot"
    settings = Settings(
        home=str(home),
        stage_runner="docker",
        stage_image=IMAGE,
        docker_network="host",
        stage_resources={stage: {"cpus": 1, "memory_gib": 3}},
    )
    made = stage_operator(stage, run.run_uri, timedelta(hours=1), settings)
    assert isinstance(made, StageContainer)
    made.execute({"ti": SimpleNamespace()})


def containers_of(engine: docker.DockerClient, run: ResolvedRun) -> list[str]:
    label = f"homefeed.run={run.run_uri}"
    return [each.id for each in engine.containers.list(all=True, filters={"label": label})]


def test_a_stage_is_run_to_its_end_and_nothing_of_it_is_left(
    engine: docker.DockerClient,
    same_version: str,
    run: ResolvedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOMEFEED_IMAGE_VERSION", same_version)
    volumes = {each.id for each in engine.volumes.list()}
    labels = {"homefeed.run": run.run_uri, "homefeed.stage": "build_snapshot"}
    earlier = engine.containers.run(
        IMAGE,
        entrypoint=["sleep"],
        command=["600"],
        labels=labels,
        network_mode="host",
        detach=True,
    )
    execute(run, tmp_path)
    snapshot = read_artifact(run.run_uri, "build_snapshot", Snapshot)
    assert snapshot.num_examples > 0
    for uri in snapshot.places():
        path = Path(uri.removeprefix("file://"))
        assert path.stat().st_uid == os.getuid()
    with pytest.raises(NotFound):
        engine.containers.get(earlier.id)  # of an attempt whose worker was killed
    assert containers_of(engine, run) == []
    assert {each.id for each in engine.volumes.list()} <= volumes


def test_an_image_of_other_code_than_the_dag_s_is_refused_and_not_tried_again(
    engine: docker.DockerClient,
    version: str,
    run: ResolvedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOMEFEED_IMAGE_VERSION", "another-version")
    monkeypatch.setattr(containers, "project_digest", lambda: "0" * 64)
    with pytest.raises(Exception, match="'StatusCode': 78") as caught:
        execute(run, tmp_path)
    told = "\n".join(caught.value.logs)
    assert repr(version) in told and "'another-version'" in told
    decided = StageRetryPolicy().evaluate(caught.value, try_number=1, max_tries=3)
    assert decided.action is RetryAction.FAIL
    assert containers_of(engine, run) == []
