"""What a process and its children use between two instants: time, CPU time, memory, bytes moved.

CPU time of a child is known to the kernel's accounts when the child has ended and was waited for,
as the processes of a training are. Memory is looked at once a second by a thread, because the
kernel keeps the peak of each process and not that of a family. A peak between two looks is missed.
Linux only.
"""

import contextlib
import os
import threading
import time
from pathlib import Path

import psutil

from pipelines.contracts.run_layout import StageUsage

LOOK_EVERY_S = 1.0
"""A look takes 3 ms of CPU time where 180 processes run on the machine."""


class UsageMeter:
    """Measures from now on; `close` ends the thread that looks at the memory."""

    def __init__(self, look_every_s: float = LOOK_EVERY_S) -> None:
        self._look_every_s, self._seen_bytes = look_every_s, 0
        self._started, self._cpu_s, self._moved = time.monotonic(), processor_s(), _moved_bytes()
        self.wall_s = 0.0  # Until what was read last.
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_again, name="usage", daemon=True)
        self._look()
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._is_over.set()
        self._thread.join(timeout=1.0)

    def read(self, num_gpus: int = 0) -> StageUsage:
        """Return what was used until now, by a stage that holds so many GPUs, busy or not."""
        self._look()
        self.wall_s = time.monotonic() - self._started
        pairs = zip(_moved_bytes(), self._moved, strict=True)
        moved = [None if now is None or then is None else now - then for now, then in pairs]
        return StageUsage(
            cpu_s=max(0.0, processor_s() - self._cpu_s),
            gpu_s=self.wall_s * num_gpus,
            peak_memory_bytes=self._seen_bytes,
            read_bytes=moved[0],
            written_bytes=moved[1],
        )

    def _look_again(self) -> None:
        while not self._is_over.wait(self._look_every_s):
            self._look()

    def _look(self) -> None:
        self._seen_bytes = max(self._seen_bytes, family_memory_bytes())


def family_memory_bytes() -> int:
    """Return the resident memory of this process and all below it, in bytes.

    Pages that processes share, libraries and shared tensors, are counted once: of each process the
    pages of its own are taken, and of the shared ones the largest share. Where the system does not
    let this user see who the children are, none of them is counted.
    """
    family = [psutil.Process()]
    with contextlib.suppress(psutil.Error):  # One of the machine's processes may not be read.
        family += family[0].children(recursive=True)
    alone, shared = 0, 0
    for process in family:
        with contextlib.suppress(psutil.Error):  # It has ended meanwhile.
            found = process.memory_info()
            alone += found.rss - found.shared
            shared = max(shared, found.shared)
    return alone + shared


def memory_limit_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path | None = None) -> int:
    """Return how much memory this process may use: its control group's limit or the machine's.

    Args:
        root: Where control groups (version 2) are mounted.
        own: The file that names this process's group; /proc/self/cgroup.
    """
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError):
        group = (own or Path("/proc/self/cgroup")).read_text().strip().rpartition(":")[2]
        folder = root / group.lstrip("/")
        for each in (folder, *folder.parents):
            if each.is_relative_to(root) and (file := each / "memory.max").exists():
                text = file.read_text().strip()
                limit = min(limit, int(text)) if text.isdigit() else limit
    return limit


def processor_s() -> float:
    """Return user and system seconds of this process and of its children that have ended."""
    used = psutil.Process().cpu_times()
    return float(used.user + used.system + used.children_user + used.children_system)


def _moved_bytes() -> tuple[int | None, int | None]:
    """Return what this process and its children that have ended read and wrote, in bytes."""
    try:
        moved = psutil.Process().io_counters()
    except (psutil.Error, OSError, NotImplementedError):  # The kernel does not count them.
        return None, None
    return moved.read_chars, moved.write_chars
