"""How far long work has come: lines in a log, with the time left, and a bar on a terminal."""

import itertools
import os
import pty
import subprocess
import sys
import termios

import pytest

from pipelines.contracts import progress
from pipelines.contracts.progress import tracked


def test_elsewhere_a_line_now_and_then_says_what_is_left(monkeypatch, caplog) -> None:
    clock = itertools.count(0, 10)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    caplog.set_level("INFO")
    assert list(tracked(range(6), "files")) == list(range(6))
    assert list(tracked(iter("ab"), "files")) == ["a", "b"]
    lines = ["2 of 6 files, about 40 s left", "4 of 6 files, about 20 s left"]
    assert caplog.messages == [*lines, "6 of 6 files, about 0 s left", "2 of ? files"]


@pytest.mark.slow
def test_a_terminal_shows_a_bar_and_takes_it_away() -> None:
    work = "import time; from pipelines.contracts.progress import tracked\n"
    work += "for _ in tracked(range(6), 'files'): time.sleep(0.5)"
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    subprocess.run([sys.executable, "-c", work], stderr=theirs, check=True)
    os.close(theirs)  # so that nothing is waited for where nothing was written
    shown = os.read(ours, 10_000).decode()
    assert "files" in shown and "/6 [" in shown and shown.endswith("\r")
    os.close(ours)
