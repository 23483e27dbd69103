"""The page of a checked log: what is left out of a large one."""

from datetime import date

from pipelines.log_check.report import LogReport, render
from support.data_pages import MANY, day_of, report_of
from validation.report.charts import MAX_PANELS


def test_a_year_of_forty_types_is_light_and_says_how_many_are_not_drawn() -> None:
    page = render(report_of("huge"))
    assert len(page.encode()) <= 300_000
    assert page.count(f"{len(MANY) - MAX_PANELS} rarer ones are not drawn") == 2
    assert "not drawn" not in render(report_of("usual"))


def test_a_log_without_impressions_has_no_charts() -> None:
    report = LogReport("file:///w/log", "", 24)
    report.days[date(2017, 1, 1)] = day_of(acted={"save": 3})
    page = render(report)
    assert "<svg" not in page and "3 on 1 days: save 3" in page
