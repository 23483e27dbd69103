"""`homefeed gate`, as typed."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.main import app
from pipelines.contracts.errors import ConfigurationError, DataContractError, DataGateFailedError
from pipelines.log_days.judging import accepted_shifts
from pipelines.stages import runner
from support.commands import EXECUTABLE
from support.runs import make_run, save_run
from support.worlds import write_planted_world


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate")
    write_planted_world(folder / "event_log", num_days=80, num_users=150)
    return folder


@pytest.fixture
def log(planted: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOMEFEED_EVENT_LOG", str(planted / "event_log"))
    return planted


def homefeed(*words: str) -> Result:
    return CliRunner().invoke(app, ["gate", *words])


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ("calibrate --as-of 2017-01-25", DataContractError, "to hold the past against itself"),
        ("calibrate --as-of yesterday", ConfigurationError, "'yesterday'"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    log: Path, words: str, error: type[Exception], said: str
) -> None:
    refused = homefeed(*words.split(), "--recipe", "smoke")
    assert isinstance(refused.exception, error)
    assert re.search(said, str(refused.exception), re.DOTALL)


def test_calibration_replays_the_past(log: Path) -> None:
    shown = homefeed("calibrate", "--recipe", "smoke")
    assert shown.exit_code == 0, shown.output
    *windows, alarms, needed = shown.output.splitlines()
    assert [line[:10] for line in windows] == ["2017-01-23", "2017-02-06", "2017-02-20",
                                               "2017-03-06"]  # fmt: skip
    assert alarms.startswith("0 of 4 past windows would have brought a warning (0%)")
    read = json.loads(homefeed("calibrate", "--recipe", "smoke", "--json").stdout)
    assert [window["first"] for window in read["windows"]] == [line[:10] for line in windows]
    assert (read["alarm_share"], read["factor"]) == (0.0, None)
    assert needed == "19 windows are needed to say how much wider limits would have to be"


def test_accepting_says_what_to_run(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log")
    for folder in sorted((tmp_path / "event_log" / "impressions").glob("day=2017-02-1*"))[:4]:
        for path in folder.iterdir():
            path.unlink()
    run = save_run(make_run(tmp_path))
    with pytest.raises(DataGateFailedError):
        runner.run_stage("build_snapshot", run.run_uri)
    words = ("--by", "Ada", "--reason", "we were closed")
    shown = homefeed("accept", run.run_uri, "log_has_most_days", *words)
    assert shown.exit_code == 0, shown.output
    told = f"{EXECUTABLE} stage build_snapshot --run {run.run_uri}"
    assert told in shown.output.replace("\n", "")
    again = homefeed("accept", run.run_uri, "log_has_most_days", *words, "--json")
    read = json.loads(again.stdout)
    assert read["accepted"]["by"] == "Ada" and "stage build_snapshot" in read["commands"][0]
    assert accepted_shifts(run.run_uri)["log_has_most_days"].endswith(": we were closed")
