"""Processes that end with the one that started them, kill -9 included. Linux only.

Three things end what is left behind, because no one of them reaches everything:

- `die_with_parent`, here, for processes that run our own code and are started by our own code: the
  workers of a snapshot, and the processes of a training.
- `pipelines.local.processes` for the servers of a local Airflow. Airflow puts its tasks into
  sessions of their own and starts them itself, and the kernel's order to die does not pass from a
  process to its children. So these are found by a mark in their environment.
- The shell text in `pipelines.orchestration` for a stage under Airflow's BashOperator. The stage's
  parent outlives a killed worker, so the shell watches the worker instead; and it asks first, so
  that a training can save, where the kernel would only kill.
"""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


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
