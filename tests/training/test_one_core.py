"""The threads of a process gather on one core beside others, and spread when another is idle."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from training import one_core
from training.one_core import IDLE_FROM, LOOKS_UNTIL_IDLE, ONE_CORE, OneCore

CORES = os.sched_getaffinity(0)
pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="one core: there is nothing to choose")


class Machine:
    """Counts of idle time that a test sets, and a second thread whose cores are looked at."""

    def __init__(self, stat: Path, native_id: int) -> None:
        self._stat, self._native_id = stat, native_id
        self._ticks = 0.0
        self.idle_for(0.0)

    def idle_for(self, share: float) -> None:
        """Let a moment pass in which each core was idle for a share of it."""
        time.sleep(0.1)
        self._ticks += share * 0.1 * os.sysconf("SC_CLK_TCK") * 1.5
        lines = [f"cpu{core} 5 5 5 {self._ticks:.0f} 5 0 0" for core in sorted(CORES)]
        self._stat.write_text("\n".join(["cpu  9 9 9 9 9 0 0", *lines, "intr 7"]) + "\n")

    def cores(self) -> tuple[set[int], set[int]]:
        """Return where the first and the second thread may run."""
        return os.sched_getaffinity(0), os.sched_getaffinity(self._native_id)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    monkeypatch.setattr(one_core, "_STAT", tmp_path / "stat")
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait)
    thread.start()
    assert thread.native_id is not None
    try:
        yield Machine(tmp_path / "stat", thread.native_id)
    finally:
        may_end.set()
        thread.join()
        for task in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(task.name), CORES)


def test_threads_that_get_one_core_share_it_until_another_is_idle(machine: Machine) -> None:
    threads = OneCore()
    threads.after(ONE_CORE + 0.1, is_shared=True)  # They get more than one.
    threads.after(ONE_CORE - 0.1, is_shared=False)  # Nobody else wants them.
    assert machine.cores() == (CORES, CORES)
    threads.after(ONE_CORE - 0.1, is_shared=True)
    first, second = machine.cores()
    assert first == second and len(first) == 1 and threads.is_gathered
    for _ in range(LOOKS_UNTIL_IDLE - 1):
        machine.idle_for(1.0)
        threads.after(0.9, is_shared=True)
    machine.idle_for(0.5 * IDLE_FROM)  # A pause of the others is not their end.
    threads.after(0.9, is_shared=True)
    assert threads.is_gathered
    for _ in range(LOOKS_UNTIL_IDLE):
        assert threads.is_gathered
        machine.idle_for(1.0)
        threads.after(0.9, is_shared=True)
    assert machine.cores() == (CORES, CORES) and not threads.is_gathered


def test_a_load_that_comes_back_is_waited_for_longer(machine: Machine) -> None:
    threads, looks = OneCore(), []
    for _ in range(2):
        threads.after(0.9, is_shared=True)
        looks.append(0)
        while threads.is_gathered:
            machine.idle_for(1.0)
            threads.after(0.9, is_shared=True)
            looks[-1] += 1
    assert looks == [LOOKS_UNTIL_IDLE, 2 * LOOKS_UNTIL_IDLE]


def test_where_idle_time_is_not_counted_threads_stay_spread(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(one_core, "_STAT", tmp_path / "not-there")
    threads = OneCore()
    threads.after(0.9, is_shared=True)
    assert machine.cores() == (CORES, CORES)


def test_the_kernel_counts_idle_time() -> None:
    if not Path("/proc/stat").exists():
        pytest.skip("this kernel does not count")
    assert one_core._idle_s(CORES).keys() == CORES
