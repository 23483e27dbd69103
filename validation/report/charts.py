"""What pages draw: changes with intervals, and small line charts.

Changes are rows that a style sheet lays out: where things stand is a share of a width, so
that one row fits any width and no text of it shrinks. A line chart is a panel of SVG, 320 units
wide, which is about the width of a phone; a page shows it at 0.85 to 1.3 times its size and lets
panels flow side by side. Not for what is drawn of days (`validation.report.days`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from markupsafe import Markup, escape

from pipelines.contracts.reasons import Interval

SPANS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
"""Half-widths of the axis of changes. The last is the largest, and what lies beyond it is drawn at
the edge; without this bound one wide interval would squeeze all others."""
WIDTH, PLOT_HEIGHT = 320, 180
LEFT, RIGHT, TOP, BOTTOM, LABEL = 52, 12, 10, 26, 20
_X = WIDTH - LEFT - RIGHT
END_SHARE = 0.9
"""A mark of the horizontal axis beyond this share of it ends where the panel ends."""


class Track(NamedTuple):
    """Where an interval stands on an axis, in percent of its width."""

    low: float
    middle: float
    high: float


class Axis(NamedTuple):
    """An axis of changes around zero."""

    span: float
    margin: float | None  # Where the margin stands, in percent; None: there is none.
    ticks: tuple[tuple[float, str], ...]  # (percent of the width, what stands there)

    def track(self, change: Interval) -> Track:
        """Return where a change stands; what lies beyond the axis is drawn at its edge."""
        numbers = (change.low, change.value, change.high)
        return Track(*(_percent_of(number, self.span) for number in numbers))


def axis_of(changes: Sequence[Interval], needed: float = 0.0) -> Axis:
    """Return the axis that all changes share: a round share that holds intervals and margin.

    Args:
        changes: What is drawn on it.
        needed: What a change must exceed, as a share; 0: no margin is drawn.
    """
    reach = max((max(abs(change.low), abs(change.high)) for change in changes), default=0.0)
    wanted = max(reach, abs(needed) * 1.5)
    span = next((span for span in SPANS if wanted <= span), SPANS[-1])
    shares = [span * step / 2 for step in range(-2, 3)]
    ticks = tuple(
        (_percent_of(share, span), f"{100 * share:+g} %" if share else "0 %") for share in shares
    )
    return Axis(span, _percent_of(needed, span) if needed else None, ticks)


def _percent_of(number: float, span: float) -> float:
    return round(50 + 50 * min(max(number / span, -1.0), 1.0), 2)


def change_with_interval(change: Interval) -> str:
    """Return a change for the end of its row: '+1.20 % (-0.10 to +2.50)'."""
    numbers = (100 * change.value, 100 * change.low, 100 * change.high)
    return "{:+.2f} % ({:+.2f} to {:+.2f})".format(*numbers)


class Series(NamedTuple):
    """One line of a panel: `style` is a class of the style sheet.

    Bars stand on zero, a unit of the axis wide; a place that no point has stays empty.
    """

    style: str  # 'ours', 'theirs', 'bad' or 'guide'
    points: tuple[tuple[float, float], ...]
    shape: Literal["marks", "line", "bars"] = "marks"  # 'marks': a line with one at each point


class Scale(NamedTuple):
    """An axis: its ends, and (place, what stands there) pairs."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """Return where a value stands between the ends, from 0 to 1."""
        reach = self.high - self.low
        return min(max((value - self.low) / reach, 0.0), 1.0) if reach else 0.5


def even_scale(label: str, low: float, high: float, suffix: str = "") -> Scale:
    """Return an axis with three marks: both ends and the middle."""
    marks = (low, (low + high) / 2, high)
    texts = (f"{mark:.0f}" if abs(mark) >= 10 else f"{mark:.2g}" for mark in marks)
    return Scale(label, low, high, tuple(zip(marks, (t + suffix for t in texts), strict=True)))


def scale_from_zero(
    high: float, least: float, say: Callable[[float], str], label: str = ""
) -> Scale:
    """Return an axis with three marks, whose end is a round number that can be halved: 0, 3, 6.

    Args:
        high: It reaches at least so far.
        least: The same, where that is further.
        say: Names a mark.
        label: What stands at the axis.
    """
    high = max(high, least)
    step = 10.0 ** math.floor(math.log10(high))
    end = next(round(step * times, 12) for times in (1, 2, 4, 6, 8, 10) if high <= step * times)
    return Scale(label, 0.0, end, tuple((mark, say(mark)) for mark in (0.0, end / 2, end)))


def in_short(count: float) -> str:
    """Return a count in four letters or so: 950 -> '950', 1200000 -> '1.2M'."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"


def panel(
    label: str, x: Scale, y: Scale, series: Sequence[Series], plot_height: int = PLOT_HEIGHT
) -> Markup:
    """Return a panel as SVG.

    Args:
        label: What it shows, for those who do not see it.
        x: The horizontal axis.
        y: The vertical axis.
        series: Its lines; a later one is drawn over an earlier one.
        plot_height: Of the part between the axes' ends, in units of which a panel is 320 wide.
    """
    base = TOP + plot_height
    height = base + BOTTOM + (LABEL if x.label else 0)

    def across(value: float) -> float:
        return round(LEFT + _X * x.share(value), 1)

    def up(value: float) -> float:
        return round(TOP + plot_height * (1 - y.share(value)), 1)

    parts = [f'<svg class="panel" role="img" aria-label="{escape(label)}" ']
    parts.append(f'viewBox="0 0 {WIDTH} {height}">')
    for value, text in y.ticks:
        at = up(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:g}" class="end">{escape(text)}</text>')
    for value, text in x.ticks:
        # What stands at the right end may not be cut off.
        style, shift = ("end", RIGHT - 2) if x.share(value) > END_SHARE else ("mid", 0)
        at = across(value) + shift
        parts.append(f'<text x="{at:g}" y="{base + 20}" class="{style}">{escape(text)}</text>')
    if x.label:
        middle = f'x="{LEFT + _X / 2:g}" y="{base + 39}" class="mid"'
        parts.append(f"<text {middle}>{escape(x.label)}</text>")
    for each in series:
        places = [(across(a), up(v)) for a, v in each.points]
        if each.shape == "bars":
            parts.append(_bars(each.style, base, round(_X / (x.high - x.low), 2), places))
        else:
            parts.append(_line(each, places))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - what others wrote was escaped above


def _line(series: Series, places: list[tuple[float, float]]) -> str:
    path = "L".join(f"{across:g} {up:g}" for across, up in places)
    names = f"{series.style} line" if series.shape == "line" else series.style
    drawn = [f'<g class="{names}"><path d="M{path}"/>'] if places else ["<g>"]
    if series.shape == "line":
        pass
    elif series.style in ("theirs", "bad"):
        drawn += (f'<rect x="{a - 3:g}" y="{u - 3:g}" width="6" height="6"/>' for a, u in places)
    elif series.style != "guide":
        drawn += (f'<circle cx="{a:g}" cy="{u:g}" r="3.5"/>' for a, u in places)
    return "".join((*drawn, "</g>"))


def _bars(style: str, base: int, width: float, places: list[tuple[float, float]]) -> str:
    """Draw all bars as one path of thick strokes: a rectangle for each would weigh four times."""
    path = "".join(f"M{across:g} {base}V{up:g}" for across, up in places)
    return f'<g class="{style} bars"><path d="{path}" style="stroke-width:{width:g}"/></g>'
