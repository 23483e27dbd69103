"""Whoever ends the services is told what is waited for, and for how long."""

import os
import sys
from pathlib import Path

from pipelines.local import processes, services

SLEEP = "import time; time.sleep(600)"


def test_what_is_waited_for_is_said_before_it_ends(tmp_path: Path) -> None:
    mark, said = processes.new_mark(tmp_path), []
    command = [sys.executable, "-c", SLEEP]
    processes.start("test", command, dict(os.environ), mark, tmp_path)

    def say(line: str) -> None:
        said.append((line, len(processes.marked(mark))))

    services._end(mark, say)
    [(line, num_left)] = said
    assert line.startswith("waiting for 1 process(es) of Airflow and MLflow to end")
    assert f"{processes.GRACE_S:g} s" in line and num_left == 1
    assert processes.marked(mark) == []
    services._end(mark, say)
    assert len(said) == 1
