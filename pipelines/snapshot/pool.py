"""Run a snapshot's tasks over processes, in order, with progress in the log.

A task must fit a worker's memory. On several machines, another engine takes this module's place.
Tested in tests/pipelines/snapshot/test_pool.py, test_publishing.py (killed builds) and
test_purity.py.
"""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pipelines.contracts.errors import ProcessKilledError
from pipelines.contracts.processes import die_with_parent
from pipelines.snapshot.spill import SpillTask

log = logging.getLogger(__name__)
Task = TypeVar("Task")
Result = TypeVar("Result")

BYTES_WORTH_A_POOL = 32 << 20
"""For an event log smaller than this, a pool of processes costs more to start than it saves."""

_NUM_PROGRESS_LINES = 8


def choose_num_workers(tasks: Sequence[SpillTask]) -> int:
    """Return the number of usable cores, or one where the event log is small."""
    num_bytes = sum(file.num_bytes for task in tasks for file in task.files)
    return 1 if num_bytes < BYTES_WORTH_A_POOL else len(os.sched_getaffinity(0))


def run_all(
    function: Callable[[Task], Result], tasks: Sequence[Task], num_workers: int, what: str
) -> Iterator[Result]:
    """Yield each task's result in the tasks' order; the first error ends it.

    Raises:
        ProcessKilledError: a process was killed; nothing is published, and a retry may succeed.

    Args:
        function: a module-level function.
        tasks: picklable values.
        num_workers: processes; with one, everything runs in this process.
        what: plural noun for the progress lines.
    """
    every = max(1, len(tasks) // _NUM_PROGRESS_LINES)
    for number, result in enumerate(_results(function, tasks, num_workers), start=1):
        if number % every == 0 or number == len(tasks):
            log.info("%d of %d %s", number, len(tasks), what)
        yield result


def _results(
    function: Callable[[Task], Result], tasks: Sequence[Task], num_workers: int
) -> Iterator[Result]:
    if num_workers == 1 or len(tasks) < 2:
        yield from map(function, tasks)
        return
    # The processes are spawned, because a fork would copy Arrow's thread pools in whatever state
    # they are.
    executor = ProcessPoolExecutor(
        max_workers=min(num_workers, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        # The pool starts its workers in this thread, which waits for them below.
        initializer=die_with_parent,
        initargs=(os.getpid(),),
    )
    try:
        yield from executor.map(function, tasks)
    except BrokenProcessPool as error:
        raise ProcessKilledError(
            f"one of {min(num_workers, len(tasks))} worker processes was killed ({error}), most "
            f"often because memory ran out; expected all to live; free memory, or give the "
            f"process fewer cores (`taskset -c 0`), which makes fewer workers, then retry"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
