"""What the times of a log look like where somebody has converted them: a hint, and what it costs.

Each of these logs can be right, and mostly is not. Not for what is missing (`judgements`).
"""

from collections.abc import Iterator
from datetime import date

from pipelines.contracts.time import DAY_MS
from pipelines.event_log.rules import Finding
from pipelines.log_check.found import LogReport, Problem, Severity

LAST_MONTH = 12
"""No month has a higher number: where no day has, days and months may have changed places."""
FEWEST_MONTHS = 3
FEWEST_ROWS, FEWEST_DAYS = 20, 2
"""Of fewer rows or days, it may be chance that all have one time of day or one lag."""


def hints_of(report: LogReport) -> Iterator[Problem]:
    """Yield what looks as if days or times of day were not read as they were meant."""
    yield from _swapped(report)
    for table, total, days in (
        ("impressions", report.shown, report.exposures),
        ("actions", report.acted, report.deeds),
    ):
        if total.lags.sum() < FEWEST_ROWS or len(days) < FEWEST_DAYS:
            continue
        if total.min_time_of_day_ms == total.max_time_of_day_ms:
            yield Problem(Severity.NOTE, _one_time(table, total.min_time_of_day_ms))
        if table == "actions" and total.max_lag_ms == 0:
            yield Problem(Severity.NOTE, _known_at_once(report))


def _swapped(report: LogReport) -> Iterator[Problem]:
    """Yield that impressions fall on the first 12 days of their months alone."""
    days = sorted(day for day, found in report.exposures.items() if found.rows)
    months = {(day.year, day.month) for day in days}
    if len(months) < FEWEST_MONTHS or any(day.day > LAST_MONTH for day in days):
        return
    problem = (
        f"impressions: all are of the days 1 to {LAST_MONTH} of their months, in {len(months)} "
        f"months from {days[0]} to {days[-1]}: day and month swapped?"
    )
    example = date(2017, 4, 3)
    yield Problem(
        Severity.WARNING,
        Finding(
            "days_1_to_12",
            "",
            problem,
            f"days of the whole month, such as {example} for the {example:%-d}rd of {example:%B}",
            "read the dates of your tables with their format (%d/%m/%Y or %m/%d/%Y), and write the "
            "log anew",
            table="impressions",
        ),
    )


def _one_time(table: str, time_ms: int) -> Finding:
    """Return what is said of a table whose rows all have one time of day."""
    seconds, ms = divmod(time_ms % DAY_MS, 1000)
    hour, minute, second = seconds // 3600, seconds // 60 % 60, seconds % 60
    clock = f"{hour:02}:{minute:02}:{second:02}" + (f".{ms:03}" if ms else "")
    return Finding(
        "one_time_of_day",
        "",
        f"{table}: all at {clock} UTC: the log has days only, and the order within a day is "
        f"unknown",
        "the time at which each of them happened",
        "write the times, or keep in mind that a request knows of its own day only what has an "
        "earlier time",
        table=table,
    )


def _known_at_once(report: LogReport) -> Finding:
    """Return what is said of actions that are known in the instant in which they happen."""
    also = ", and impressions too" if report.shown.max_lag_ms == 0 else ""
    return Finding(
        "known_at_once",
        "",
        f"actions: known at once, known_at is acted_at in all {report.acted.rows:,} rows{also}; a "
        f"model is then trained on fresher sequences than serving will have",
        "known_at as the time from which serving could have read the row",
        "write when each row was known, or add the usual delay of your pipeline",
        table="actions",
    )
