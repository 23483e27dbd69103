"""A process ends with its parent, also where that was gone before it asked, and starts soon."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.serving import wait_until

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), *sys.argv[2:]])
print(child.pid, flush=True)
time.sleep(60 if sys.argv[2] == "stays" else 0)
"""
CHILD = """
import sys, time
from pathlib import Path
from pipelines.contracts.processes import die_with_parent
parent, how, folder = sys.argv[1:]
while how == "goes" and not Path(folder, "gone").exists(): time.sleep(0.02)
die_with_parent(int(parent))
Path(folder, "ready").touch()
time.sleep(60)
"""


def is_running(process_id: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", ["stays", "goes"])
def test_a_child_ends_with_its_parent(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-c", PARENT, CHILD, how, str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    if how == "stays":
        wait_until((tmp_path / "ready").exists)
        assert is_running(child)
        parent.kill()
    parent.wait(timeout=30)
    (tmp_path / "gone").touch()
    wait_until(lambda: not is_running(child))
    assert (tmp_path / "ready").exists() == (how == "stays")


def test_a_process_looks_for_garbage_seldom_and_not_when_it_ends() -> None:
    code = """
import atexit, gc
from pipelines.contracts.processes import collect_seldom
atexit.register(lambda: print(gc.get_freeze_count() > 1000))  # The last to be called.
collect_seldom()
print(gc.get_threshold()[0])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["10000", "True"]
