"""Finds the servers that `make test-all` starts; as root with apt-get, installs them.

Where one is missing and cannot be installed, the folders of tests that need it are named, and the
command ends with exit code 1. With HOMEFEED_SKIP_MISSING=1 it ends with 0, and those folders are
left out (tests/production/conftest.py).
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
    """A program, the Debian package that brings it, and the test folders that start it."""

    name: str
    program: str
    package: str
    folders: tuple[str, ...]
    older_packages: tuple[str, ...] = ()  # that do as well, where a release lacks the first one

    @property
    def is_there(self) -> bool:
        """Whether the program is on the path, or where Debian puts it."""
        # Of PostgreSQL, Debian puts clients only on the path.
        places = Path("/usr/lib/postgresql").glob("*/bin")
        found = [shutil.which(self.program, path=str(place)) for place in places]
        return shutil.which(self.program) is not None or any(found)


SERVERS = (
    Server("PostgreSQL", "initdb", "postgresql", ("postgres", "celery")),
    Server("Redis", "redis-server", "redis-server", ("celery",)),
    Server("Java", "java", "openjdk-21-jre-headless", ("spark",), ("openjdk-17-jre-headless",)),
)


def missing() -> list[Server]:
    """Return the servers that are not there."""
    return [server for server in SERVERS if not server.is_there]


def left_out() -> list[str]:
    """Return the folders of tests/production that cannot run and are to be left out."""
    if os.environ.get(SKIP_MISSING) != "1":
        return []
    return sorted({folder for server in missing() for folder in server.folders})


def install() -> None:
    """Install Debian's packages of what is missing, where that is possible."""
    wanted = missing()
    if not wanted or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    if _apt("apt-get", "-qq", "update"):
        packages = [_package_of(server) for server in wanted]
        _apt("apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages)


def _package_of(server: Server) -> str:
    """Return the first of a server's packages that this release of Debian has."""
    names = (server.package, *server.older_packages)
    return next((name for name in names if _apt("apt-cache", "show", name)), server.package)


def _apt(*command: str) -> bool:
    # The packages start services of their own; at run level 1 Debian starts none.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    return not subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, check=False).returncode


def report() -> str:
    """Return what is there and what is not, with what to do about it, a line each."""
    lines = []
    for server in SERVERS:
        what = "is there"
        if not server.is_there:
            folders = ", ".join(f"tests/production/{folder}" for folder in server.folders)
            what = (
                f"is MISSING, so {folders} cannot run; install it (Debian: sudo apt-get install "
                f"{server.package}), run as root, or leave them out with {SKIP_MISSING}=1"
            )
        lines.append(f"{server.name} {what}\n")
    return "".join(lines)


if __name__ == "__main__":
    if "--install" in sys.argv:
        install()
    sys.stdout.write(report())
    sys.exit(1 if missing() and os.environ.get(SKIP_MISSING) != "1" else 0)
