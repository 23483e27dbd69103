"""Processes that hold a place, which a test can kill, stop and wake."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipelines.places import lease as store_lease

TTL_S = 3.0
"""Time to live of leases in tests, in seconds."""
_HEAD = f"""
import sys
from pipelines import storage
from pipelines.places import lease as store_lease
store_lease.TTL_S = {TTL_S}
"""
HOLD = """
try:
    with storage.exclusive_lock({uri!r}, "the run") as lease:
        print(lease.number, flush=True)
        sys.stdin.readline()
        storage.write_bytes({uri!r} + "/by-holder", b"x")
    print("written", flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""
"""Hold a place until a line is read, then write there, and say how that went."""


class Holder:
    """A process that runs a script; it is killed where a test leaves it running."""

    def __init__(self, script: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HEAD + script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> "Holder":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def says(self) -> str:
        """Return the next line that the process prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self, line: str = "") -> None:
        """Let the process go on, which waits for a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop the process; it has stopped when this returns."""
        os.kill(self.pid, signal.SIGSTOP)
        state = Path(f"/proc/{self.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def hold(uri: str, **environment: str) -> Holder:
    """Return a process that is about to hold a place."""
    return Holder(HOLD.format(uri=uri), **environment)


def state_of(uri: str) -> store_lease.LeaseState:
    """Return what the lease file of a place says."""
    found = store_lease._read(uri)
    assert found is not None
    return found[0]
