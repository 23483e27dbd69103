"""Programs of Debian's packages for tests: those that are installed, or fetched into a folder.

A package is unpacked and not installed, so that none of its services is started, and root is not
needed.
"""

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def tool(command: str, package: str) -> str:
    """Return the program's path, or skip the test, saying what to install."""
    found = shutil.which(command)
    if found is None and (folder := _unpacked(package)):
        found = shutil.which(command, path=str(folder / "usr" / "bin"))
    if found is None:
        pytest.skip(f"{command} is missing; install it (Debian: apt-get install {package})")
    return found


@functools.cache
def _unpacked(package: str) -> Path | None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="homefeed-tools-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = subprocess.run(
        ["apt-get", "download", package], cwd=folder, capture_output=True, timeout=300, check=False
    )
    packages = list(folder.glob("*.deb"))
    if done.returncode or not packages:
        return None
    subprocess.run(["dpkg", "-x", str(packages[0]), str(folder)], check=True)
    return folder
