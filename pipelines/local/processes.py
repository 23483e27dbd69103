"""Child processes that end with us: each is started in its own group, marked, and swept at the end.

Airflow's workers put stages into sessions of their own, which no signal to a group reaches. So
every process carries a mark in its environment, and stopping looks for that mark. Run as
`python -m pipelines.local.processes MARK`, this module waits for its parent to vanish (its standard
input closes, also after `kill -9`) and then sweeps. `pipelines.contracts.processes` says where a
simpler means is enough. Not for what is started (`services`).
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.local.home import HOME_MARKER

GRACE_S = 8.0
"""Seconds between asking a process to end and killing it."""


@dataclass(frozen=True)
class Service:
    """A started server: its name for people, its process and its log."""

    name: str
    process: "subprocess.Popen[bytes]"
    log_path: Path

    def tail(self, num_lines: int = 25) -> str:
        """Return the last lines of its log."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-num_lines:])


def marks_of(home: Path) -> str:
    """Return what the mark of every start of a home folder begins with, and no other home's."""
    return f"{urllib.parse.quote(str(home))}#"


def new_mark(home: Path) -> str:
    """Return the mark of one start: the home folder, and a token that no other start has."""
    return f"{marks_of(home)}{uuid.uuid4().hex}"


def start(
    name: str, command: Sequence[str], environment: Mapping[str, str], mark: str, log_dir: Path
) -> Service:
    """Start a marked process in a group of its own, its output in `<log_dir>/<name>.log`."""
    log_path = log_dir / f"{name}.log"
    with log_path.open("wb") as stream:
        process = subprocess.Popen(
            command,
            env={**environment, HOME_MARKER: mark},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Service(name, process, log_path)


def start_watch(mark: str) -> "subprocess.Popen[bytes]":
    """Start the process that sweeps when we vanish. Closing its stdin has it sweep at once."""
    environment = {name: value for name, value in os.environ.items() if name != HOME_MARKER}
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.local.processes", mark],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )


def marked(mark: str) -> list[psutil.Process]:
    """Return the running processes whose mark begins with this one or `marks_of`, but not us."""
    found = []
    for process in psutil.process_iter():
        # A process that is gone meanwhile or belongs to another user is none of ours.
        with contextlib.suppress(psutil.Error, OSError):
            has_mark = process.environ().get(HOME_MARKER, "").startswith(mark)
            if has_mark and process.pid != os.getpid():
                found.append(process)
    return found


def sweep(mark: str, grace_s: float = GRACE_S) -> int:
    """End every process that is `marked`, by force after `grace_s`; return how many there were."""

    def send(number: signal.Signals, wait_s: float) -> int:
        found = marked(mark)
        for process in found:
            # psutil compares the start time, so a process id that is in use again is never hit.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        psutil.wait_procs(found, timeout=wait_s)
        return len(found)

    num_found, deadline = send(signal.SIGTERM, grace_s), time.monotonic() + grace_s
    # Until none is found: one that was about to start another may have done so.
    while send(signal.SIGKILL, 1) and time.monotonic() < deadline:
        pass
    return num_found


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()  # until the parent closes it or dies
    sweep(sys.argv[1])
