"""Processes that end with the one that started them, kill -9 included, and start soon. Linux only.

For processes that run our own code and are started by our own code: the workers of a snapshot, and
the processes of a training. The kernel's order does not pass to their children: the servers of a
local Airflow are found by a mark (`pipelines.local.processes`), and a stage under Airflow is
watched by its shell (`pipelines.orchestration`), which asks first, so that a training can save.
"""

import atexit
import ctypes
import gc
import os
import signal

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_OBJECTS_BETWEEN_LOOKS = 10_000
"""Python's own is 700."""


def die_with_parent(parent_id: int | None = None) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    It is the thread, not the process: start the process from a thread that waits for it.

    Args:
        parent_id: process id of the parent, where the caller knows it. A parent that died before
            this call can no longer be noticed by the kernel, so this process then ends at once.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent_id is not None and os.getppid() != parent_id:
        os._exit(1)


def collect_seldom() -> None:
    """Have Python look for garbage seldom, and not at all when the process ends.

    Call this before torch, Lightning or MLflow is imported. Each makes hundreds of thousands of
    objects that stay, and Python would look at all of them again and again, also at the very end:
    that was 2 of the 6 CPU seconds in which a process imports Lightning and ends.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_LOOKS)
    atexit.register(gc.freeze)
