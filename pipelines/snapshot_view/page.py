"""A snapshot as one HTML page that reads offline: what it is, charts, numbers, every day.

Its look is that of the gates' pages (`validation.report`). Not for the terminal (`text`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.snapshot_view.facts import SnapshotFacts
from pipelines.snapshot_view.figures import figures_of, readable_bytes, settings_of
from pipelines.snapshot_view.text import length_names
from pipelines.storage import translated_errors

if TYPE_CHECKING:
    from markupsafe import Markup

    from validation.report.bar_rows import BarRow
    from validation.report.day_panels import DayPanels
    from validation.report.day_tables import DayRow
    from validation.report.panels import Scale

STYLES = {"training": "ours", "holdout": "theirs"}


@dataclass(frozen=True)
class Drawings:
    """What the page draws; None where no window has a day."""

    examples: "Markup | None"
    rates: "DayPanels | None"
    lengths: "tuple[BarRow, ...]"
    sizes: "tuple[BarRow, ...]"


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
    from validation.report.data_docs import environment
    from validation.report.day_tables import day_tables
    from validation.report.page_size import within_limit

    heads, rows = sorted(facts.snapshot.features.head_names), _rows(facts)
    template = environment().get_template("snapshot.html.j2")
    drawings = _drawings(facts)

    def page_of(num_days: int) -> str:
        return template.render(
            snapshot=facts.snapshot,
            headline=_headline(facts),
            settings=settings_of(facts.snapshot).items(),
            figures=figures_of(facts),
            drawings=drawings,
            tables=day_tables(heads, rows[len(rows) - num_days :]),
            num_older=len(rows) - num_days,
        )

    return within_limit(page_of, len(rows))


def _headline(facts: SnapshotFacts) -> list[tuple[str, str]]:
    """Return what stands above all else: how much there is."""
    examples = [(f"{each.name} examples", each.whole.examples) for each in facts.windows]
    size = readable_bytes(sum(facts.num_bytes.values()))
    return [*((name, f"{count:,}") for name, count in examples), ("size", size)]


def _rows(facts: SnapshotFacts) -> "list[DayRow]":
    """Return what the table tells of each day, the oldest first."""
    from validation.report.day_tables import DayRow

    heads = sorted(facts.snapshot.features.head_names)
    return [
        DayRow(
            str(day),
            (window.name, f"{counts.requests:,}", f"{counts.examples:,}"),
            tuple((counts.positives[head], counts.rate(head)) for head in heads),
        )
        for window in facts.windows
        for day, counts in window.by_day.items()
    ]


def _drawings(facts: SnapshotFacts) -> Drawings:
    """Return what the page draws."""
    from validation.report.bar_rows import bar_rows
    from validation.report.day_panels import OfDays, count_panel, days_scale

    dates = {day for window in facts.windows for day in window.by_day}
    examples = [
        OfDays(
            window.name,
            STYLES[window.name],
            {day: counts.examples for day, counts in window.by_day.items()},
        )
        for window in facts.windows
    ]
    lengths = {
        STYLES[window.name]: [100 * num / max(window.whole.requests, 1) for num in window.lengths]
        for window in facts.windows
    }
    sizes = dict(sorted(facts.num_bytes.items()))
    days = days_scale(dates) if dates else None
    return Drawings(
        examples=count_panel("Examples of each day", days, examples) if days else None,
        rates=_rates(facts, days) if days else None,
        lengths=bar_rows(length_names(), lengths, "{:.1f} %".format),
        sizes=bar_rows(list(sizes), {"ours": list(sizes.values())}, readable_bytes),
    )


def _rates(facts: SnapshotFacts, days: "Scale") -> "DayPanels":
    """Return a panel of each head's label rate by day, in both windows."""
    from validation.report.day_panels import DayPanels, OfDays, drawn_of, share_panel

    names = sorted(facts.snapshot.features.head_names)
    totals = {name: sum(each.whole.positives[name] for each in facts.windows) for name in names}
    shown, num_left_out = drawn_of(totals)
    drawn = []
    for head in shown:
        lines = [
            OfDays(
                window.name,
                STYLES[window.name],
                {
                    day: rate
                    for day, counts in window.by_day.items()
                    if (rate := counts.rate(head)) is not None
                },
            )
            for window in facts.windows
        ]
        drawn.append((head, share_panel(f"Share of examples with {head} by day", days, lines)))
    return DayPanels(tuple(drawn), num_left_out)
