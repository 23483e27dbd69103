"""A checked log as one HTML page that reads offline: problems first, then charts of the days.

Its look is that of the gates' pages (`validation.report`). Not for the terminal (`report`).
"""

from collections import Counter
from pathlib import Path

from pipelines.event_log.rules import Severity
from pipelines.log_check.report import LogReport, summary_of, told_problems
from pipelines.storage import translated_errors

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
    """Return the page's HTML: what to look at, totals, and charts of the days."""
    from validation.report.days import count_panel, days_scale, drawn_of, share_panel
    from validation.report.pages import environment

    told, shown, counts = list(told_problems(report)), report.days_of("impressions"), []
    drawn, num_left_out = drawn_of(dict(sorted(report.total("actions").items())))
    rates = {name: each for name, each in report.label_rates().items() if name in drawn and each}
    if shown:
        numbers = {"impressions": {day: report.rows(day, "impressions") for day in shown}}
        for name in drawn:
            of = {day: report.of(day, "actions").get(name, 0) for day in report.days_of("actions")}
            numbers[name] = of
        days = days_scale(report.days)
        counts = [(n, count_panel(f"{n} of each day", days, of)) for n, of in numbers.items()]
        shares = [(n, share_panel(f"Share of {n} by day", days, of)) for n, of in rates.items()]
    kinds = Counter(kind for kind, _ in told)
    return (
        environment()
        .get_template("log_check.html.j2")
        .render(
            report=report,
            errors=kinds[Severity.ERROR],
            warnings=kinds[Severity.WARNING],
            problems=[(kind, BADGES[kind], text) for kind, text in told[:MAX_PROBLEMS]],
            num_more_problems=len(told[MAX_PROBLEMS:]),
            summary=list(summary_of(report)),
            counts=counts,
            shares=shares if shown else [],
            num_left_out=num_left_out,
        )
    )
