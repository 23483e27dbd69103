"""`homefeed decay` whose models are trained apart: a killed one goes on, two take turns."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.decay import Decay
from support.serving import wait_until
from support.worlds import write_planted_world

WORDS = ("--recipe", "smoke", "--every", "3", "--from", "2017-02-17", "--apart", "--json")


@pytest.mark.slow
def test_a_killed_lab_goes_on_and_no_registry_hears_of_it(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log")
    tried = {"HOMEFEED_HOME": str(tmp_path), "HOMEFEED_TRACKING_URI": "http://127.0.0.1:9"}

    def begin(*words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "pipelines.cli", "decay", *WORDS, *words]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=os.environ | tried, **pipes)

    killed = begin()
    wait_until(lambda: len([*tmp_path.rglob("made.json")]) >= 2, 200)
    _, said = begin().communicate(timeout=60)
    assert "homefeed decay of smoke" in said and "RunInProgressError" in said
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("made.json")}
    out, said = (ended := begin("--value", "0.5")).communicate(timeout=400)
    assert ended.returncode == 0, said
    found = Decay.model_validate(json.loads(out))
    assert len(found.as_of) == 5 and (found.core_hours or 0) > 0 and found.cadences
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (tmp_path / "workspace" / "history").exists()
