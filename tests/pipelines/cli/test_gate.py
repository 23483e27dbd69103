"""`homefeed gate`, as typed."""

from pathlib import Path

import pytest

from pipelines.contracts.errors import DataGateFailedError
from pipelines.log_days.judging import accepted_shifts
from pipelines.stages import runner
from support.commands import EXECUTABLE, as_json, lines
from support.runs import make_run, save_run
from support.worlds import write_planted_world


def test_accepting_says_what_to_run(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log")
    for folder in sorted((tmp_path / "event_log" / "impressions").glob("day=2017-02-1*"))[:4]:
        for path in folder.iterdir():
            path.unlink()
    run = save_run(make_run(tmp_path))
    with pytest.raises(DataGateFailedError):
        runner.run_stage("build_snapshot", run.run_uri)
    accept = ("gate", "accept", run.run_uri, "log_has_most_days", "--by", "Ada")
    shown = lines(*accept, "--reason", "we were closed")
    assert f"{EXECUTABLE} stage build_snapshot {run.run_uri}" in "".join(shown)
    read = as_json(*accept, "--reason", "we were closed")
    assert read["accepted"]["by"] == "Ada" and "stage build_snapshot" in read["commands"][0]
    assert accepted_shifts(run.run_uri)["log_has_most_days"].endswith(": we were closed")
