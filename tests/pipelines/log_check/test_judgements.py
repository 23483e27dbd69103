"""The silent defects: planted into a sound world, each is found, and the sound world has none."""

import re
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.event_log.rules import Severity
from pipelines.log_check.judgements import judge
from pipelines.log_check.page import render
from pipelines.log_check.report import LogReport, lines_of, told_problems
from pipelines.log_check.run import check_log
from pipelines.recipes import smoke
from support.log_reports import day_of
from support.worlds import write_events, write_planted_world

DAY = "2017-01-08"
NUM_DAYS = 16


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "log"
    write_planted_world(folder, num_days=NUM_DAYS, num_users=200, requests_per_user_day=0.6)
    return folder


@pytest.fixture
def log(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world, tmp_path / "log")
    return tmp_path / "log"


def found(log: Path) -> dict[str, tuple[Severity, str]]:
    report: LogReport = check_log(str(log), smoke())
    return {p.rule: (p.severity, p.message) for p in report.problems}


def change_actions(
    log: Path, change: Callable[[pa.Table], pa.Table], table: str = "actions"
) -> None:
    """Write all actions again, changed, each into the day on which it happens now."""
    files = sorted((log / table).glob("*/*.parquet"))
    rows = change(pa.concat_tables([pq.read_table(path, partitioning=None) for path in files]))
    for path in files:
        path.unlink()
    write_events(log, table, rows)


def set_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    index = rows.schema.get_field_index(name)
    return rows.set_column(index, rows.schema.field(name), values)


def earlier(rows: pa.Table, hours: int, is_moved: np.ndarray) -> pa.Table:
    shift = np.where(is_moved, hours * HOUR_MS, 0)
    for name in ("acted_at", "known_at"):
        rows = set_column(rows, name, pa.array(np.asarray(rows[name]) - shift))
    return rows


def test_a_sound_world_has_nothing_to_look_at(world: Path) -> None:
    assert found(world) == {}


def test_a_day_without_actions(log: Path) -> None:
    (log / f"actions/day={DAY}/part-0.parquet").unlink()
    severity, message = found(log)["label_rate"]
    assert severity is Severity.ERROR
    assert f"on {DAY} 0.00% of the impressions got" in message
    assert "on the days around it" in message


def test_a_day_whose_rate_collapses(log: Path) -> None:
    path = log / f"actions/day={DAY}/part-0.parquet"
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.take(pa.array(np.arange(0, len(rows), 8))), path)
    severity, message = found(log)["label_rate"]
    assert severity is Severity.WARNING
    assert f"on {DAY}" in message


def test_hours_without_actions(log: Path) -> None:
    path = log / f"actions/day={DAY}/part-0.parquet"
    rows = pq.read_table(path, partitioning=None)
    hour = pc.hour(pc.cast(rows["acted_at"], pa.timestamp("ms")))
    pq.write_table(rows.filter(pc.or_(pc.less(hour, 8), pc.greater(hour, 16))), path)
    severity, message = found(log)["hours_without_actions"]
    assert severity is Severity.WARNING
    assert DAY in message


def test_a_day_without_impressions(log: Path) -> None:
    (log / f"impressions/day={DAY}/part-0.parquet").unlink()
    severity, message = found(log)["few_impressions"]
    assert severity is Severity.WARNING
    assert f"{DAY} has 0 rows" in message


def test_requests_that_match_nothing(log: Path) -> None:
    def change(rows: pa.Table) -> pa.Table:
        ids = rows["request_id"].to_pylist()
        other = [None if name is None else f"x{name}" if n % 10 < 7 else name
                 for n, name in enumerate(ids)]  # fmt: skip
        return set_column(rows, "request_id", pa.array(other, pa.string()))

    change_actions(log, change)
    severity, message = found(log)["unknown_requests"]
    assert severity is Severity.ERROR
    assert "(70%) name none of their user's in the log" in message


def test_a_clock_that_is_three_hours_slow_for_actions_that_name_their_request(log: Path) -> None:
    change_actions(log, lambda rows: earlier(rows, 3, np.arange(len(rows)) % 9 == 0))
    severity, message = found(log)["clock"]
    assert severity is Severity.ERROR
    assert "most of them by 2 to 3 h" in message


def test_a_clock_that_is_three_hours_slow_for_actions_without_a_request(log: Path) -> None:
    def change(rows: pa.Table) -> pa.Table:
        rows = set_column(rows, "request_id", pa.nulls(len(rows), pa.string()))
        return earlier(rows, 3, np.arange(len(rows)) % 9 == 0)

    change_actions(log, change)
    severity, message = found(log)["early_actions"]
    assert severity is Severity.ERROR
    assert re.search("about 3 h before their impressions are 1[01]% of", message)


def test_impressions_that_stand_twice(log: Path) -> None:
    path = log / f"impressions/day={DAY}/part-0.parquet"
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(pa.concat_tables([rows, rows]), path)
    severity, message = found(log)["duplicates"]
    assert severity in (Severity.NOTE, Severity.WARNING)
    assert f"{len(rows):,} rows" in message


def test_embeddings_of_another_width_and_of_nothing(log: Path) -> None:
    path = log / "pins/part-0.parquet"
    rows = pq.read_table(path)
    lists = rows["embedding"].to_pylist()
    lists[0], lists[1:9] = lists[0][:7], [[0.0] * 32] * 8
    pq.write_table(rows.set_column(2, "embedding", pa.array(lists, pa.list_(pa.float32()))), path)
    problems = found(log)
    assert problems["embedding_width"][0] is Severity.ERROR
    assert "1 of 7" in problems["embedding_width"][1]
    assert problems["zero_embeddings"][0] is Severity.WARNING


def test_any_one_width_is_fine_if_users_have_it_too(log: Path) -> None:
    for table in ("pins", "users"):
        path = log / table / "part-0.parquet"
        rows = pq.read_table(path)
        halves = [row[:20] for row in rows["embedding"].to_pylist()]
        column = pa.array(halves, pa.list_(pa.float16(), 20))
        pq.write_table(rows.set_column(2, "embedding", column), path)
        if table == "pins":
            severity, message = found(log)["width_of_users"]
            assert severity is Severity.ERROR
            assert "32 wide, and those of the pins of version 'planted-1' 20" in message
    assert found(log) == {}


def test_a_head_that_the_log_never_shows(log: Path) -> None:
    change_actions(log, lambda rows: rows.filter(pc.not_equal(rows["action_type"], "save")))
    severity, message = found(log)["head_without_labels"]
    assert severity is Severity.WARNING
    assert "'save'" in message


def days_of(log: Path, table: str) -> list[Path]:
    return sorted((log / table).glob("day=*"))


def test_actions_that_stop_before_the_impressions_do_or_begin_after_them(log: Path) -> None:
    for folder in days_of(log, "actions")[-6:]:
        shutil.rmtree(folder)
    severity, message = found(log)["days_without_actions"]
    assert severity is Severity.ERROR
    last = days_of(log, "actions")[-1].name.removeprefix("day=")
    assert f"the last is of {last}" in message
    for folder in days_of(log, "actions")[:3]:
        shutil.rmtree(folder)
    report = check_log(str(log), smoke())
    told = [p.message for p in report.problems if p.rule == "days_without_actions"]
    assert len(told) == 2 and "3 days with impressions" in told[0]


def test_a_day_of_impressions_whose_labels_may_still_come_is_no_problem(log: Path) -> None:
    newest = days_of(log, "impressions")[-1].name
    for folder in days_of(log, "actions"):
        if folder.name >= newest:
            shutil.rmtree(folder)
    assert "days_without_actions" not in found(log)


def test_a_log_without_any_action_is_an_error_without_a_recipe_too(log: Path) -> None:
    first, *others = days_of(log, "actions")
    for folder in others:
        shutil.rmtree(folder)
    path = first / "part-0.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).slice(0, 0), path)
    problems = check_log(str(log)).problems
    assert [p.severity for p in problems if p.rule == "no_actions"] == [Severity.ERROR]


def rates_of(daily: list[float]) -> dict[str, Severity]:
    """Return what is said of days with 1,000 impressions, by the share that got a like."""
    start = date(2026, 1, 1)
    days = [start + timedelta(days=n) for n in range(len(daily))]
    report = LogReport("", "", 24)
    for day, rate in zip(days, daily, strict=True):
        likes = round(1000 * rate)
        counts = {"like": likes, "click": 100}
        report.days[day] = day_of(1000, counts, counts)
    end = days[-1] + timedelta(days=1)
    report.days[end] = day_of(acted={"click": 100})
    problems = [p for p in judge(report, None) if p.rule == "label_rate"]
    return {re.findall(r"on (\S+)", p.message)[0]: p.severity for p in problems}


@pytest.mark.parametrize("trial", [0.0, 0.001])
def test_the_launch_of_an_action_type_is_no_error(trial: float) -> None:
    launched = rates_of([0.0, trial, *[0.0] * 18, *[0.05] * 20])
    assert Severity.ERROR not in launched.values()
    if not trial:
        assert launched == {}


@pytest.mark.parametrize("num_days", [1, 3, 5, 10])
def test_an_action_type_that_is_missing_for_days_is_an_error_on_each(num_days: int) -> None:
    missing = rates_of([*[0.05] * 15, *[0.0] * num_days, *[0.05] * 15])
    assert missing == {f"2026-01-{16 + n}": Severity.ERROR for n in range(num_days)}
    ended = rates_of([*[0.05] * 15, *[0.0] * num_days])
    assert len(ended) == min(num_days, 7) and set(ended.values()) == {Severity.ERROR}


def report_of(days: list[date]) -> LogReport:
    report = LogReport("", "", 24)
    for day in days:
        report.days[day] = day_of(1000, {"like": 1})
    report.problems = list(judge(report, None))
    return report


def swapped(num_days: int) -> list[date]:
    """Return the days of a log from 1 January on, as far as a swap of day and month gives days."""
    days = [date(2017, 1, 1) + timedelta(days=n) for n in range(num_days)]
    return sorted(date(2017, day.day, day.month) for day in days if day.day <= 12)


def told_of(report: LogReport, rule: str) -> list[str]:
    wanted = [p.remedy for p in report.problems if p.rule == rule]
    return [text for _, text in told_problems(report) if any(text.endswith(r) for r in wanted)]


@pytest.mark.parametrize("num_days", [90, 365])
def test_a_log_whose_days_and_months_are_swapped_is_told_in_two_lines(num_days: int) -> None:
    report = report_of(swapped(num_days))
    [hint] = told_of(report, "days_1_to_12")
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
    assert told_of(report_of(days), "days_1_to_12") == []


def test_up_to_five_days_are_told_one_by_one() -> None:
    days = [date(2017, 1, 1) + timedelta(days=n) for n in range(40)]
    for num_missing, num_lines in ((5, 5), (6, 1)):
        report = report_of([day for n, day in enumerate(days) if not 10 <= n < 10 + num_missing])
        assert len(told_problems_of(report)) == num_lines


def told_problems_of(report: LogReport) -> list[str]:
    return [text for _, text in told_problems(report)]


def test_rows_whose_times_cannot_be_read_are_no_hint(log: Path) -> None:
    change_actions(log, lambda rows: rows.drop_columns("known_at"))
    assert found(log).keys() & {"known_at_once", "one_time_of_day"} == set()


@pytest.mark.parametrize("table", ["impressions", "actions"])
def test_rows_that_are_all_at_one_time_of_day(log: Path, table: str) -> None:
    def at_noon(rows: pa.Table) -> pa.Table:
        name = "impressed_at" if table == "impressions" else "acted_at"
        times = [t // DAY_MS * DAY_MS + 12 * HOUR_MS for t in rows[name].to_pylist()]
        rows = set_column(rows, "known_at", pa.array([t + 2 * DAY_MS for t in times]))
        return set_column(rows, name, pa.array(times))

    change_actions(log, at_noon, table)
    severity, message = found(log)["one_time_of_day"]
    assert severity is Severity.NOTE
    assert message.startswith(f"{table}: all at 12:00:00 UTC: the log has days only")


def test_actions_that_are_all_known_at_once(log: Path) -> None:
    change_actions(log, lambda rows: set_column(rows, "known_at", rows["acted_at"]))
    severity, message = found(log)["known_at_once"]
    assert severity is Severity.NOTE
    assert message.startswith("actions: known at once, known_at is acted_at in all ")
    assert "a model is then trained on fresher sequences than serving will have" in message


@pytest.mark.parametrize(("silent", "is_told"), [(-2, True), (-1, False)])
def test_hours_of_the_newest_day_may_still_get_their_labels(silent: int, is_told: bool) -> None:
    """The label window of the last day with actions reaches beyond the log."""
    report, hours = LogReport("", "", 24), range(24)
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(5)]
    for day in days:
        labelled = {str(h): 0 if day == days[silent] and h > 12 else 100 for h in hours}
        more = {"impressions.hour": dict.fromkeys(map(str, hours), 1000), "labelled.hour": labelled}
        report.days[day] = day_of(24_000, {"like": 2400}, {"like": 2400}, **more)
    told = [p.day for p in judge(report, None) if p.rule == "hours_without_actions"]
    assert told == ([days[silent]] if is_told else [])
