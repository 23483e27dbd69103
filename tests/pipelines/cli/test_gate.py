"""`homefeed gate`, as typed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.contracts.errors import DataGateFailedError
from pipelines.log_days.judging import accepted_shifts
from pipelines.stages import runner
from support.commands import EXECUTABLE, as_json, lines, refusal
from support.runs import make_run, save_run
from support.worlds import write_planted_world

FIRST_DAYS = ["2017-01-23", "2017-02-06", "2017-02-20", "2017-03-06"]
SMOKE = ("--recipe", "smoke")


@pytest.fixture(scope="module", autouse=True)
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("gate")
    write_planted_world(folder / "event_log", num_days=80, num_users=150)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOMEFEED_EVENT_LOG", str(folder / "event_log"))
        yield


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("calibrate --as-of 2017-01-25", 65, "to hold the past against itself"),
        ("calibrate --as-of yesterday", 78, "'yesterday'"),
    ],
)
def test_what_cannot_be_tried_is_refused(words: str, code: int, said: str) -> None:
    error = refusal("gate", *words.split(), *SMOKE)
    assert error.exit_code == code and re.search(said, str(error), re.DOTALL)


def test_calibration_replays_the_past() -> None:
    *windows, alarms, needed = lines("gate", "calibrate", *SMOKE)
    assert [line[:10] for line in windows] == FIRST_DAYS
    assert alarms.startswith("0% of 4 past windows would have brought a warning")
    assert needed == "19 windows are needed to say how much wider limits would have to be"
    read = as_json("gate", "calibrate", *SMOKE)
    assert [window["first"] for window in read["windows"]] == FIRST_DAYS
    assert (read["alarm_share"], read["factor"]) == (0.0, None)


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
