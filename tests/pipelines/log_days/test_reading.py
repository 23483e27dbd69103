"""Days that were measured are not measured again while their files are the same."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.errors import TransientStorageError
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.log_days import reading
from pipelines.log_days.reading import PROFILES_FILE, measure_log
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
from pipelines.storage import to_uri
from support.runs import PLANTED_AS_OF
from support.worlds import write_planted_world

AS_OF_DAY = int(PLANTED_AS_OF.timestamp()) // 86_400
DAYS = range(AS_OF_DAY - 12, AS_OF_DAY - 1)
FEW = range(DAYS.start, DAYS.start + 2)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("known")
    write_planted_world(folder / "event_log", num_days=67)
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_planted_world(tmp_path / "event_log", num_days=67)
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The days that the last call has measured."""
    found: list[int] = []
    original = reading.parts_of

    def note(event_log: EventLog, days: list[int]) -> Iterator[range]:
        found[:] = days
        return original(event_log, days)

    monkeypatch.setattr(reading, "parts_of", note)
    return found


def measure(
    log: Path, kept_in: Path, days: range = DAYS, shift: int = 0, passed_over: tuple[str, ...] = ()
) -> list[DayProfile]:
    plan = replace(plan_of(smoke(), PLANTED_AS_OF + timedelta(days=shift)), passed_over=passed_over)
    event_log = open_event_log(to_uri(log / "event_log"))
    return [*measure_log(event_log, plan, days, log, to_uri(kept_in))]


def test_known_days_have_the_same_profiles_and_a_later_cycle_measures_what_is_new(
    planted: Path, tmp_path: Path, measured: list[int]
) -> None:
    first = measure(planted, tmp_path)
    assert len(measured) == 11
    assert measure(planted, tmp_path) == first
    # Of the planted world, some rows of the last days become known after as_of.
    assert len(measured) <= 2 and measured == list(range(DAYS.stop - len(measured), DAYS.stop))
    later = range(DAYS.start + 4, DAYS.stop + 4)
    found = measure(planted, tmp_path, later, shift=4)
    assert min(measured) >= DAYS.stop - 2 and max(measured) == later.stop - 1
    assert found == measure(planted, tmp_path / "another", later, shift=4)


def test_a_rewritten_day_is_measured_again_and_so_is_the_next(
    own: Path, measured: list[int]
) -> None:
    measure(own, own / "days")
    name = f"day={(PLANTED_AS_OF - timedelta(days=8)).date()}"
    [path] = (own / "event_log/impressions" / name).iterdir()
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.slice(0, len(rows) // 2), path)
    found = measure(own, own / "days")
    assert [day for day in measured if day < DAYS.stop - 2] == [AS_OF_DAY - 8, AS_OF_DAY - 7]
    assert found == measure(own, own / "another")


def test_days_that_a_disk_has_spoilt_are_measured(
    planted: Path, tmp_path: Path, measured: list[int]
) -> None:
    first, path = measure(planted, tmp_path, FEW), tmp_path / PROFILES_FILE
    for spoilt in (b'{"measured":', path.read_bytes().replace(b'"value": 1.0', b'"value": 0.5')):
        path.write_bytes(spoilt)
        assert measure(planted, tmp_path, FEW) == first
        assert measured == list(FEW)
    assert measure(planted, tmp_path, FEW) == first and measured == []


def test_no_day_written_meanwhile_is_kept(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = (own / "event_log/users").rglob("*.parquet")
    monkeypatch.setattr(reading, "categories_of", lambda _: os.utime(path, (0, 0)) or ())
    with pytest.raises(TransientStorageError, match="changed while it was read"):
        measure(own, own / "days", FEW)
    assert not (own / "days").exists()


def test_days_of_another_recipe_s_features_are_measured_again(
    planted: Path, tmp_path: Path, measured: list[int]
) -> None:
    for passed_over, expected in (((), FEW), ((), ()), (("more",), FEW)):
        measure(planted, tmp_path, FEW, passed_over=passed_over)
        assert measured == list(expected)


def test_a_log_without_statistics_in_its_footers_is_measured(own: Path) -> None:
    for path in (own / "event_log/users").rglob("*.parquet"):
        pq.write_table(pq.read_table(path), path, write_statistics=False)
    assert len(measure(own, own / "days", FEW)) == 2


def test_profiles_do_not_depend_on_the_days_that_are_measured_with_them(
    planted: Path, tmp_path: Path
) -> None:
    """A cycle measures its new days alone, and holds them against days of longer runs."""
    at_once = measure(planted, tmp_path / "all")
    for number, expected in enumerate(at_once):
        alone = range(DAYS.start + number, DAYS.start + number + 1)
        assert measure(planted, tmp_path / f"day {number}", alone) == [expected]
