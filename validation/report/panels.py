"""Small line charts as SVG for a page: each is drawn for a phone, and panels flow side by side.

A panel is 320 units wide, which is about the width of a phone, and a page shows it at 0.85 to 1.3
times its size: its text stays readable without another drawing for each width. Not for PNG files
(`validation.report.plots`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 320, 236
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 46
_X, _Y = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


@dataclass(frozen=True)
class Series:
    """One line of a panel: `style` is a class of the style sheet."""

    name: str
    style: str  # 'ours', 'theirs', 'bad' or 'guide'
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scale:
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


def round_up(value: float) -> float:
    """Return the next number of two digits, so that an end of an axis reads well: 0.571 -> 0.58."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / step - 1e-9) * step, 12)


def panel(label: str, x: Scale, y: Scale, series: Sequence[Series]) -> Markup:
    """Return a panel as SVG.

    Args:
        label: What it shows, for those who do not see it.
        x: The horizontal axis.
        y: The vertical axis.
        series: Its lines; a later one is drawn over an earlier one.
    """
    parts = [f'<svg class="panel" role="img" aria-label="{escape(label)}" ']
    parts.append(f'viewBox="0 0 {WIDTH} {HEIGHT}">')
    for value, text in y.ticks:
        at = _y(y, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:g}" class="end">{escape(text)}</text>')
    for place, (value, text) in enumerate(x.ticks, 1):
        style = "end" if place == len(x.ticks) else "mid"  # the last one may not be cut off
        at = _x(x, value) + (RIGHT - 2 if style == "end" else 0)
        parts.append(f'<text x="{at:g}" y="{HEIGHT - 26}" class="{style}">{escape(text)}</text>')
    parts.append(
        f'<text x="{LEFT + _X / 2:g}" y="{HEIGHT - 7}" class="mid">{escape(x.label)}</text>'
    )
    parts += (_line(x, y, each) for each in series)
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - what others wrote was escaped above


def _line(x: Scale, y: Scale, series: Series) -> str:
    places = [(_x(x, across), _y(y, up)) for across, up in series.points]
    path = "L".join(f"{across:g} {up:g}" for across, up in places)
    drawn = [f'<g class="{series.style}"><path d="M{path}"/>'] if places else ["<g>"]
    if series.style in ("theirs", "bad"):
        drawn += (f'<rect x="{a - 3:g}" y="{u - 3:g}" width="6" height="6"/>' for a, u in places)
    elif series.style != "guide":
        drawn += (f'<circle cx="{a:g}" cy="{u:g}" r="3.5"/>' for a, u in places)
    return "".join((*drawn, "</g>"))


def _x(scale: Scale, value: float) -> float:
    return round(LEFT + _X * scale.share(value), 1)


def _y(scale: Scale, value: float) -> float:
    return round(TOP + _Y * (1 - scale.share(value)), 1)
