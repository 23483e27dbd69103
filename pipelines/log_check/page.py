"""A checked log as one HTML page that reads offline: problems first, then charts, then every day.

Its look is that of the gates' pages (`validation.report`). Not for the terminal (`report`).
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.event_log.rules import Severity
from pipelines.log_check.report import LogReport, summary_of, told_problems
from pipelines.storage import translated_errors

if TYPE_CHECKING:
    from validation.report.days import DayPanels

BADGES = {Severity.ERROR: "is-bad", Severity.WARNING: "is-warn", Severity.NOTE: "is-quiet"}
MAX_PROBLEMS = 200


def write_page(report: LogReport, path: Path) -> None:
    """Write the page to a file, whose folder is made where it is missing.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    html = render(report)
    with translated_errors(path.resolve().as_uri(), "writing"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, "utf-8")


def render(report: LogReport) -> str:
    """Return the page's HTML, of at most 300 kB; where it would have more, older days lack."""
    from validation.report.days import DayRow, day_tables
    from validation.report.pages import environment, within_limit

    told, rates, rows = list(told_problems(report)), report.label_rates(), []
    kinds, names = Counter(kind for kind, _ in told), sorted(report.total("actions"))
    for day in sorted(report.days):
        counts = report.of(day, "actions")
        cells = ((counts.get(name, 0), rates.get(name, {}).get(day)) for name in names)
        rows.append(DayRow(str(day), (f"{report.rows(day, 'impressions'):,}",), tuple(cells)))
    facts = {
        "report": report,
        "errors": kinds[Severity.ERROR],
        "warnings": kinds[Severity.WARNING],
        "problems": [(kind, BADGES[kind], text) for kind, text in told[:MAX_PROBLEMS]],
        "num_more_problems": len(told[MAX_PROBLEMS:]),
        "summary": list(summary_of(report)),
        "panels": _panels(report) if report.days_of("impressions") else None,
        "has_rates": bool(rates),
    }
    template = environment().get_template("log_check.html.j2")
    return within_limit(
        lambda num_days: template.render(
            facts,
            tables=day_tables(names, rows[len(rows) - num_days :]),
            num_older=len(rows) - num_days,
        ),
        len(rows),
    )


def _panels(report: LogReport) -> "tuple[DayPanels, DayPanels]":
    """Return panels of each day's impressions and actions, and of each action type's label rate."""
    from validation.report.days import (
        DayPanels,
        count_panel,
        days_scale,
        drawn_of,
        share_panel,
    )

    acted, by_type = report.days_of("actions"), report.total("actions")
    days = days_scale(report.days)
    names, num_left_out = drawn_of({name: by_type[name] for name in sorted(by_type)})
    shown = {day: report.rows(day, "impressions") for day in report.days_of("impressions")}
    counts = {n: {day: report.of(day, "actions").get(n, 0) for day in acted} for n in names}
    of_counts = [
        (name, count_panel(f"{name} of each day", days, numbers))
        for name, numbers in {"impressions": shown, **counts}.items()
    ]
    of_rates = [
        (name, share_panel(f"Share of {name} by day", days, shares))
        for name, shares in report.label_rates().items()
        if name in names and shares
    ]
    return DayPanels(tuple(of_counts), num_left_out), DayPanels(tuple(of_rates), num_left_out)
