"""Writers of an event log that are killed (SIGKILL) before one of their changes to the disk."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

Work = Callable[[], None]


def kill_before_change(number: int, work: Work) -> bool:
    """Do some work in a child process; return whether the child was killed.

    Args:
        number: the renames, deletions and changes to a store that the child may make, counted from
            0; it kills itself before that one.
        work: what the child does.
    """
    child = multiprocessing.get_context("fork").Process(target=_perform, args=(number, work))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode != 0


def _perform(number: int, work: Work) -> None:
    left = [number]

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def kill_or_act(*args: Any, **options: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return act(*args, **options)

        return kill_or_act

    # The child is a process of its own, so that nobody else sees these.
    os.rename, os.replace = counted(os.rename), counted(os.replace)
    from pipelines import deletion, storage

    for module, name in (
        (deletion, "remove"),
        (storage, "write_bytes"),
        (storage, "publish_folder"),
    ):
        setattr(module, name, counted(getattr(module, name)))
    work()
