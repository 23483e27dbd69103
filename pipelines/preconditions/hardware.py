"""Whether there are the machines that a run asks to be trained on, before anything is built for it.

A worker of Airflow need not be the machine that trains. Where stages run on the worker, its own
cores and GPUs are counted. Where they run in containers, the settings say what there is; the
training counts again, in its own container. Tested in
tests/pipelines/preconditions/test_hardware.py.
"""

from pipelines import storage
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings


def require_hardware(request: RunRequest, settings: Settings) -> None:
    """Refuse what the trainer would refuse hours later, or could not do at all.

    Raises:
        ConfigurationError: too few GPUs or cores; several machines where the stage runner cannot
            start them, or where they would share no folder.
    """
    from training.environment import require_devices

    _require_nodes(request, settings)
    if request.accelerator == "gpu":
        _require_gpus(request, settings)
    elif settings.stage_runner == "bash":
        require_devices(request.num_devices, request.accelerator)


def _require_nodes(request: RunRequest, settings: Settings) -> None:
    if request.num_nodes == 1:
        return
    if settings.stage_runner != "kubernetes":
        raise ConfigurationError(
            f"nodes is {request.num_nodes}, and HOMEFEED_STAGE_RUNNER is "
            f"{settings.stage_runner!r}, which trains on one machine; expected the runner "
            f"'kubernetes' for more than one; set nodes to 1, or set HOMEFEED_STAGE_RUNNER and "
            f"HOMEFEED_STAGE_IMAGE"
        )
    is_in_store = not storage.is_local(storage.to_uri(settings.workspace_location))
    if is_in_store and not settings.work_folder:
        raise ConfigurationError(
            f"nodes is {request.num_nodes}, and the machines would share no folder: "
            f"HOMEFEED_WORK_FOLDER is empty; expected a folder where the pod template mounts a "
            f"volume to which several machines can write (ReadWriteMany); set it, or set nodes to 1"
        )


def _require_gpus(request: RunRequest, settings: Settings) -> None:
    from training.environment import count_gpus

    found, where = settings.gpus_per_node, "HOMEFEED_GPUS_PER_NODE says"
    if found is None and settings.stage_runner == "bash":
        found, where = count_gpus(), "this machine, on which Airflow or the command line runs, has"
    elif found is None:
        found, where = 0, "HOMEFEED_GPUS_PER_NODE is not set, which says"
    if found < request.num_devices:
        raise ConfigurationError(
            f"accelerator is 'gpu' with {request.num_devices} device(s), and {where} {found} "
            f"GPU(s); expected at least one GPU for each device; choose accelerator 'cpu' or fewer "
            f"devices, or set HOMEFEED_GPUS_PER_NODE to the GPUs of each machine that trains"
        )
