"""Threads that get no more than one core among them run on one core, until another is idle.

Beside busy processes the threads of a training are given turns on several cores at different
times, and each turn ends at once where the next piece waits for a thread that has none. On one core
they take turns with each other instead: a thread that waits hands the core to the one it waits for.
The number of threads stays, and with it every sum that they round.

Linux only, like the counts that `training.thread_waits` decides by. Tested in
tests/training/test_one_core.py.
"""

import contextlib
import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)
ONE_CORE = 1.2
"""Seconds per second that threads run together when they get about one core among them."""
IDLE_FROM = 0.5
"""Another core is free where those that are not used are idle for this share of the time."""
LOOKS_UNTIL_IDLE = 3
"""How many looks in a row must find it so. Doubled each time that the load comes back."""
_STAT = Path("/proc/stat")
_TASKS = Path("/proc/self/task")
_CORE_OF_STAT = 36
"""Which field of /proc/self/stat after the command's name is the core that it last ran on."""


class OneCore:
    """Gathers the threads of this process on one core, and spreads them again."""

    def __init__(self) -> None:
        self.is_gathered = False
        self._allowed = os.sched_getaffinity(0)
        self._others: set[int] = set()
        self._num_idle, self._patience = 0, LOOKS_UNTIL_IDLE
        self._idle, self._at = _idle_s(self._allowed), time.monotonic()

    def after(self, ran: float, *, is_shared: bool) -> None:
        """Gather or spread the threads, after a look.

        Args:
            ran: For how many seconds per second they ran together since the last look.
            is_shared: Whether others wanted the cores.
        """
        idle = self._share_idle()
        if self.is_gathered:
            self._num_idle = self._num_idle + 1 if idle > IDLE_FROM else 0
            if self._num_idle >= self._patience:
                self.spread()
                self._patience *= 2
        elif is_shared and ran < ONE_CORE and self._idle:
            self._gather()

    def _gather(self) -> None:
        core = _core_of_this_process()
        if core in self._allowed and len(self._allowed) > 1:
            self._others, self._num_idle = self._allowed - {core}, 0
            _run_on({core})
            self.is_gathered = True
            log.info("threads that get one core among them share core %d", core)

    def spread(self) -> None:
        """Let the threads run where they might run at first."""
        if self.is_gathered:
            _run_on(self._allowed)
            self.is_gathered = False
            log.info("threads run on %d cores again", len(self._allowed))

    def _share_idle(self) -> float:
        """Return how long the cores that are not used were idle, in seconds per second."""
        before, since = self._idle, self._at
        self._idle, self._at = _idle_s(self._allowed), time.monotonic()
        counted = self._others & before.keys() & self._idle.keys()
        return sum(self._idle[core] - before[core] for core in counted) / (self._at - since)


def _run_on(cores: set[int]) -> None:
    for task in _TASKS.iterdir():
        with contextlib.suppress(OSError):  # A thread that has ended meanwhile.
            os.sched_setaffinity(int(task.name), cores)


def _core_of_this_process() -> int:
    stat = Path("/proc/self/stat").read_text()
    return int(stat.rpartition(")")[2].split()[_CORE_OF_STAT])


def _idle_s(cores: set[int]) -> dict[int, float]:
    """Return the seconds each core was idle since the start; none where nobody counts."""
    try:
        lines = _STAT.read_text().splitlines()
    except OSError:
        return {}
    ticks = os.sysconf("SC_CLK_TCK")
    counts = {name: line.split() for line in lines if (name := line.split(" ")[0])[:3] == "cpu"}
    names = {f"cpu{core}": core for core in cores}
    return {names[name]: int(fields[4]) / ticks for name, fields in counts.items() if name in names}
