"""The silent defects: planted into a sound world, each is found, and the sound world has none."""

import re
import shutil
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.event_log.rules import Severity
from pipelines.log_check.judgements import judge
from pipelines.log_check.measuring import check_log
from pipelines.log_check.report import LogReport, told_problems
from pipelines.recipes import smoke
from support.data_pages import day_of
from support.mistakes import Change, Plant, column, everywhere, without
from support.worlds import write_planted_world

DAY = "2017-01-08"
ERROR, WARNING, NOTE = Severity


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "log"
    write_planted_world(folder, num_days=16, num_users=200, requests_per_user_day=0.6)
    return folder


@pytest.fixture
def log(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world, tmp_path / "log")
    return tmp_path / "log"


def found(log: Path) -> dict[str, tuple[Severity, str]]:
    return {p.rule: (p.severity, p.message) for p in check_log(str(log), smoke()).problems}


def at_noon(name: str) -> Change:
    def noon(rows: pa.Table) -> np.ndarray:
        return np.asarray(rows[name]) // DAY_MS * DAY_MS + 12 * HOUR_MS

    return lambda rows: column(name, noon)(column("known_at", lambda r: noon(r) + 2 * DAY_MS)(rows))


def narrow(table: str) -> Plant:
    def plant(log: Path) -> None:
        rows = pq.read_table(log / table / "part-0.parquet")
        halves = [row[:20] for row in rows["embedding"].to_pylist()]
        column = pa.array(halves, pa.list_(pa.float16(), 20))
        pq.write_table(rows.set_column(2, "embedding", column), log / table / "part-0.parquet")

    return plant


DEFECTS: dict[str, tuple[Plant, str, Severity, str]] = {
    "all at noon": (lambda log: [everywhere(table, at_noon(name))(log)
        for table, name in (("impressions", "impressed_at"), ("actions", "acted_at"))],
        "one_time_of_day", NOTE, "^actions: all at 12:00:00 UTC: the log has days only"),
    "known at once": (everywhere("actions", column(
        "known_at", lambda rows: rows["acted_at"].to_pylist())),
        "known_at_once", NOTE, "actions: known at once, known_at is acted_at in all .*fresher"),
}  # fmt: skip
"""What is only noted. By name: how it is made, the rule, how bad it is, and what is said."""


@pytest.mark.parametrize("name", DEFECTS)
def test_a_silent_defect_is_found(log: Path, name: str) -> None:
    plant, rule, severity, says = DEFECTS[name]
    plant(log)
    told = found(log)[rule]
    assert told[0] is severity
    assert re.search(says, told[1])
    assert "; expected " in told[1]


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ((), set()),
        ((narrow("pins"), narrow("users")), set()),
        ((without("actions/day=*", -1, None),), set()),  # labels may still come
        ((everywhere("actions", lambda rows: rows.drop_columns("known_at")),),
         {"missing_column"}),
    ],
)  # fmt: skip
def test_a_sound_world_has_nothing_to_look_at(
    log: Path, changes: tuple[Plant, ...], rules: set[str]
) -> None:
    for change in changes:
        change(log)
    assert found(log).keys() == rules


def test_a_log_without_any_action_is_an_error_without_a_recipe_too(log: Path) -> None:
    without("actions/day=*", 1, None)(log)
    path = next((log / "actions").glob("*/*.parquet"))
    pq.write_table(pq.read_table(path, partitioning=None).slice(0, 0), path)
    problems = check_log(str(log)).problems
    assert [p.severity for p in problems if p.rule == "no_actions"] == [ERROR]


def judged(days: Mapping[date, dict[str, dict[str, int]]]) -> LogReport:
    """Return a report of these days with what is said of them."""
    report = LogReport("", "", 24, days=dict(days))
    report.problems = list(judge(report, None))
    return report


def after(first: date, num_days: int) -> list[date]:
    return [first + timedelta(days=n) for n in range(num_days)]


@pytest.mark.parametrize(
    ("likes", "errors"),
    [
        ([0] * 20 + [50] * 20, range(0)),  # the launch of an action type
        ([0, 1] + [0] * 18 + [50] * 20, range(0)),  # somebody tried it before
        *(([50] * 15 + [0] * n + [50] * 15, range(15, 15 + n)) for n in (1, 3, 5, 10)),
        *(([50] * 15 + [0] * n, range(15, 15 + min(n, 7))) for n in (1, 3, 5, 10)),
    ],
)
def test_an_action_type_that_is_missing_for_days_is_an_error_on_each(
    likes: list[int], errors: range
) -> None:
    """Of days with 1,000 impressions and 100 clicks, before one with clicks alone."""
    days = after(date(2026, 1, 1), len(likes))
    counts = [{"like": num, "click": 100} for num in likes]
    of_days = {day: day_of(1000, of, of) for day, of in zip(days, counts, strict=True)}
    of_days[days[-1] + timedelta(days=1)] = day_of(acted={"click": 100})
    rates = [p for p in judged(of_days).problems if p.rule == "label_rate"]
    assert [p.day for p in rates if p.severity is ERROR] == [days[n] for n in errors]
    assert len(rates) == len(errors) + (likes[1] == 1)


def told_of(days: list[date]) -> list[str]:
    report = judged(dict.fromkeys(days, day_of(1000, {"like": 1})))
    return [text for _, text in told_problems(report)]


@pytest.mark.parametrize("num_days", [90, 365])
def test_a_log_whose_days_and_months_are_swapped_is_told_in_two_lines(num_days: int) -> None:
    days = after(date(2017, 1, 1), num_days)
    days = sorted(date(2017, day.day, day.month) for day in days if day.day <= 12)
    hint, few = told_of(days)
    assert "day and month swapped?" in hint and "in 12 months from 2017-01-01 to 2017-12-" in hint
    num_missing = (days[-1] - days[0]).days + 1 - len(days)
    first = "2017-01-04" if num_days == 90 else "2017-01-13"
    assert few.startswith(f"impressions: {first} has 0 rows")
    assert few.endswith(f" (and {num_missing - 1} more days to 2017-11-30)")


@pytest.mark.parametrize(("num_months", "num_days"), [(2, 12), (3, 13)])
def test_other_days_are_no_hint(num_months: int, num_days: int) -> None:
    """Of only two months, or with a 13th."""
    months = range(1, num_months + 1)
    days = [day for month in months for day in after(date(2017, month, 1), num_days)]
    assert not any("swapped" in text for text in told_of(days))


@pytest.mark.parametrize(("num_missing", "num_lines"), [(5, 5), (6, 1)])
def test_up_to_five_days_are_told_one_by_one(num_missing: int, num_lines: int) -> None:
    days = after(date(2017, 1, 1), 40)
    assert len(told_of(days[:10] + days[10 + num_missing :])) == num_lines


@pytest.mark.parametrize(
    ("silent", "empty", "is_told"),
    [(3, range(13, 24), True), (4, range(13, 24), False), (3, range(0, 24, 5), False)],
)
def test_hours_are_told_together_unless_their_labels_may_still_come(
    silent: int, empty: range, is_told: bool
) -> None:
    """The last day's label window reaches beyond the log; hours far apart are empty by chance."""
    days, of_days = after(date(2026, 1, 1), 5), {}
    for number, day in enumerate(days):
        labelled = {str(h): 0 if number == silent and h in empty else 10 for h in range(24)}
        more = {"impressions.hour": dict.fromkeys(labelled, 100), "labelled.hour": labelled}
        of_days[day] = day_of(2400, {"like": 240}, {"like": 240}, **more)
    told = [p.day for p in judged(of_days).problems if p.rule == "hours_without_actions"]
    assert told == ([days[silent]] if is_told else [])
