"""Whatever is started ends: sessions of their own, deaf processes, and a parent killed with -9."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.local import processes
from support.serving import wait_until

SLEEP = "import time; time.sleep(600)"
IGNORE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
DEAF = IGNORE + "print('deaf', flush=True); " + SLEEP
IN_ANOTHER_SESSION = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}],"
    f" start_new_session=True).wait()"
)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    mark = processes.new_mark(tmp_path)
    yield mark
    processes.sweep(mark, grace_s=0.1)


def start(script: str, mark: str, tmp_path: Path) -> processes.Service:
    command = [sys.executable, "-c", script]
    return processes.start("test", command, dict(os.environ), mark, tmp_path)


def test_a_grandchild_in_another_session_ends_too(tmp_path: Path, mark: str) -> None:
    start(IN_ANOTHER_SESSION, mark, tmp_path)
    wait_until(lambda: len(processes.marked(mark)) == 2)
    assert processes.sweep(mark) == 2
    assert processes.marked(mark) == []


def test_a_process_that_will_not_hear_is_killed(tmp_path: Path, mark: str) -> None:
    service = start(DEAF, mark, tmp_path)
    wait_until(lambda: "deaf" in service.tail())
    started = time.monotonic()
    processes.sweep(mark, grace_s=0.5)
    assert processes.marked(mark) == []
    assert time.monotonic() - started >= 0.5  # it was asked first


def test_processes_of_another_start_or_home_are_left_alone(tmp_path: Path, mark: str) -> None:
    other = processes.new_mark(tmp_path)
    longer = processes.new_mark(tmp_path.with_name(f"{tmp_path.name}#2"))
    service = start(SLEEP, other, tmp_path)
    start(SLEEP, longer, tmp_path)
    wait_until(lambda: processes.marked(other) != [] and processes.marked(longer) != [])
    assert processes.sweep(mark) == 0
    assert service.process.poll() is None
    assert processes.sweep(processes.marks_of(tmp_path)) == 1  # every start of this home
    assert processes.sweep(longer) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_parent_dies_the_watch_ends_its_children(
    tmp_path: Path, mark: str, number: signal.Signals
) -> None:
    parent_script = textwrap.dedent(
        f"""
        import os, time
        from pathlib import Path
        from pipelines.local import processes
        processes.start_watch({mark!r})
        command = [{sys.executable!r}, "-c", {IN_ANOTHER_SESSION!r}]
        processes.start("t", command, dict(os.environ), {mark!r}, Path({str(tmp_path)!r}))
        time.sleep(600)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_script])
    wait_until(lambda: len(processes.marked(mark)) == 2, 60)
    parent.send_signal(number)
    parent.wait(timeout=60)
    wait_until(lambda: processes.marked(mark) == [], 60)
    watchers = [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]
    psutil.wait_procs(watchers, timeout=60)
    assert not any(p.is_running() for p in watchers)
