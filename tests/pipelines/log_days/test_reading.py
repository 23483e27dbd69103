"""A day's profile is its own, whatever days are measured with it."""

import os
from pathlib import Path

import pytest

from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.errors import TransientStorageError
from pipelines.event_log.log_files import open_event_log
from pipelines.log_days import reading
from pipelines.log_days.reading import measure_log
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
from pipelines.storage import to_uri
from support.runs import PLANTED_AS_OF
from support.worlds import write_planted_world

AS_OF_DAY = int(PLANTED_AS_OF.timestamp()) // 86_400
DAYS = range(AS_OF_DAY - 12, AS_OF_DAY - 1)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    write_planted_world(tmp_path / "event_log", num_days=67)
    return tmp_path


def measure(log: Path, days: range) -> list[DayProfile]:
    """Return the profiles, without the last digits, which depend on how threads add up."""
    plan, event_log = plan_of(smoke(), PLANTED_AS_OF), open_event_log(to_uri(log / "event_log"))
    return [
        each.model_copy(
            update={
                "numbers": {
                    name: number.model_copy(update={"value": float(f"{number.value:.9g}")})
                    for name, number in each.numbers.items()
                }
            }
        )
        for each in measure_log(event_log, plan, days, log)
    ]


def test_profiles_do_not_depend_on_the_days_that_are_measured_with_them(
    planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cycle holds its days against days that were measured in other runs of days."""
    at_once = measure(planted, DAYS)
    assert [each.day for each in at_once] == list(DAYS)
    monkeypatch.setattr(reading, "BYTES_AT_ONCE", 1)
    assert measure(planted, DAYS) == at_once
    for day, expected in zip(DAYS, at_once, strict=True):
        assert measure(planted, range(day, day + 1)) == [expected]


def test_a_file_that_is_written_meanwhile_is_told(
    planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [path] = (planted / "event_log/users").rglob("*.parquet")
    monkeypatch.setattr(reading, "categories_of", lambda _: os.utime(path, (0, 0)) or ())
    with pytest.raises(TransientStorageError, match="changed while it was read"):
        measure(planted, DAYS)
