"""A process ends with its parent, also where the parent was gone before the process asked."""

import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
print(child.pid, flush=True)
time.sleep(float(sys.argv[2]))
"""
CHILD = """
import sys, time
from pathlib import Path
from pipelines.contracts.processes import die_with_parent
{before}
die_with_parent(int(sys.argv[1]))
Path({ready!r}).touch()
time.sleep(60)
"""


def start(child: str, lifetime_s: float) -> tuple["subprocess.Popen[str]", int]:
    """Start a process that starts a child; return it and the child's process id."""
    command = [sys.executable, "-c", PARENT, child, str(lifetime_s)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def is_running(process_id: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_until(is_time, what: str) -> None:
    deadline = time.monotonic() + 30
    while not is_time():
        assert time.monotonic() < deadline, f"waited 30 s for {what}"
        time.sleep(0.02)


def test_a_child_ends_with_a_killed_parent(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    parent, child = start(CHILD.format(before="", ready=str(ready)), 60)
    wait_until(ready.exists, "the child to be ready")
    assert is_running(child)
    parent.kill()
    parent.communicate(timeout=30)
    wait_until(lambda: not is_running(child), "the child to end")


def test_a_child_whose_parent_is_gone_already_ends_at_once(tmp_path: Path) -> None:
    ready, gone = tmp_path / "ready", tmp_path / "gone"
    before = f"while not Path({str(gone)!r}).exists(): time.sleep(0.02)"
    parent, child = start(CHILD.format(before=before, ready=str(ready)), 0)
    parent.wait(timeout=30)
    assert is_running(child)
    gone.touch()
    wait_until(lambda: not is_running(child), "the child to end")
    assert not ready.exists()
