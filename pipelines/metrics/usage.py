"""What a process and its children use between two instants: time, CPU time, peak of memory.

CPU time of a child is known to the kernel's accounts when the child has ended and was waited for,
as the processes of a training are. Memory is looked at once a second by a thread, because the
kernel keeps the peak of each process and not that of a family. A peak between two looks is found
where it is this process's own, because that one the kernel knows.

Linux only, as `pipelines.contracts.processes`. Tested in tests/pipelines/metrics/test_usage.py.
"""

import contextlib
import os
import resource
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

LOOK_EVERY_S = 1.0
"""A look takes 3 ms of CPU time where 180 processes run on the machine."""
_MOVED = ("rchar", "wchar")
"""The kernel's names of what system calls have read and written, in /proc/self/io."""
_KIB = 1024  # The kernel's unit of VmHWM and ru_maxrss.


@dataclass(frozen=True)
class Usage:
    """What was used. Seconds and bytes."""

    wall_s: float
    user_s: float
    system_s: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Account:
    """What the kernel has on its accounts of this process and its children that have ended."""

    wall_s: float
    cpu_s: float
    own_peak_bytes: int
    children_peak_bytes: int  # Of the largest of them.
    read_bytes: int | None  # By system calls; None: the kernel does not count them.
    written_bytes: int | None

    @classmethod
    def now(cls) -> "Account":
        """Read the accounts. No thread is needed for it, and no other library."""
        user_s, system_s = _accounts()
        moved = _moved_bytes()
        read_bytes, written_bytes = (moved.get(name) for name in _MOVED)
        return cls(
            wall_s=time.monotonic(),
            cpu_s=user_s + system_s,
            own_peak_bytes=_own_peak_bytes(),
            children_peak_bytes=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _KIB,
            read_bytes=read_bytes,
            written_bytes=written_bytes,
        )

    def peak_since(self, before: "Account") -> int:
        """Return the memory of the largest process since then, or of this one now if larger.

        An older peak is that of another stage, which the same process ran before.
        """
        pairs = (
            (self.own_peak_bytes, before.own_peak_bytes),
            (self.children_peak_bytes, before.children_peak_bytes),
        )
        return max(memory_in_use_bytes(), *(now if now > then else 0 for now, then in pairs))


class UsageMeter:
    """Measures from entering it until `read` is called, or until it is left."""

    def __init__(self, look_every_s: float = LOOK_EVERY_S) -> None:
        self._look_every_s = look_every_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_again, name="usage", daemon=True)
        self._seen_bytes = 0

    def __enter__(self) -> "UsageMeter":
        """Begin to measure."""
        self._started, self._before = time.monotonic(), _accounts()
        self._own_peak_before = _own_peak_bytes()
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the thread that looks at the memory."""
        self._is_over.set()
        self._thread.join(timeout=1.0)

    def read(self) -> Usage:
        """Return what was used until now."""
        self._look()
        user_s, system_s = (now - then for now, then in zip(_accounts(), self._before, strict=True))
        own_peak = _own_peak_bytes()
        # An older peak is that of another stage, which the same process ran before.
        grown = own_peak if own_peak > self._own_peak_before else 0
        return Usage(
            wall_s=time.monotonic() - self._started,
            user_s=user_s,
            system_s=system_s,
            peak_memory_bytes=max(self._seen_bytes, grown),
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
    import psutil

    own = psutil.Process()
    family = [own]
    with contextlib.suppress(psutil.Error):  # One of the machine's processes may not be read.
        family += own.children(recursive=True)
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


def memory_in_use_bytes() -> int:
    """Return how much of the machine's memory this process holds now."""
    _, resident_pages, *_ = Path("/proc/self/statm").read_text().split()
    return int(resident_pages) * os.sysconf("SC_PAGE_SIZE")


def _accounts() -> tuple[float, float]:
    """Return user and system seconds of this process and of its children that have ended."""
    kept = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime for each in kept), sum(each.ru_stime for each in kept)


def _moved_bytes() -> dict[str, int]:
    """Return what this process and its children that have ended read and wrote, in bytes.

    {} where the kernel does not count it or does not tell this process.
    """
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/io").read_text().splitlines()
        found = dict(line.split(": ") for line in lines)
        return {name: int(found[name]) for name in _MOVED if name in found}
    return {}


def _own_peak_bytes() -> int:
    """Return the largest memory of this program so far.

    Not `ru_maxrss`, which begins with what the process had before it became this program: that of
    whoever started it.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
