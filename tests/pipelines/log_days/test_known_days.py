"""Days that were measured are not measured again while their files are the same."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.contracts.day_profile import DayProfile
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.log_days import reading
from pipelines.log_days.known_days import KnownDays, KnownProfiles, open_known_days
from pipelines.log_days.reading import measure_log
from pipelines.recipes import smoke
from pipelines.snapshot.plan import plan_of
from pipelines.storage import to_uri
from support.runs import PLANTED_AS_OF
from support.worlds import write_planted_world

AS_OF_DAY = int(PLANTED_AS_OF.timestamp()) // 86_400
DAYS = range(AS_OF_DAY - 12, AS_OF_DAY - 1)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("known")
    write_planted_world(folder / "event_log", num_days=67)
    return folder


def measure(log: Path, workspace: Path, days: range = DAYS, shift: int = 0) -> list[DayProfile]:
    """Return the profiles, without the last digits, which depend on how threads add up."""
    event_log = open_event_log(to_uri(log / "event_log"))
    plan = plan_of(smoke(), PLANTED_AS_OF + timedelta(days=shift))
    known = open_known_days(to_uri(workspace), event_log, plan, days)
    scratch = workspace / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    found = measure_log(event_log, plan, days, scratch, known)
    known.save(days, found)
    return [rounded(each) for each in found]


def rounded(profile: DayProfile) -> DayProfile:
    numbers = {
        name: number.model_copy(update={"value": float(f"{number.value:.9g}")})
        for name, number in profile.numbers.items()
    }
    return profile.model_copy(update={"numbers": numbers})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The days that are measured."""
    found: list[int] = []
    original = reading.parts_of

    def note(event_log: EventLog, days: list[int]) -> Iterator[range]:
        found.extend(days)
        return original(event_log, days)

    monkeypatch.setattr(reading, "parts_of", note)
    return found


def test_known_days_have_the_same_profiles(
    planted: Path, tmp_path: Path, measured: list[int]
) -> None:
    first = measure(planted, tmp_path / "w")
    assert len(measured) == 11
    measured.clear()
    assert measure(planted, tmp_path / "w") == first
    # Of the planted world, some rows of the last days become known after as_of.
    again = list(measured)
    assert len(again) <= 2 and again == list(range(DAYS.stop - len(again), DAYS.stop))


def test_a_later_cycle_measures_what_is_new(
    planted: Path, tmp_path: Path, measured: list[int]
) -> None:
    measure(planted, tmp_path / "w")
    measured.clear()
    later = range(DAYS.start + 4, DAYS.stop + 4)
    found = measure(planted, tmp_path / "w", later, shift=4)
    assert min(measured) >= DAYS.stop - 2 and max(measured) == later.stop - 1
    assert found == measure(planted, tmp_path / "another", later, shift=4)


def test_a_rewritten_day_is_measured_again_and_so_is_the_next(
    tmp_path: Path, measured: list[int]
) -> None:
    write_planted_world(tmp_path / "event_log", num_days=67)
    measure(tmp_path, tmp_path / "w")
    path = sorted((tmp_path / "event_log/impressions").glob("day=*/*.parquet"))
    name = f"day={(PLANTED_AS_OF - timedelta(days=8)).date()}"
    path = next(each for each in path if name in str(each))
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.slice(0, len(rows) // 2), path)
    measured.clear()
    found = measure(tmp_path, tmp_path / "w")
    assert [day for day in measured if day < DAYS.stop - 2] == [AS_OF_DAY - 8, AS_OF_DAY - 7]
    assert found == measure(tmp_path, tmp_path / "another")


def test_damaged_profiles_are_measured_again(
    planted: Path, tmp_path: Path, measured: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    first = measure(planted, tmp_path / "w")
    (kept,) = (tmp_path / "w/days").rglob("profiles.txt")
    kept.write_text(kept.read_text().replace('"value":1.0', '"value":0.5'))
    measured.clear()
    assert measure(planted, tmp_path / "w") == first
    assert len(measured) == 11 and "is damaged" in caplog.text


def test_where_profiles_cannot_be_kept_the_days_are_measured(
    planted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "days").write_text("")  # a file
    few = range(DAYS.start, DAYS.start + 2)
    assert len(measure(planted, tmp_path / "w", few)) == 2
    assert "are not kept in" in caplog.text
    event_log, plan = open_event_log(to_uri(planted / "event_log")), plan_of(smoke(), PLANTED_AS_OF)
    known = open_known_days("s3://bucket/workspace", event_log, plan, DAYS)
    known.save(DAYS, [])
    assert known == KnownDays()


def test_profiles_of_another_recipe_s_features_give_way(planted: Path, tmp_path: Path) -> None:
    few = range(DAYS.start, DAYS.start + 2)
    measure(planted, tmp_path / "w", few)
    event_log, plan = open_event_log(to_uri(planted / "event_log")), plan_of(smoke(), PLANTED_AS_OF)
    assert len(open_known_days(to_uri(tmp_path / "w"), event_log, plan, few).of(few)) == 2
    other = replace(plan, passed_over=("more",))
    assert open_known_days(to_uri(tmp_path / "w"), event_log, other, few).of(few) == {}


def test_a_log_without_statistics_in_its_footers_is_measured(tmp_path: Path) -> None:
    write_planted_world(tmp_path / "event_log", num_days=67)
    for path in (tmp_path / "event_log/users").rglob("*.parquet"):
        pq.write_table(pq.read_table(path), path, write_statistics=False)
    few = range(DAYS.start, DAYS.start + 2)
    assert len(measure(tmp_path, tmp_path / "w", few)) == 2


def test_profiles_do_not_depend_on_the_days_that_are_measured_with_them(
    planted: Path, tmp_path: Path
) -> None:
    """A cycle measures its new days alone, and holds them against days of longer runs."""
    at_once = measure(planted, tmp_path / "all")
    for number, expected in enumerate(at_once):
        alone = range(DAYS.start + number, DAYS.start + number + 1)
        assert measure(planted, tmp_path / f"day {number}", alone) == [expected]


def test_a_value_with_any_character_is_kept_and_so_is_a_day_without_rows(tmp_path: Path) -> None:
    values = {"two\nlines": 1, "line\u2028separator": 2, 'a "quote" and a space': 3}
    profile = DayProfile(day=7, numbers={}, counts={"pins.category": values})
    path, states = tmp_path / "days" / "profiles.txt", {7: "seven", 8: "eight"}
    KnownDays(path, states).save([7, 8, 9], [profile])
    for _ in range(2):  # written by a measurement, and again from what was read
        read = KnownProfiles.model_validate_json(path.read_bytes().partition(b"\n")[2])
        again = KnownDays(path, states, read.days)
        assert again.of([7, 8, 9]) == {7: profile, 8: None}
        again.save([], [])
