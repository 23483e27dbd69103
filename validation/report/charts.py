"""Wide drawings of one look, as SVG inside a page that is not the verdict's.

What is drawn is the page's own affair. Not for the verdict's drawings (`validation.report.plots`).
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from validation.report.plots import inline_svg

Subject = TypeVar("Subject")
WIDTH_IN = 10.0
GRID = "#d8dee4"


def inline_charts(
    charts: Mapping[str, tuple[float, Callable[[Figure, Subject], None]]], subject: Subject
) -> list[tuple[str, Markup]]:
    """Return each drawing's title and SVG.

    Args:
        charts: by title, the height in inches and what draws into an empty figure of it.
        subject: what the drawings show; names in it are texts, whatever they hold.
    """
    made = []
    with rc_context({"text.parse_math": False}):  # a name with two dollar signs is no formula
        for title, (height_in, draw) in charts.items():
            figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
            draw(figure, subject)
            for axes in figure.axes:
                axes.spines[["top", "right"]].set_visible(False)
                axes.grid(axis="y", color=GRID, linewidth=0.6)
                axes.set_axisbelow(True)
            made.append((title, inline_svg(figure, title)))
    return made
