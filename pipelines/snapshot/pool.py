"""Run tasks over threads or processes, in order, with progress in the log.

A snapshot is built by threads: they cost nothing to start, they share the pins, and numpy and Arrow
work outside the interpreter's lock on columns as long as these. Processes are for tasks that run
mostly in the interpreter, and whose memory must go back when they end. On several machines, another
engine takes this module's place. Tested in tests/pipelines/snapshot/test_pool.py,
test_publishing.py (killed builds) and test_purity.py.
"""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pipelines.contracts.errors import ProcessKilledError
from pipelines.contracts.processes import die_with_parent

log = logging.getLogger(__name__)
Task = TypeVar("Task")
Result = TypeVar("Result")

BYTES_WORTH_A_POOL = 32 << 20
"""For an event log smaller than this, a pool of processes costs more to start than it saves."""

_NUM_PROGRESS_LINES = 8


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_in_threads(
    function: Callable[[Task], Result], tasks: Sequence[Task], num_workers: int, what: str
) -> Iterator[Result]:
    """Yield each task's result in the tasks' order; the first error ends it.

    Args:
        function: what may run in several threads at once.
        tasks: values that the threads share.
        num_workers: threads; with one, everything runs in this one.
        what: plural noun for the progress lines.
    """
    if num_workers == 1 or len(tasks) < 2:
        yield from _told(map(function, tasks), len(tasks), what)
        return
    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="snapshot")
    try:
        yield from _told(executor.map(function, tasks), len(tasks), what)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


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
    yield from _told(_results(function, tasks, num_workers), len(tasks), what)


def _told(results: Iterable[Result], num_tasks: int, what: str) -> Iterator[Result]:
    """Yield results, and log now and then how many there are."""
    every = max(1, num_tasks // _NUM_PROGRESS_LINES)
    for number, result in enumerate(results, start=1):
        if number % every == 0 or number == num_tasks:
            log.info("%d of %d %s", number, num_tasks, what)
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
