"""A mended log is held against the one that was refused, and not only against accepted days."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import DataGateFailedError
from pipelines.contracts.judged.day_profile import DayProfile, Number
from pipelines.contracts.run_layout import judged_log_uri
from pipelines.log_days.judging import judge_event_log
from pipelines.log_days.repair import DAYS_FILE, REPORT_FILE, since_refused
from support.runs import PLANTED_AS_OF, make_run, save_run
from support.worlds import write_planted_world

SPOILED = "actions/day=2017-02-2*/*.parquet"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_planted_world(tmp_path / "event_log", num_days=67)
    shutil.copytree(tmp_path / "event_log", tmp_path / "sound")
    for path in sorted((tmp_path / "event_log").glob(SPOILED)):
        rows = pq.read_table(path, partitioning=None).to_pydict()
        rows["request_id"] = ["nowhere"] * len(rows["request_id"])
        pq.write_table(pq.read_table(path, partitioning=None).from_pydict(
            rows, schema=pq.read_schema(path)), path)  # fmt: skip
    return tmp_path


def the_run(world: Path) -> ResolvedRun:
    return save_run(make_run(world, as_of=PLANTED_AS_OF))


def put_back(world: Path, day: str) -> None:
    for path in (world / "sound").glob(f"actions/day={day}/*.parquet"):
        shutil.copy(path, world / "event_log" / path.relative_to(world / "sound"))


def test_a_mend_is_told_day_by_day(world: Path) -> None:
    run = the_run(world)
    with pytest.raises(DataGateFailedError) as first:
        judge_event_log(run)
    assert "Since it was refused" not in str(first.value)
    put_back(world, "2017-02-21")
    with pytest.raises(DataGateFailedError, match="Since it was refused before") as second:
        judge_event_log(run)
    assert "2017-02-21 is another: " in str(second.value)
    assert "2017-02-22" not in str(second.value).partition("Since it was refused before")[2]
    for day in (world / "sound/actions").iterdir():
        put_back(world, day.name.removeprefix("day="))
    report = judge_event_log(run)
    assert report.is_accepted
    assert [phrase.split()[0] for phrase in report.since_refused][0] == "2017-02-20"
    docs = Path(storage.local_path(report.docs_uri)).read_text()
    assert "Since it was refused" in docs and "2017-02-22 is another" in docs


def test_that_nothing_was_mended_is_said(world: Path) -> None:
    run = the_run(world)
    for _ in range(2):
        with pytest.raises(DataGateFailedError) as caught:
            judge_event_log(run)
    assert "no day is another than the ones that were refused" in str(caught.value)


@pytest.mark.parametrize("name", [REPORT_FILE, DAYS_FILE])
@pytest.mark.parametrize("content", [None, b"{", b'{"days": 1}'])
def test_what_an_earlier_release_left_is_passed_over(
    world: Path, name: str, content: bytes | None
) -> None:
    run = the_run(world)
    for _ in range(2):
        with pytest.raises(DataGateFailedError) as caught:
            judge_event_log(run)
        uri = storage.join(judged_log_uri(run.run_uri), name)
        storage.remove(uri)
        if content is not None:
            storage.write_bytes(uri, content)
    assert "Since it was refused" not in str(caught.value)


def day(number: int, rows: float = 100.0) -> DayProfile:
    numbers = {"impressions.rows": Number(value=rows, num=100)}
    return DayProfile(day=number, numbers=numbers, counts={})


def test_days_that_have_gone_or_come_are_told() -> None:
    refused = [day(10), day(11), day(12)]
    assert since_refused(refused, [day(10), day(12), day(13)]) == (
        "1970-01-14 has come",
        "1970-01-12 has gone",
    )


def test_days_before_the_kept_ones_have_not_come() -> None:
    """Of a window that is longer than what is kept, nothing is known of its first days."""
    refused = [day(number) for number in range(10, 13)]
    now = [day(number, 100.0 if number < 12 else 900.0) for number in range(13)]
    assert since_refused(refused, now) == ("1970-01-13 is another: impressions.rows",)
