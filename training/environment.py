"""The environment of processes that run a model: threads, memory, and how they meet.

For whoever starts such a process: the launcher of a training and the serving check. Not for what
the processes do.
"""

import os
from collections.abc import MutableMapping
from typing import Literal

from pipelines.contracts.errors import ConfigurationError

NOBODY_CAME = 69
"""Exit code of `training.launch.agent` where not all machines of a training met."""
PROCESSES_PER_CORE = 4
"""More training processes than this for each usable core only take memory from each other."""
_SPINS = 1_000
"""How often a waiting thread looks before it sleeps, some 30 microseconds (docs/decisions.md)."""


def wait_briefly(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP's threads sleep soon where they wait, unless somebody has said how they wait.

    By itself GNU's OpenMP spins for milliseconds. On a machine with other work, a spinning thread
    takes the core of the very thread that it waits for.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(environment):
        environment["GOMP_SPINCOUNT"] = str(_SPINS)


def threads_per_process(num_processes: int) -> int:
    """Return the threads each of some processes may use, so that they do not fight for cores.

    An OMP_NUM_THREADS that is set already is an upper bound.
    """
    share = max(1, len(os.sched_getaffinity(0)) // num_processes)
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(wanted)) if wanted.isdigit() and int(wanted) > 0 else share


def model_environment(num_processes: int, *, is_one_machine: bool = True) -> dict[str, str]:
    """Return the environment of processes that train or serve a model.

    Args:
        num_processes: how many share this machine.
        is_one_machine: False where processes of other machines take part.
    """
    environment = dict(os.environ)
    environment |= {
        "OMP_NUM_THREADS": str(threads_per_process(num_processes)),
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    wait_briefly(environment)
    # Activations are tens of megabytes and the same size at every step. glibc would map and unmap
    # each of them, and the page faults would cost about a third of the time.
    environment.setdefault("MALLOC_MMAP_THRESHOLD_", str(4 * 2**30))
    environment.setdefault("MALLOC_TRIM_THRESHOLD_", str(16 * 2**30))
    # One machine: meet on the loopback device, whatever the host's name resolves to. Several meet
    # on the device that has the address of the host's name, unless the variable is set.
    if is_one_machine:
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
        environment.setdefault("NCCL_SOCKET_IFNAME", "lo")
    return environment


def require_devices(num_devices: int, accelerator: Literal["cpu", "gpu"]) -> None:
    """Refuse more training processes than this machine has devices for.

    Raises:
        ConfigurationError: there are too few GPUs, or too few cores.
    """
    if accelerator == "cpu":
        num_cores = len(os.sched_getaffinity(0))
        if num_devices > (most := num_cores * PROCESSES_PER_CORE):
            raise ConfigurationError(
                f"{num_devices} training processes are asked for (devices) on {num_cores} usable "
                f"CPU cores; expected at most {most}, which is {PROCESSES_PER_CORE} for each core; "
                f"lower the number of devices, or train on another machine"
            )
        return
    import torch  # It knows best, for it must have been built for them.

    if (found := torch.cuda.device_count()) < num_devices:
        raise ConfigurationError(
            f"accelerator is 'gpu' with {num_devices} device(s), and this machine, or its torch, "
            f"has {found} GPU(s); expected one GPU for each device; choose accelerator 'cpu' or "
            f"fewer devices, or a machine with more"
        )
