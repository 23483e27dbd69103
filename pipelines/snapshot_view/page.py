"""A snapshot as one HTML page that reads offline: what it is, charts, numbers, every day.

Its look is that of the gates' pages (`validation.report`). Not for the terminal (`text`).
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.snapshot_view.facts import (
    Counts,
    SnapshotFacts,
    figures_of,
    readable_bytes,
    settings_of,
)
from pipelines.snapshot_view.text import length_names
from pipelines.storage import translated_errors

STYLES = {"training": "ours", "holdout": "theirs"}


def write_page(facts: SnapshotFacts, path: Path) -> None:
    """Write the page to a file, whose folder is made where it is missing.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    html = render(facts)
    with translated_errors(path.resolve().as_uri(), "writing"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, "utf-8")


def render(facts: SnapshotFacts) -> str:
    """Return the page's HTML, of at most 300 kB; where it would have more, older days lack."""
    from validation.report.days import DayRow, day_tables
    from validation.report.pages import environment, within_limit

    heads, windows = sorted(facts.snapshot.features.head_names), facts.windows
    rows = [
        DayRow(
            str(day),
            (window.name, f"{counts.requests:,}", f"{counts.examples:,}"),
            tuple((counts.positives[head], counts.rate(head)) for head in heads),
        )
        for window in windows
        for day, counts in window.by_day.items()
    ]
    size = readable_bytes(sum(facts.num_bytes.values()))
    headline = [(f"{each.name} examples", f"{each.whole.examples:,}") for each in windows]
    template, drawings = environment().get_template("snapshot.html.j2"), _drawings(facts, heads)

    def page_of(num_days: int) -> str:
        return template.render(
            snapshot=facts.snapshot,
            headline=[*headline, ("size", size)],
            settings=settings_of(facts.snapshot).items(),
            figures=figures_of(facts),
            drawings=drawings,
            tables=day_tables(heads, rows[len(rows) - num_days :]),
            num_older=len(rows) - num_days,
        )

    return within_limit(page_of, len(rows))


def _drawings(facts: SnapshotFacts, heads: list[str]) -> dict[str, Any]:
    """Return what the page draws: bars, and where a window has a day, panels of days."""
    from validation.report import days as day_panels
    from validation.report.charts import bar_rows

    windows, sizes = facts.windows, facts.num_bytes
    lengths = {
        STYLES[each.name]: (100 * each.lengths / max(each.whole.requests, 1)).tolist()
        for each in windows
    }
    drawn: dict[str, Any] = {
        "examples": None,
        "lengths": bar_rows(length_names(), lengths, "{:.1f} %".format),
        "sizes": bar_rows(list(sizes), {"ours": list(sizes.values())}, readable_bytes),
    }
    if not any(window.by_day for window in windows):
        return drawn

    def of_days(number: Callable[[Counts], float | None]) -> list[day_panels.OfDays]:
        """Return a number of each day that has it, in both windows."""
        return [
            day_panels.OfDays(
                window.name,
                STYLES[window.name],
                {d: n for d, each in window.by_day.items() if (n := number(each)) is not None},
            )
            for window in windows
        ]

    days = day_panels.days_scale({day for window in windows for day in window.by_day})
    totals = {head: sum(each.whole.positives[head] for each in windows) for head in heads}
    shown, num_left_out = day_panels.drawn_of(totals)
    rates = [
        (
            head,
            day_panels.share_panel(
                f"Share of examples with {head} by day",
                days,
                of_days(functools.partial(Counts.rate, head=head)),
            ),
        )
        for head in shown
    ]
    examples = of_days(lambda counts: counts.examples)
    return drawn | {
        "examples": day_panels.count_panel("Examples of each day", days, examples),
        "rates": day_panels.DayPanels(tuple(rates), num_left_out),
    }
