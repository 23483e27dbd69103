"""Times that were converted by mistake: told as hints, and many days of one kind in one line."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.log_check.found import Deeds, Exposures, LogReport, Severity
from pipelines.log_check.hints import hints_of
from pipelines.log_check.judgements import judge
from pipelines.log_check.page import render
from pipelines.log_check.run import check_log
from pipelines.log_check.text import lines_of, told_problems
from support.worlds import write_events, write_planted_world

TIMES = {"impressions": "impressed_at", "actions": "acted_at"}


def report_of(days: list[date]) -> LogReport:
    report = LogReport("", "", 24)
    for day in days:
        report.exposures[day], report.deeds[day] = Exposures(rows=1000), Deeds(rows=1)
    report.problems = judge(report, [], None, list(hints_of(report)))
    return report


def swapped(num_days: int) -> list[date]:
    """Return the days of a log from 1 January on, as far as a swap of day and month gives days."""
    days = [date(2017, 1, 1) + timedelta(days=n) for n in range(num_days)]
    return sorted(date(2017, day.day, day.month) for day in days if day.day <= 12)


def told(report: LogReport, rule: str) -> list[str]:
    wanted = [p.finding.remedy for p in report.problems if p.finding.rule == rule]
    return [text for _, text in told_problems(report) if any(text.endswith(r) for r in wanted)]


@pytest.mark.parametrize("num_days", [90, 365])
def test_a_log_whose_days_and_months_are_swapped_is_told_in_two_lines(num_days: int) -> None:
    report = report_of(swapped(num_days))
    [hint] = told(report, "days_1_to_12")
    assert "day and month swapped?" in hint and "in 12 months from 2017-01-01 to 2017-12-" in hint
    lines = [text for _, text in told_problems(report)]
    assert len(lines) == 2
    [days] = [line for line in lines if line != hint]
    num_missing = (swapped(num_days)[-1] - date(2017, 1, 1)).days + 1 - len(swapped(num_days))
    first = "2017-01-04" if num_days == 90 else "2017-01-13"
    assert days.startswith(f"{num_missing} days from {first} to 2017-")
    assert f"the first of them: impressions: {first} has 0 rows" in days
    assert list(lines_of(report))[-1] == "0 errors, 2 warnings, 0 notes"


def test_the_page_tells_many_days_in_one_line_too() -> None:
    page = render(report_of(swapped(365)))
    assert page.count("has 0 rows") == 1


@pytest.mark.parametrize(
    "days",
    [
        [date(2017, month, day) for month in (1, 2) for day in range(1, 13)],  # two months
        [date(2017, month, day) for month in (1, 2, 3) for day in range(1, 14)],  # a 13th
    ],
)
def test_other_days_are_no_hint(days: list[date]) -> None:
    assert told(report_of(days), "days_1_to_12") == []


def test_up_to_five_days_are_told_one_by_one() -> None:
    days = [date(2017, 1, 1) + timedelta(days=n) for n in range(40)]
    for num_missing, num_lines in ((5, 5), (6, 1)):
        report = report_of([day for n, day in enumerate(days) if not 10 <= n < 10 + num_missing])
        assert len(told_problems_of(report)) == num_lines


def told_problems_of(report: LogReport) -> list[str]:
    return [text for _, text in told_problems(report)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "log"
    write_planted_world(folder, num_days=6, num_users=40)
    return folder


def change(world: Path, folder: Path, table: str, new: Callable[[pa.Table], pa.Table]) -> Path:
    """Write a copy of a world whose events of one table are changed."""
    for name in ("impressions", "actions", "pins", "users"):
        files = sorted((world / name).rglob("*.parquet"))
        rows = pa.concat_tables([pq.read_table(path, partitioning=None) for path in files])
        if name in TIMES:
            write_events(folder, name, new(rows) if name == table else rows)
        else:
            (folder / name).mkdir(parents=True)
            pq.write_table(rows, folder / name / "part-0.parquet")
    return folder


def test_rows_whose_times_cannot_be_read_are_no_hint(world: Path, tmp_path: Path) -> None:
    log = change(world, tmp_path / "log", "actions", lambda rows: rows.drop_columns("known_at"))
    assert notes(log).keys() & {"known_at_once", "one_time_of_day"} == set()


def notes(log: Path) -> dict[str, tuple[Severity, str]]:
    problems = check_log(str(log)).problems
    return {p.finding.rule: (p.severity, p.finding.message) for p in problems}


@pytest.mark.parametrize("table", ["impressions", "actions"])
def test_rows_that_are_all_at_one_time_of_day(world: Path, tmp_path: Path, table: str) -> None:
    def at_noon(rows: pa.Table) -> pa.Table:
        times = [t // DAY_MS * DAY_MS + 12 * HOUR_MS for t in rows[TIMES[table]].to_pylist()]
        known = [t + 2 * DAY_MS for t in times]
        for name, values in ((TIMES[table], times), ("known_at", known)):
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(name), pa.array(values))
        return rows

    assert "one_time_of_day" not in notes(world)
    severity, message = notes(change(world, tmp_path / "log", table, at_noon))["one_time_of_day"]
    assert severity is Severity.NOTE
    assert message.startswith(f"{table}: all at 12:00:00 UTC: the log has days only")


def test_actions_that_are_all_known_at_once(world: Path, tmp_path: Path) -> None:
    def at_once(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index("known_at")
        return rows.set_column(place, rows.schema.field(place), rows["acted_at"])

    assert "known_at_once" not in notes(world)
    severity, message = notes(change(world, tmp_path / "log", "actions", at_once))["known_at_once"]
    assert severity is Severity.NOTE
    assert message.startswith("actions: known at once, known_at is acted_at in all ")
    assert "a model is then trained on fresher sequences than serving will have" in message
