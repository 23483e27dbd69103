"""What pages draw: changes with intervals, and small line charts.

Changes are rows that a style sheet lays out: where things stand is a share of a width, so
that one row fits any width and no text of it shrinks. A line chart is a panel of SVG, 320 units
wide, which is about the width of a phone; a page shows it at 0.85 to 1.3 times its size and lets
panels flow side by side.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from statistics import median
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
MAX_PANELS = 12
"""Of days, on a page; of more, those of the most rows are drawn, and the rest is counted."""
DAYS_HEIGHT = 110
FEWEST_SLOTS = 3
"""An axis has room for as many days, so that one day alone is a bar and no wall."""
FEWEST_MARKED = 5
"""Of fewer days, the middle one has no room for its name."""
SMALLEST_TOP = 0.001
"""Percent that an axis of shares reaches at least."""

Style = Literal["ours", "theirs", "guide", "bars"]
"""A class of the style sheet: lines with a mark at each point, one without, and bars from zero."""
Points = Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """An axis of changes around zero."""

    span: float
    margin: float | None  # Where the margin stands, in percent; None: there is none.
    ticks: tuple[tuple[float, str], ...]  # (percent of the width, what stands there)

    def track(self, change: Interval) -> tuple[float, ...]:
        """Return where low end, change and high end stand, in percent of the width.

        What lies beyond the axis is drawn at its edge, 0 or 100, where a page marks the cut.
        """
        numbers = (change.low, change.value, change.high)
        return tuple(_percent_of(number, self.span) for number in numbers)


def axis_of(changes: Sequence[Interval], needed: float = 0.0) -> Axis:
    """Return the axis that all changes share: a round share that holds intervals and margin.

    An interval that reaches three times as far as the middle one does not squeeze the others: it is
    cut at the edge, with a mark.

    Args:
        changes: What is drawn on it.
        needed: What a change must exceed, as a share; 0: no margin is drawn.
    """
    reaches = [max(abs(change.low), abs(change.high)) for change in changes] or [0.0]
    wanted = max(min(max(reaches), 3 * median(reaches)), abs(needed) * 1.5)
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


def scale_from_zero(high: float, least: float, label: str = "") -> Scale:
    """Return an axis with three marks, whose end is a round number that can be halved: 0, 3, 6.

    Args:
        high: It reaches at least so far.
        least: The same, where that is further.
        label: What stands at the axis.
    """
    high = max(high, least)
    step = 10.0 ** math.floor(math.log10(high))
    end = next(round(step * times, 12) for times in (1, 2, 4, 6, 8, 10) if high <= step * times)
    return Scale(label, 0.0, end, tuple((mark, in_short(mark)) for mark in (0.0, end / 2, end)))


def in_short(count: float) -> str:
    """Return a count in four letters or so: 950 -> '950', 1200000 -> '1.2M'."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"


def panel(
    label: str, x: Scale, y: Scale, series: Mapping[Style, Points], plot_height: int = PLOT_HEIGHT
) -> Markup:
    """Return a panel as SVG.

    Args:
        label: What it shows, for those who do not see it.
        x: The horizontal axis.
        y: The vertical axis.
        series: Its points by how they are drawn; a later one is drawn over an earlier one.
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
    for name, points in series.items():
        places = [(across(a), up(v)) for a, v in points]
        if name == "bars":
            # One path of thick strokes: a rectangle for each would weigh four times.
            path = "".join(f"M{a:g} {base}V{u:g}" for a, u in places)
            width = f'style="stroke-width:{_X / (x.high - x.low):.2f}"'
            parts.append(f'<g class="ours bars"><path d="{path}" {width}/></g>')
            continue
        path = "L".join(f"{a:g} {u:g}" for a, u in places)
        parts.append(f'<g class="{name}"><path d="M{path}"/>')
        if name == "theirs":
            sides = 'width="6" height="6"'
            parts += (f'<rect x="{a - 3:g}" y="{u - 3:g}" {sides}/>' for a, u in places)
        elif name == "ours":
            parts += (f'<circle cx="{a:g}" cy="{u:g}" r="3.5"/>' for a, u in places)
        parts.append("</g>")
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - what others wrote was escaped above


def days_scale(days: Collection[date]) -> Scale:
    """Return the axis of days, which all panels of a page share; its unit is a day."""
    first, last = min(days).toordinal(), max(days).toordinal()
    num = last - first + 1
    reach, middle = max(num, FEWEST_SLOTS) / 2, (first + last) / 2
    marked = {first, last} | ({(first + last) // 2} if num >= FEWEST_MARKED else set())
    ticks = tuple((float(mark), date.fromordinal(mark).isoformat()) for mark in sorted(marked))
    return Scale("", middle - reach, middle + reach, ticks)


def day_panel(
    label: str, days: Scale, numbers: Mapping[date, float], is_share: bool = False
) -> Markup:
    """Return a panel with a bar for each day, from zero; shares, from 0 to 1, are in percent."""
    factor, least = (100, SMALLEST_TOP) if is_share else (1, 2)
    bars = [(float(day.toordinal()), factor * float(of)) for day, of in numbers.items()]
    up = scale_from_zero(max((height for _, height in bars), default=0), least)
    return panel(label, days, up, {"bars": bars}, DAYS_HEIGHT)


def drawn_of(names: Mapping[str, float]) -> tuple[tuple[str, ...], int]:
    """Return which names have a panel of days, in their order, and how many have none.

    A panel for each, and not one drawing of all: a rare action type has its own scale, so that its
    fall is seen, and forty names need no forty colours.

    Args:
        names: How many rows each has.
    """
    most = sorted(names, key=lambda name: -names[name])[:MAX_PANELS]
    return tuple(name for name in names if name in most), len(names) - len(most)
