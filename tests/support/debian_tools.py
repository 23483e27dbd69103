"""Programs of Debian's packages for tests: those that are installed, or fetched into a folder.

A package is unpacked and not installed, so that none of its services is started, and root is not
needed.
"""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def tool(command: str, package: str) -> str:
    """Return the program's path, or skip the test, saying what to install."""
    found = shutil.which(command) or _fetched(command, package)
    if not found:
        pytest.skip(f"{command} is missing; install it (Debian: apt-get install {package})")
    return found


@functools.cache
def _fetched(command: str, package: str) -> str:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return ""
    folder = Path(tempfile.gettempdir()) / "homefeed-test-tools" / package
    program = folder / "usr" / "bin" / command
    if not program.exists():
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(
                ["apt-get", "download", package],
                cwd=scratch,
                capture_output=True,
                timeout=300,
                check=False,
            )
            packages = list(Path(scratch).glob("*.deb"))
            if done.returncode or not packages:
                return ""
            subprocess.run(["dpkg", "-x", str(packages[0]), str(folder)], check=True)
    return str(program) if program.exists() else ""
