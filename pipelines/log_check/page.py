"""A checked log as one HTML page that reads offline: problems first, then plots, then every day.

Its look is that of the gates' pages (`validation.report`). Not for the terminal (`text`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.log_check.found import LAG_EDGES_MS, LENGTH_EDGES, Deeds, LogReport, Severity
from pipelines.log_check.judgements import label_rates
from pipelines.log_check.text import summary_lines, told_problems
from pipelines.storage import translated_errors

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0550ae", "#a40e26", "#116329", "#7d4e00", "#8250df", "#59636e")
BADGES = {Severity.ERROR: "is-bad", Severity.WARNING: "is-warn", Severity.NOTE: "is-quiet"}
LAG_TICKS_MS = {1e3: "1 s", 6e4: "1 min", 3.6e6: "1 h", 8.64e7: "1 d", 2.592e9: "30 d"}


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
    """Return the page's HTML."""
    from validation.report.data_docs import environment

    told = list(told_problems(report))
    kinds = [kind for kind, _ in told]
    rates = label_rates(report)
    days = sorted({*report.exposures, *report.deeds})
    names = sorted(report.acted.by_type)
    rows = [
        (
            day,
            report.exposures[day].rows if day in report.exposures else 0,
            [report.deeds.get(day, Deeds()).by_type.get(name, 0) for name in names],
            [rates[name].get(day) for name in names if name in rates],
        )
        for day in days
    ]
    return (
        environment()
        .get_template("log_check.html.j2")
        .render(
            report=report,
            errors=kinds.count(Severity.ERROR),
            warnings=kinds.count(Severity.WARNING),
            problems=[(kind, BADGES[kind], text) for kind, text in told],
            summary=[line.split(": ", 1) for line in summary_lines(report)],
            drawings=_drawings(report) if report.exposures else [],
            names=names,
            rows=rows,
            has_rates=bool(rates),
        )
    )


def _drawings(report: LogReport) -> "list[tuple[str, Markup]]":
    """Return each drawing's title and SVG."""
    from validation.report.charts import inline_charts

    charts = {
        "Rows of each day": (4.2, draw_days),
        "Share of a day's impressions that got each action": (2.8, draw_rates),
        "How long after it happens a row is known": (2.8, draw_lags),
        "Earlier actions of a request's user": (2.6, draw_lengths),
    }
    return inline_charts(charts, report)


def draw_days(figure: "Figure", report: LogReport) -> None:
    """Draw impressions, and below them actions by type, of each day."""
    above, below = figure.subplots(2, 1, sharex=True)
    days = sorted(report.exposures)
    above.bar(days, [report.exposures[day].rows for day in days], color=COLOURS[0], width=0.9)
    above.set_ylabel("impressions")
    base, days = np.zeros(len(report.deeds)), sorted(report.deeds)
    bars: dict[str, Any] = {}
    for place, name in enumerate(sorted(report.acted.by_type)):
        counts = np.array([report.deeds[day].by_type.get(name, 0) for day in days])
        colour = COLOURS[place % len(COLOURS)]
        bars[name] = below.bar(days, counts, bottom=base, color=colour, width=0.9)
        base = base + counts
    below.set_ylabel("actions")
    if days:
        _legend(below, bars)
        below.set_ylim(0, max(base.max() * 1.25, 1))


def draw_rates(figure: "Figure", report: LogReport) -> None:
    """Draw each action type's label rate by day."""
    axes, lines = figure.subplots(), {}
    for place, (name, rates) in enumerate(label_rates(report).items()):
        days = sorted(rates)
        shares = [100 * rates[day] for day in days]
        colour = COLOURS[place % len(COLOURS)]
        [lines[name]] = axes.plot(
            np.array(days, "datetime64[D]"),
            shares,
            color=colour,
            marker="o",
            markersize=3,
            linewidth=1.2,
        )
    axes.set_ylabel("% of impressions")
    axes.set_ylim(bottom=0)
    if lines:
        _legend(axes, lines)
        axes.set_ylim(top=axes.get_ylim()[1] * 1.2)


def draw_lags(figure: "Figure", report: LogReport) -> None:
    """Draw the share of rows that are known after a time, for impressions and actions."""
    axes = figure.subplots()
    edges = np.maximum(LAG_EDGES_MS, 100)
    for colour, (name, lags) in zip(
        COLOURS, (("impressions", report.shown.lags), ("actions", report.acted.lags)), strict=False
    ):
        if lags.any():
            axes.plot(edges, 100 * np.cumsum(lags) / lags.sum(), label=name, color=colour)
    axes.set_xscale("log")
    axes.set_xlim(100, 4e9)
    axes.set_xticks(list(LAG_TICKS_MS), list(LAG_TICKS_MS.values()))
    axes.minorticks_off()
    axes.set_ylabel("% of rows known by then")
    axes.set_ylim(0, 102)
    if axes.lines:
        axes.legend(loc="lower right", frameon=False)


def draw_lengths(figure: "Figure", report: LogReport) -> None:
    """Draw the share of requests by the number of their user's earlier actions."""
    axes = figure.subplots()
    counts = report.sequence_lengths
    edges = [int(edge) for edge in LENGTH_EDGES]
    names = [str(low) if high == low + 1 else f"{low} to {high - 1}"
             for low, high in zip(edges, edges[1:], strict=False)]  # fmt: skip
    shares = 100 * counts / max(counts.sum(), 1)
    axes.bar([*names, f"{edges[-1]}+"], shares, color=COLOURS[0])
    axes.set_ylabel("% of requests")


def _legend(axes: "Axes", drawn: dict[str, Any]) -> None:
    """Name what is drawn. Matplotlib itself leaves out names that begin with `_`."""
    axes.legend(
        drawn.values(), drawn.keys(), loc="upper left", ncols=6, fontsize="small", frameon=False
    )
