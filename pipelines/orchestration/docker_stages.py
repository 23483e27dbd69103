"""A stage in a container that Docker, or podman by Docker's interface, starts on the worker's host.

Imported only where the runner is `docker`: the provider is no part of every deployment. Tested also
with real containers, in tests/production/kubernetes/test_docker_stage.py.
"""

import contextlib
import os
from datetime import timedelta
from typing import Any

from airflow.providers.docker.operators.docker import DockerOperator
from docker.errors import NotFound
from docker.types import DeviceRequest, Mount

from pipelines.contracts.stage_table import SIDES, devices_of
from pipelines.orchestration.containers import (
    ONE_PROCESS,
    command_line,
    environment_of,
    places_of,
)
from pipelines.settings import Settings

_GIB = 2**30
_SHARED_MEMORY = 2 * _GIB
"""Of a training, whose processes hand batches over by it; it counts as the container's memory."""
_SECRETS = ("AWS_", "AZURE_", "GOOGLE_", "MLFLOW_", "OTEL_")
"""How the variables begin by which a stage finds its object store, MLflow and collector."""
_KEY_FILES = (
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "AZURE_FEDERATED_TOKEN_FILE"),
)
"""Variables that name a file which the container must see too."""


class StageContainer(DockerOperator):
    """Runs one stage in a container, which gets GPUs if the run works on them.

    A worker that is killed leaves its container running. The next attempt ends that container
    first: both would want the same stage, and what it has trained is kept. Containers are removed
    with their scratch volume, which Airflow's operator would leave.
    """

    template_fields = (*DockerOperator.template_fields, "hardware")

    def __init__(self, *, hardware: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.hardware, self.own_resources = hardware, (options["cpus"], options["mem_limit"])

    def execute(self, context: Any) -> None:
        """Run the stage to its end."""
        assert self.command  # of which the run's URI is the last word
        self.labels = {"homefeed.run": str(self.command[-1]), "homefeed.stage": self.task_id}
        hardware = self.hardware or ONE_PROCESS
        num_gpus = devices_of(self.task_id, hardware["devices"])
        if num_gpus and hardware["accelerator"] == "gpu":
            self.device_requests = [DeviceRequest(count=num_gpus, capabilities=[["gpu"]])]
            self.cpus, self.mem_limit = (num_gpus * each for each in self.own_resources)
        found = [f"{name}={value}" for name, value in self.labels.items()]
        for earlier in self.cli.containers(all=True, filters={"label": found}):
            self._remove(earlier)
        try:
            super().execute(context)
        finally:
            self._remove(self.container)

    def on_kill(self) -> None:
        """Stop the container, as the task is stopped, and remove it."""
        super().on_kill()
        self._remove(self.container)

    def _remove(self, container: dict[str, Any] | None) -> None:
        if container is not None:
            with contextlib.suppress(NotFound):
                self.cli.remove_container(container["Id"], force=True, v=True)


def container_task(
    stage: str, run_uri: Any, timeout: timedelta, settings: Settings, hardware: Any
) -> StageContainer:
    """Return the task of one heavy stage; see `pipelines.orchestration.operators`."""
    program, arguments = command_line(stage, run_uri, settings)
    private = {name: value for name, value in os.environ.items() if name.startswith(_SECRETS)}
    places = {place.removeprefix("file://") for place in places_of(settings).values()}
    folders = sorted(place for place in places if "://" not in place)
    keys = sorted({os.environ.get(name, "") for name in _KEY_FILES} - {""})
    mounts = [Mount(target=path, source=path, type="bind") for path in folders]
    mounts += [Mount(target=path, source=path, type="bind", read_only=True) for path in keys]
    resources = settings.resources_of(stage)
    return StageContainer(
        task_id=stage,
        execution_timeout=timeout,
        hardware=hardware,
        image=settings.image_of(stage),
        # In place of the image's own entry point, which may be the same program.
        entrypoint=[program],
        command=arguments,
        # Private, because it holds credentials: neither Airflow's pages nor its logs show it.
        private_environment=private | environment_of(stage, settings),
        cpus=resources.cpus,
        mem_limit=int(resources.memory_gib * _GIB),
        shm_size=_SHARED_MEMORY if stage in SIDES else None,
        mounts=mounts,
        # What lies on this host belongs to the worker's user.
        user=f"{os.getuid()}:0" if mounts else None,
        network_mode=settings.docker_network or None,
        mount_tmp_dir=False,
        do_xcom_push=False,
        auto_remove="never",  # `StageContainer` does
    )
