"""Print where tests may write, a folder that pytest makes: in memory, where there is enough of it.

Run as a script by the Makefile. A third of the registry's tests' time was spent on waiting for the
disk, to which every change of a record goes (fsync). None of them is about a loss of power.
What a run that failed has left in memory stays to be looked at, until the next run removes it.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
NEEDED_BYTES, LEFT_FREE_BYTES = 4 << 30, 8 << 30
"""A whole run writes about 1 GB; the tests' processes need memory besides."""
_PREFIX = "homefeed-tests-"


def main() -> None:
    """Print the folder, which is named by the process that runs the tests."""
    parent = MEMORY if _has_room() else Path(tempfile.gettempdir())
    for each in MEMORY.glob(f"{_PREFIX}*"):
        owner = each.name.removeprefix(_PREFIX)
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(each, ignore_errors=True)  # what an earlier run has left
    sys.stdout.write(f"{parent / f'{_PREFIX}{os.getppid()}'}\n")


def _has_room() -> bool:
    if not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return False  # Some tests write programs.
    available = next(
        int(line.split()[1]) << 10
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable")
    )
    has_space = shutil.disk_usage(MEMORY).free >= NEEDED_BYTES
    return has_space and available >= NEEDED_BYTES + LEFT_FREE_BYTES


if __name__ == "__main__":
    main()
