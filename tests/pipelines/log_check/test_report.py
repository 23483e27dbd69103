"""The page of a checked log: what is left out of a large one, and what a bare one still says."""

from datetime import date

from pipelines.event_log.rules import Finding, Severity
from pipelines.log_check.report import MAX_PROBLEMS, LogReport, render
from support.data_pages import MANY, report_of
from support.log_reports import day_of
from validation.report.days import MAX_PANELS


def test_a_year_of_forty_types_is_light_and_says_how_many_are_not_drawn() -> None:
    page = render(report_of("huge"))
    assert len(page.encode()) <= 300_000
    assert page.count(f"{len(MANY) - MAX_PANELS} rarer ones are not drawn") == 2
    assert "not drawn" not in render(report_of("usual"))


def test_of_very_many_problems_the_first_are_shown_and_the_rest_counted() -> None:
    report = report_of("one_day")
    report.problems = [
        Finding("made_up", "", f"thing {number}", "", severity=Severity.NOTE)
        for number in range(MAX_PROBLEMS + 50)
    ]
    page = render(report)
    assert page.count('<span class="badge is-quiet">note</span>') == MAX_PROBLEMS
    assert "50 more are not shown" in page


def test_a_log_without_impressions_has_no_charts() -> None:
    report = LogReport("file:///w/log", "", 24)
    report.days[date(2017, 1, 1)] = day_of(acted={"save": 3})
    page = render(report)
    assert "<svg" not in page and "3 on 1 days: save 3" in page
