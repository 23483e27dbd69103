"""A stage in a container that Docker, or podman by Docker's interface, starts on the worker's host.

Imported only where the runner is `docker`: the provider is no part of every deployment. Tested in
tests/pipelines/orchestration/test_docker_stages.py and by real containers in
tests/production/kubernetes/test_docker_stage.py.
"""

import contextlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.docker.operators.docker import DockerOperator
from docker.errors import NotFound
from docker.types import DeviceRequest, Mount

from pipelines.contracts.run_layout import manifest_uri
from pipelines.orchestration.containers import (
    ONE_PROCESS,
    TRAINING_STAGES,
    Hardware,
    command_line,
    environment_of,
    places_of,
    spark_master_of,
)
from pipelines.settings import Settings

_GIB = 2**30
_SECRETS = ("AWS_", "AZURE_", "GOOGLE_", "MLFLOW_", "OTEL_")
"""How the variables begin by which a stage finds its object store, MLflow and collector."""
_KEY_FILES = (
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "AZURE_FEDERATED_TOKEN_FILE"),
)
"""Variables that name a file which the container must see too."""
_MLFLOW_LOGIN = Path(".mlflow", "credentials")
"""Where MLflow's client looks for a name and a password, below a user's home."""
_HOME_THERE = Path("/opt/airflow")
"""Home of the user that the trainer's image is made for."""
_RUN, _STAGE = "homefeed.run", "homefeed.stage"
"""Labels by which an attempt finds the container of the one before."""


class StageContainer(DockerOperator):
    """Runs one stage in a container, which gets GPUs if the run trains on them.

    A worker that is killed leaves its container running. The next attempt ends that container
    first: both would want the same stage, and what it has trained is kept.
    """

    template_fields = (*DockerOperator.template_fields, "hardware")

    def __init__(self, *, stage: str, hardware: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.stage = stage
        self.hardware = hardware

    def execute(self, context: Any) -> Any:
        """Run the stage to its end; return its manifest's URI.

        It is not taken from the output, in which the engine puts the lines of the log and of the
        result into an order of its own.
        """
        assert self.command  # of which the run's URI is the last word
        run_uri = str(self.command[-1])
        self.labels = {_RUN: run_uri, _STAGE: self.stage}
        self.device_requests = device_requests(self.stage, self.hardware or ONE_PROCESS)
        self._end_earlier()
        try:
            super().execute(context)
        finally:
            self._remove_own()
        return manifest_uri(run_uri, self.stage)

    def on_kill(self) -> None:
        """Stop the container, as the task is stopped, and remove it."""
        super().on_kill()
        self._remove_own()

    def _remove_own(self) -> None:
        """Remove the container with its scratch volume, which the operator itself would leave."""
        own, self.container = self.container, None  # type: ignore[assignment]
        if own is not None:
            with contextlib.suppress(NotFound):
                self.cli.remove_container(own["Id"], force=True, v=True)

    def _end_earlier(self) -> None:
        assert isinstance(self.labels, dict)
        labels = [f"{name}={value}" for name, value in self.labels.items()]
        for found in self.cli.containers(all=True, filters={"label": labels}):
            self.log.info("ending container %s of an earlier attempt", found["Id"][:12])
            with contextlib.suppress(NotFound):
                self.cli.remove_container(found["Id"], force=True, v=True)


def device_requests(stage: str, hardware: Hardware) -> list[DeviceRequest]:
    """Return the GPUs that a stage's container asks for; only trainings use any."""
    if stage not in TRAINING_STAGES or hardware["accelerator"] != "gpu":
        return []
    return [DeviceRequest(count=hardware["devices"], capabilities=[["gpu"]])]


def container_task(
    stage: str, run_uri: Any, timeout: timedelta, settings: Settings, hardware: Any
) -> StageContainer:
    """Return the task of one heavy stage; see `pipelines.orchestration.operators`."""
    program, *arguments = command_line(stage, run_uri, settings)
    mounts = [*_folders(settings), *_files_with_keys()]
    resources = settings.resources_of(stage)  # type: ignore[arg-type]
    return StageContainer(
        task_id=stage,
        execution_timeout=timeout,
        stage=stage,
        hardware=hardware,
        image=settings.image_of(stage),
        # In place of the image's own entry point, which may be the same program.
        entrypoint=[program],
        command=arguments,
        environment=spark_master_of(settings),
        # Private, because it holds credentials: neither Airflow's pages nor its logs show it.
        private_environment={**credentials(), **environment_of(stage, settings)},
        cpus=resources.cpus,
        mem_limit=int(resources.memory_gib * _GIB),
        shm_size=int(settings.shared_memory_gib * _GIB) if stage in TRAINING_STAGES else None,
        mounts=mounts,
        # What lies on this host belongs to the worker's user.
        user=f"{os.getuid()}:0" if mounts else None,
        network_mode=settings.docker_network or None,
        mount_tmp_dir=False,
        auto_remove="never",  # `StageContainer` does
    )


def credentials() -> dict[str, str]:
    """Return the variables of the worker by which a stage is let in."""
    found = {name: value for name, value in os.environ.items() if name.startswith(_SECRETS)}
    # The user of the worker has no home in the image, and MLflow looks for its login there.
    return found | ({"HOME": str(_HOME_THERE)} if _mlflow_login() else {})


def _mlflow_login() -> Path | None:
    login = Path.home() / _MLFLOW_LOGIN
    return login if login.is_file() else None


def _folders(settings: Settings) -> list[Mount]:
    """Return the folders of the host that a stage needs, each at its own path."""
    places = {
        place.removeprefix("file://")
        for place in places_of(settings).values()
        if "://" not in place or place.startswith("file://")
    }
    return [Mount(target=path, source=path, type="bind") for path in sorted(places)]


def _files_with_keys() -> list[Mount]:
    """Return the files by which a stage is let in: each at its own path, MLflow's login at home."""
    files = {path: path for name in _KEY_FILES if (path := os.environ.get(name, ""))}
    if (login := _mlflow_login()) is not None:
        files[str(_HOME_THERE / _MLFLOW_LOGIN)] = str(login)
    return [
        Mount(target=there, source=here, type="bind", read_only=True)
        for there, here in sorted(files.items())
    ]
