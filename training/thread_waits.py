"""How threads wait for each other: they spin on a machine of their own, and sleep on a shared one.

A step of a training is thousands of short parallel pieces, after each of which threads wait for
the last. libgomp lets them spin for milliseconds: that is fast where nobody else wants the cores,
and an order of magnitude too slow beside busy processes, where a thread that spins keeps a core
from the thread that it waits for. Threads that sleep at once lose nothing beside busy processes,
and two fifths on an idle machine, so no spin count is right for both. Therefore the load is
watched: the kernel counts how long the threads of this process were ready and had no core.

libgomp reads its spin count once. But it spins for 100 looks only while it has more threads than
there are cores (`gomp_throttled_spin_count_var` in its config/linux/wait.h), and it counts all of a
process: one more team of threads, which does nothing, makes all of them sleep early, until it ends.
How threads wait changes nothing in what they compute.

Not for a wait that a person chose by OMP_WAIT_POLICY or GOMP_SPINCOUNT. `train_under_load` and
`train_idle` in docs/benchmarks.md say what comes of it. Tested in
tests/training/test_thread_waits.py.
"""

import contextlib
import ctypes
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from training.one_core import OneCore

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.2
"""How often the load is looked at, in seconds. A look takes less than a millisecond."""
SHARED_FROM = 0.3
"""Others want the cores: the threads together waited for one longer than this share of the time.
One busy process beside two threads on two cores makes it 0.4, four of them 0.8."""
FREE_BELOW = 0.05
"""Nobody wants them: the threads waited for less than this share of the time (idle: 0.01)."""
LOOKS_UNTIL_FREE = 3
"""How many looks in a row must find the cores free: others that pause are not gone."""
_TASKS = Path("/proc/self/task")


@contextlib.contextmanager
def waits_by_load(num_threads: int) -> Iterator[None]:
    """Choose how the threads of this process wait by the load, as long as the context lasts.

    They spin until a look has shown that others want the cores. Where the load cannot be seen they
    sleep early throughout.

    Args:
        num_threads: How many threads compute together in this process.
    """
    library = _loaded_libgomp()
    is_chosen = "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ
    if library is None or is_chosen or num_threads < 2:
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(library, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _loaded_libgomp() -> ctypes.CDLL | None:
    """Return the OpenMP library that torch has loaded, or None where it has another one."""
    found = importlib.util.find_spec("torch")
    folders = found.submodule_search_locations if found else None
    if not folders:
        return None
    path = Path(folders[0]) / "lib" / "libgomp.so.1"
    try:
        return ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return None


def _watch(library: ctypes.CDLL, ended: threading.Event) -> None:
    """Have threads sleep early while others want the cores, until the end."""
    if not _counted_s():
        log.info("the load of this machine cannot be seen: threads that wait sleep early")
        with threads_sleep_early(library):
            ended.wait()
        return
    looks, choice, one_core = _Looks(), Choice(), OneCore()
    with contextlib.ExitStack() as at_the_end, contextlib.ExitStack() as sleeping:
        at_the_end.callback(one_core.spread)
        while not ended.wait(LOOK_EVERY_S):
            look, was_sleeping = looks.look(), choice.is_sleeping
            # On one core a thread that spins would keep it from the one that it waits for.
            choice.after(1.0 if one_core.is_gathered else look.waited)
            if choice.is_sleeping and not was_sleeping:
                log.info("others want the cores (waited %.0f %%): threads sleep", 100 * look.waited)
                sleeping.enter_context(threads_sleep_early(library))
            elif was_sleeping and not choice.is_sleeping:
                log.info("the cores are free: threads that wait for each other spin")
                sleeping.close()
            one_core.after(look.ran, is_shared=look.waited > SHARED_FROM)


class Choice:
    """Whether threads sleep early, after what each look has found."""

    def __init__(self) -> None:
        self.is_sleeping = False
        self._num_free = 0

    def after(self, share_waited: float) -> bool:
        """Return whether threads sleep early from now on."""
        self._num_free = self._num_free + 1 if share_waited < FREE_BELOW else 0
        if share_waited > SHARED_FROM:
            self.is_sleeping = True
        elif self._num_free >= LOOKS_UNTIL_FREE:
            self.is_sleeping = False
        return self.is_sleeping


@contextlib.contextmanager
def threads_sleep_early(library: ctypes.CDLL) -> Iterator[None]:
    """Keep one more team of threads than there are cores, each of which sleeps.

    It is made in a thread of its own, because libgomp keeps a team for each thread that had one,
    and lets it go when that thread ends.
    """
    made, may_go = threading.Event(), threading.Event()

    def keep_a_team() -> None:
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # free(NULL) does nothing.
        library.GOMP_parallel(nothing, None, library.omp_get_num_procs(), 0)
        made.set()
        may_go.wait()

    keeper = threading.Thread(target=keep_a_team, daemon=True)
    keeper.start()
    made.wait()
    try:
        yield
    finally:
        may_go.set()
        keeper.join()


class Look(NamedTuple):
    """For how many seconds threads ran, and for how many they were ready and had no core."""

    ran: float
    waited: float


class _Looks:
    """Looks at the time for which this process's threads ran, or were ready and had no core."""

    def __init__(self) -> None:
        self._counted, self._at = _counted_s(), time.monotonic()

    def look(self) -> Look:
        """Return the seconds of all threads per second since the last look."""
        before, since = self._counted, self._at
        self._counted, self._at = _counted_s(), time.monotonic()
        both = [
            (self._counted[task], before[task]) for task in self._counted.keys() & before.keys()
        ]
        passed = self._at - since
        return Look(
            sum(new.ran - old.ran for new, old in both) / passed,
            sum(new.waited - old.waited for new, old in both) / passed,
        )


def _counted_s() -> dict[str, Look]:
    """Return the seconds each thread ran and waited since it began; none where nobody counts."""
    found = {}
    for task in _TASKS.iterdir() if _TASKS.is_dir() else ():
        with contextlib.suppress(OSError):  # A thread that has ended meanwhile.
            ran, waited, _ = map(int, (task / "schedstat").read_text().split())
            if ran:
                found[task.name] = Look(ran / 1e9, waited / 1e9)
    return found
