"""Finds the programs that `make test-all` starts; as root with apt-get, installs them.

Where a server is missing and cannot be installed, the folders of tests that need it are named, and
the command ends with exit code 1. With HOMEFEED_SKIP_MISSING=1 it ends with 0, and those folders
are left out (tests/production/conftest.py). Without Chromium the browser tests skip themselves.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SKIP_MISSING = "HOMEFEED_SKIP_MISSING"


@dataclass(frozen=True)
class Server:
    """A program, by all its names, the Debian packages that bring it, and the test folders."""

    name: str
    programs: tuple[str, ...]
    packages: tuple[str, ...]  # older ones do as well, where a release lacks the first one
    folders: tuple[str, ...] = ()

    def find(self) -> str | None:
        """Return the program's path: on PATH, or where Debian puts PostgreSQL's servers."""
        places = [None, *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
        found = (shutil.which(each, path=place) for each in self.programs for place in places)
        return next(filter(None, found), None)


CHROMIUM = Server(
    "Chromium",
    ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    ("chromium",),
)
SERVERS = (
    Server("PostgreSQL", ("initdb",), ("postgresql",), ("postgres", "celery")),
    Server("Redis", ("redis-server",), ("redis-server",), ("celery",)),
    Server("Java", ("java",), ("openjdk-21-jre-headless", "openjdk-17-jre-headless"), ("spark",)),
    CHROMIUM,
)


def missing() -> list[Server]:
    """Return what is not there."""
    return [server for server in SERVERS if server.find() is None]


def left_out() -> list[str]:
    """Return the folders of tests/production that cannot run and are to be left out."""
    if os.environ.get(SKIP_MISSING) != "1":
        return []
    return sorted({folder for server in missing() for folder in server.folders})


def install() -> None:
    """Install Debian's packages of what is missing, where that is possible."""
    wanted = missing()
    if wanted and os.geteuid() == 0 and shutil.which("apt-get") and _apt("-qq", "update"):
        for server in wanted:  # the newest package that this release has
            any(_apt("-qq", "install", "--yes", "--no-install-recommends", package)
                for package in server.packages)  # fmt: skip


def _apt(*words: str) -> bool:
    # The packages start services of their own; at run level 1 Debian starts none.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", *words]
    return not subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, check=False).returncode


def report() -> str:
    """Return what is there and what is not, with what to do about it, a line each."""
    lines = []
    for server in SERVERS:
        folders = ", ".join(f"tests/production/{folder}" for folder in server.folders)
        lack = f"{folders or 'the browser tests'} cannot run; install it"
        told = f"is MISSING, so {lack} (Debian: sudo apt-get install {server.packages[0]})"
        skip = f", or leave them out with {SKIP_MISSING}=1" if server.folders else ""
        lines.append(f"{server.name} {'is there' if server.find() else told + skip}\n")
    return "".join(lines)


if __name__ == "__main__":
    if "--install" in sys.argv:
        install()
    sys.stdout.write(report())
    is_short = any(server.folders for server in missing())
    sys.exit(1 if is_short and os.environ.get(SKIP_MISSING) != "1" else 0)
