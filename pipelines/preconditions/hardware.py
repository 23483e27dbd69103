"""Whether there are the machines that a run asks to be trained on, before anything is built for it.

Where stages run on the worker, its own cores and GPUs are counted. Of machines for containers the
engine knows: it refuses a container, or its pod waits in vain. Tested in
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
    from training.environment import count_gpus, require_devices

    if request.num_nodes > 1 and settings.stage_runner != "kubernetes":
        raise ConfigurationError(
            f"nodes is {request.num_nodes}, and HOMEFEED_STAGE_RUNNER is "
            f"{settings.stage_runner!r}, which trains on one machine; expected the runner "
            f"'kubernetes' for more than one; set nodes to 1, or set HOMEFEED_STAGE_RUNNER and "
            f"HOMEFEED_STAGE_IMAGE"
        )
    is_in_store = not storage.is_local(storage.to_uri(settings.workspace_location))
    if request.num_nodes > 1 and is_in_store and not settings.work_folder:
        raise ConfigurationError(
            f"nodes is {request.num_nodes}, and the machines would share no folder: "
            f"HOMEFEED_WORK_FOLDER is empty; expected a folder where the pod template mounts a "
            f"volume to which several machines can write (ReadWriteMany); set it, or set nodes to 1"
        )
    if settings.stage_runner != "bash":
        return
    if request.accelerator == "cpu":
        require_devices(request.num_devices, request.accelerator)
    elif (found := count_gpus()) < request.num_devices:
        raise ConfigurationError(
            f"accelerator is 'gpu' with {request.num_devices} device(s), and this machine, on "
            f"which Airflow or the command line runs, has {found} GPU(s); expected one GPU "
            f"for each device; choose accelerator 'cpu' or fewer devices, or a machine with more"
        )
