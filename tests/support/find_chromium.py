"""Finds a Chromium for the browser tests; as root on a machine with apt-get, installs one.

Run by `make test`; where there is none the browser tests skip with a visible line.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def install() -> None:
    """Install Debian's chromium where that is possible; say so where it is not."""
    if find() or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        done = subprocess.run(
            ["apt-get", "-qq", *command], env=quiet, stdout=subprocess.DEVNULL, check=False
        )
        if done.returncode != 0:
            break


if __name__ == "__main__":
    if "--install" in sys.argv:
        install()
    sys.stdout.write(f"Chromium: {find() or 'none; the browser tests will be skipped'}\n")
