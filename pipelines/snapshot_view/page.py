"""A snapshot as one HTML page that reads offline: what it is, plots, numbers, every day.

Its look is that of the gates' pages (`validation.report`). Not for the terminal (`text`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.snapshot_view.facts import SnapshotFacts, WindowFacts
from pipelines.snapshot_view.figures import figures_of, settings_of
from pipelines.snapshot_view.text import length_names
from pipelines.storage import translated_errors

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

COLOURS = {"training": "#0550ae", "holdout": "#a40e26"}
MARKS = ("o", "s", "^", "D", "v", "P")


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
    """Return the page's HTML."""
    from validation.report.data_docs import environment

    heads = sorted(facts.snapshot.features.head_names)
    days = [
        (day, window.name, counts, [(counts.positives[head], counts.rate(head)) for head in heads])
        for window in facts.windows
        for day, counts in window.by_day.items()
    ]
    return (
        environment()
        .get_template("snapshot.html.j2")
        .render(
            snapshot=facts.snapshot,
            settings=settings_of(facts.snapshot).items(),
            figures=figures_of(facts),
            drawings=_drawings(facts),
            heads=heads,
            days=days,
        )
    )


def _drawings(facts: SnapshotFacts) -> "list[tuple[str, Markup]]":
    """Return each drawing's title and SVG."""
    from validation.report.charts import inline_charts

    charts = {
        "Examples of each day": (2.6, draw_days),
        "Share of a day's examples with each label": (2.8, draw_rates),
        "Known actions of a request's user": (2.6, draw_lengths),
        "Size by kind of file": (2.2, draw_sizes),
    }
    return inline_charts(charts, facts)


def draw_days(figure: "Figure", facts: SnapshotFacts) -> None:
    """Draw the number of examples of each day of both windows."""
    axes = figure.subplots()
    for window in facts.windows:
        counts = [day.examples for day in window.by_day.values()]
        axes.bar(_dates(window), counts, color=COLOURS[window.name], width=0.9, label=window.name)
    axes.set_ylabel("examples")
    axes.set_ylim(top=axes.get_ylim()[1] * 1.2)
    axes.legend(loc="upper left", ncols=2, fontsize="small", frameon=False)


def draw_rates(figure: "Figure", facts: SnapshotFacts) -> None:
    """Draw each head's label rate by day."""
    axes, lines = figure.subplots(), {}
    for place, head in enumerate(sorted(facts.snapshot.features.head_names)):
        for window in facts.windows:
            rates = [100 * (day.rate(head) or 0) for day in window.by_day.values()]
            [line] = axes.plot(
                _dates(window),
                rates,
                color=COLOURS[window.name],
                marker=MARKS[place % len(MARKS)],
                markersize=4,
                linewidth=1.2,
            )
            lines[f"{head}, {window.name}"] = line
    axes.set_ylabel("% of examples")
    axes.set_ylim(bottom=0)
    axes.set_ylim(top=axes.get_ylim()[1] * 1.3)
    # Matplotlib itself leaves out names that begin with `_`.
    axes.legend(
        lines.values(), lines.keys(), loc="upper left", ncols=4, fontsize="small", frameon=False
    )


def draw_lengths(figure: "Figure", facts: SnapshotFacts) -> None:
    """Draw the share of each window's requests by the length of their user's history."""
    axes = figure.subplots()
    places = np.arange(len(length_names()))
    for shift, window in zip((-0.2, 0.2), facts.windows, strict=True):
        shares = 100 * window.lengths / max(window.whole.requests, 1)
        axes.bar(places + shift, shares, 0.4, color=COLOURS[window.name], label=window.name)
    axes.set_xticks(places, length_names(), fontsize="small")
    axes.set_ylabel("% of requests")
    axes.legend(loc="upper left", fontsize="small", frameon=False)


def draw_sizes(figure: "Figure", facts: SnapshotFacts) -> None:
    """Draw how many megabytes each kind of file has."""
    axes = figure.subplots()
    sizes = dict(sorted(facts.num_bytes.items()))
    axes.bar(list(sizes), [size / 1e6 for size in sizes.values()], color=COLOURS["training"])
    axes.set_ylabel("MB")


def _dates(window: WindowFacts) -> np.ndarray:
    return np.array(list(window.by_day), dtype="datetime64[D]")
