"""Run tasks over threads, in order, with their progress, in the memory that there is.

A snapshot is built by threads: they cost nothing to start, they share the pins, and numpy and Arrow
work outside the interpreter's lock on columns as long as these. On several machines, another engine
takes this module's place. Tested in tests/pipelines/snapshot/test_pool.py and test_publishing.py
(killed builds).
"""

import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

from pipelines.contracts.progress import tracked

Task = TypeVar("Task")
Result = TypeVar("Result")

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
    """Return how much memory a builder may take: half of its stage's, or of the machine's."""
    import psutil

    from pipelines.metrics.usage import memory_limit_bytes
    from pipelines.settings import Settings

    told = Settings().stage_resources.get("build_snapshot")
    limit = int(told.memory_gib * 2**30) if told else memory_limit_bytes()
    # What the process takes before it builds anything, mostly its code, counts too.
    return max(0, limit // 2 - int(psutil.Process().memory_info().rss))


def workers_that_fit(num_workers: int, free_bytes: int, task_bytes: int) -> int:
    """Return as many workers as have room for a task each: at least one, at most as given.

    Args:
        num_workers: as many as are wanted.
        free_bytes: memory for all of them.
        task_bytes: memory that the largest task takes.
    """
    return max(1, min(num_workers, free_bytes // max(1, task_bytes)))


def run_in_threads(
    function: Callable[[Task], Result], tasks: Sequence[Task], num_workers: int, what: str = ""
) -> Iterator[Result]:
    """Yield each task's result in the tasks' order; the first error ends it.

    As many tasks are begun ahead of the reader as keep all threads busy: results of all would pile
    up in memory where whoever reads them is slower.

    Args:
        function: what may run in several threads at once.
        tasks: values that the threads share.
        num_workers: threads; with one, everything runs in this one.
        what: plural noun for the progress; none is shown where it is empty.
    """

    def begun_ahead(executor: ThreadPoolExecutor) -> Iterator[Result]:
        begun: deque[Future[Result]] = deque()
        for task in tasks:
            if len(begun) == 2 * num_workers:
                yield begun.popleft().result()
            begun.append(executor.submit(function, task))
        while begun:
            yield begun.popleft().result()

    with contextlib.ExitStack() as at_the_end:
        results: Iterable[Result] = map(function, tasks)
        if num_workers > 1 and len(tasks) > 1:
            executor = ThreadPoolExecutor(num_workers, thread_name_prefix="snapshot")
            at_the_end.callback(executor.shutdown, wait=True, cancel_futures=True)
            results = begun_ahead(executor)
        yield from tracked(results, what, len(tasks)) if what else results
