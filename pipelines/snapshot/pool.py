"""Run tasks over threads or processes, in order, with progress in the log.

A snapshot is built by threads: they cost nothing to start, they share the pins, and numpy and Arrow
work outside the interpreter's lock on columns as long as these. Processes are for tasks that run
mostly in the interpreter, and whose memory must go back when they end. On several machines, another
engine takes this module's place. Tested in tests/pipelines/snapshot/test_pool.py,
test_publishing.py (killed builds) and test_purity.py.
"""

import contextlib
import ctypes
import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import pyarrow as pa

from pipelines.contracts.errors import ProcessKilledError
from pipelines.contracts.processes import die_with_parent

log = logging.getLogger(__name__)
Task = TypeVar("Task")
Result = TypeVar("Result")

BYTES_WORTH_A_POOL = 32 << 20
"""For an event log smaller than this, a pool of processes costs more to start than it saves."""

_NUM_PROGRESS_LINES = 8
# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_USUAL_BYTES = 128 << 10  # of the first two
_USUAL_POOL = pa.default_memory_pool()


@contextlib.contextmanager
def keeping_freed_memory(num_bytes: int) -> Iterator[None]:
    """Have the allocator keep what is freed, for arrays that are made soon, and give it back after.

    The kernel clears each page that it hands out, which took a fifth of a build's processor time.
    So numpy and Arrow take from one heap, and what the one has freed the other takes next: Arrow's
    own allocator gives pages back after a moment. Threads that had a heap of their own before keep
    it, and a heap grows and shrinks by 64 MiB: where it was at its end, it shrank with each array.

    Args:
        num_bytes: as much is kept at most.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # another C library than GNU's
        yield
        return
    libc.mallopt(_M_ARENA_MAX, 1)
    libc.mallopt(_M_TOP_PAD, max(_USUAL_BYTES, min(num_bytes, 64 << 20)))
    libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(_M_TRIM_THRESHOLD, max(_USUAL_BYTES, min(num_bytes, 1 << 30)))
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(_USUAL_POOL)
        libc.mallopt(_M_TRIM_THRESHOLD, _USUAL_BYTES)
        libc.mallopt(_M_TOP_PAD, _USUAL_BYTES)
        libc.mallopt(_M_ARENA_MAX, 8 * usable_cores())
        libc.malloc_trim(0)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_budget_bytes() -> int:
    """Return how much memory a builder may take: as the settings say, or half of what there is."""
    from pipelines.metrics.usage import memory_in_use_bytes, memory_limit_bytes
    from pipelines.settings import Settings

    told_gib = Settings().snapshot_memory_gib
    budget = int(told_gib * 2**30) if told_gib else memory_limit_bytes() // 2
    # What the process takes before it builds anything, mostly its code, counts too.
    return max(0, budget - memory_in_use_bytes())


def workers_that_fit(num_workers: int, free_bytes: int, task_bytes: int, what: str) -> int:
    """Return as many workers as have room for a task each: at least one, at most as given.

    Args:
        num_workers: as many as are wanted.
        free_bytes: memory for all of them.
        task_bytes: memory that the largest task takes.
        what: says what a task is and what makes it smaller, for the log.
    """
    fitting = max(1, min(num_workers, free_bytes // max(1, task_bytes)))
    if task_bytes > free_bytes:
        log.warning(
            "%s takes about %d MiB, and %d MiB of HOMEFEED_SNAPSHOT_MEMORY_GIB are left",
            what,
            task_bytes >> 20,
            free_bytes >> 20,
        )
    elif fitting < num_workers:
        log.info("%d workers instead of %d, as memory allows", fitting, num_workers)
    return fitting


def run_in_threads(
    function: Callable[[Task], Result], tasks: Sequence[Task], num_workers: int, what: str = ""
) -> Iterator[Result]:
    """Yield each task's result in the tasks' order; the first error ends it.

    Args:
        function: what may run in several threads at once.
        tasks: values that the threads share.
        num_workers: threads; with one, everything runs in this one.
        what: plural noun for the progress lines; none where it is empty.
    """
    if num_workers == 1 or len(tasks) < 2:
        yield from _told(map(function, tasks), len(tasks), what)
        return
    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="snapshot")
    try:
        yield from _told(_a_few_ahead(executor, function, tasks, num_workers), len(tasks), what)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _a_few_ahead(
    executor: ThreadPoolExecutor,
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    num_workers: int,
) -> Iterator[Result]:
    """Yield results in order; as many tasks are begun ahead of the reader as keep all busy.

    Results of all tasks would pile up in memory where whoever reads them is slower.
    """
    begun: deque[Future[Result]] = deque()
    for task in tasks:
        if len(begun) == 2 * num_workers:
            yield begun.popleft().result()
        begun.append(executor.submit(function, task))
    while begun:
        yield begun.popleft().result()


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
    """Yield results, and log now and then how many there are, where it is said of what."""
    every = max(1, num_tasks // _NUM_PROGRESS_LINES)
    for number, result in enumerate(results, start=1):
        if what and (number % every == 0 or number == num_tasks):
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
