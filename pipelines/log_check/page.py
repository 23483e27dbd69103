"""A checked log as one HTML page that reads offline: problems first, then charts, then every day.

Its look is that of the gates' pages (`validation.report`). Not for the terminal (`text`).
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.log_check.judgements import label_rates
from pipelines.log_check.report import (
    LAG_EDGES_MS,
    NUM_LAGS,
    TABLES,
    LogReport,
    Severity,
    binned,
)
from pipelines.log_check.text import length_names, summary_lines, told_problems
from pipelines.storage import translated_errors

if TYPE_CHECKING:
    from markupsafe import Markup

    from validation.report.charts import BarRow, Scale
    from validation.report.days import DayPanels, DayRow

BADGES = {Severity.ERROR: "is-bad", Severity.WARNING: "is-warn", Severity.NOTE: "is-quiet"}
LAG_TICKS_MS = {1e3: "1 s", 6e4: "1 min", 3.6e6: "1 h", 8.64e7: "1 d", 2.592e9: "30 d"}
LAG_SPAN_MS = (100.0, 4e9)
"""Ends of the axis of lags. A shorter lag is drawn at its left end, a longer one at its right."""
MAX_PROBLEMS = 200


@dataclass(frozen=True)
class Drawings:
    """What the page draws; None where there is nothing to draw."""

    counts: "DayPanels"
    shares: "DayPanels"
    lags: "Markup | None"
    lengths: "tuple[BarRow, ...]"


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
    from validation.report.days import day_tables
    from validation.report.pages import environment, within_limit

    told = list(told_problems(report))
    kinds = [kind for kind, _ in told]
    names, rows = sorted(report.total("actions")), _rows(report)
    template = environment().get_template("log_check.html.j2")
    drawings, has_rates = _drawings(report), bool(label_rates(report))
    summary = [line.split(": ", 1) for line in summary_lines(report)]

    def page_of(num_days: int) -> str:
        return template.render(
            report=report,
            errors=kinds.count(Severity.ERROR),
            warnings=kinds.count(Severity.WARNING),
            problems=[(kind, BADGES[kind], text) for kind, text in told[:MAX_PROBLEMS]],
            num_more_problems=len(told[MAX_PROBLEMS:]),
            summary=summary,
            drawings=drawings,
            tables=day_tables(names, rows[len(rows) - num_days :]),
            num_older=len(rows) - num_days,
            has_rates=has_rates,
        )

    return within_limit(page_of, len(rows))


def _rows(report: LogReport) -> "list[DayRow]":
    """Return what the table tells of each day, the oldest first."""
    from validation.report.days import DayRow

    names, rates = sorted(report.total("actions")), label_rates(report)
    rows = []
    for day in sorted(report.days):
        counts = report.of(day, "actions")
        cells = ((counts.get(name, 0), rates.get(name, {}).get(day)) for name in names)
        rows.append(DayRow(str(day), (f"{report.rows(day, 'impressions'):,}",), tuple(cells)))
    return rows


def _drawings(report: LogReport) -> Drawings | None:
    """Return what the page draws; None for a log without impressions."""
    from validation.report.charts import bar_rows
    from validation.report.days import days_scale, drawn_of

    if not report.days_of("impressions"):
        return None
    days = days_scale(set(report.days))
    by_type = report.total("actions")
    names, num_left_out = drawn_of({name: by_type[name] for name in sorted(by_type)})
    lengths = 100 * report.lengths / max(report.lengths.sum(), 1)
    return Drawings(
        counts=_counts(report, days, names, num_left_out),
        shares=_shares(report, days, names, num_left_out),
        lags=_lags(report),
        lengths=bar_rows(length_names(), {"ours": lengths.tolist()}, "{:.1f} %".format),
    )


def _counts(
    report: LogReport, days: "Scale", names: tuple[str, ...], num_left_out: int
) -> "DayPanels":
    """Return a panel of the impressions of each day, and one of each action type's actions."""
    from validation.report.days import DayPanels, OfDays, count_panel

    shown, acted = (report.days_of(table) for table in TABLES)
    panels: list[tuple[str, dict[date, float]]] = [
        ("impressions", {day: report.rows(day, "impressions") for day in shown})
    ]
    for name in names:
        panels.append((name, {day: report.of(day, "actions").get(name, 0) for day in acted}))
    drawn = (
        (name, count_panel(f"{name} of each day", days, [OfDays(name, "ours", counts)]))
        for name, counts in panels
    )
    return DayPanels(tuple(drawn), num_left_out)


def _shares(
    report: LogReport, days: "Scale", names: tuple[str, ...], num_left_out: int
) -> "DayPanels":
    """Return a panel of each action type's label rate by day."""
    from validation.report.days import DayPanels, OfDays, share_panel

    rates = label_rates(report)
    drawn = (
        (name, share_panel(f"Share of {name} by day", days, [OfDays(name, "ours", rates[name])]))
        for name in names
        if rates.get(name)
    )
    return DayPanels(tuple(drawn), num_left_out)


def _lags(report: LogReport) -> "Markup | None":
    """Return the share of rows that are known after a time, for impressions and actions."""
    from validation.report.charts import Scale, Series, even_scale, panel

    low, high = np.log10(LAG_SPAN_MS)
    ticks = tuple((float(np.log10(ms)), text) for ms, text in LAG_TICKS_MS.items())
    sides = [
        (table, style, binned(report.total(f"{table}.lag"), NUM_LAGS))
        for table, style in zip(TABLES, ("ours", "theirs"), strict=True)
    ]
    lines = [
        Series(name, style, _known_by(lags), "line") for name, style, lags in sides if lags.any()
    ]
    if not lines:
        return None
    across = Scale("after the event", float(low), float(high), ticks)
    label = "Share of rows by how long after the event they are known"
    return panel(label, across, even_scale("", 0.0, 100.0, " %"), lines)


def _known_by(lags: npt.NDArray[np.int64]) -> tuple[tuple[float, float], ...]:
    """Return (log10 of a time in ms, percent of the rows known by then), where it changes."""
    known = np.round(100 * np.cumsum(lags) / lags.sum(), 1)
    changes = np.flatnonzero(np.diff(known, prepend=-1.0))
    places = np.union1d(changes, np.maximum(changes - 1, 0))  # so that a step stays one
    times = np.log10(np.maximum(LAG_EDGES_MS[places], LAG_SPAN_MS[0]))
    ends = (float(np.log10(LAG_SPAN_MS[1])), float(known[-1]))
    return (*zip(times.tolist(), known[places].tolist(), strict=True), ends)
