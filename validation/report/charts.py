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

from markupsafe import Markup

from pipelines.contracts.reasons import Interval
from validation.report.pages import environment

SPANS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
"""Half-widths of the axis of changes. The last is the largest, and what lies beyond it is drawn at
the edge; without this bound one wide interval would squeeze all others."""
WIDTH, PLOT_HEIGHT = 320, 180
LEFT, RIGHT, TOP = 52, 12, 10
_X = WIDTH - LEFT - RIGHT
MAX_PANELS = 12
"""Of days, on a page; of more, those of the most rows are drawn, and the rest is counted."""
DAYS_HEIGHT = 110
FEWEST_SLOTS = 3
"""An axis has room for as many days, so that one day alone is a bar and no wall."""
FEWEST_MARKED = 5
"""Of fewer days, the middle one has no room for its name."""
SMALLEST_TOP = 0.001
"""Percent that an axis of shares reaches at least."""

MOST_MARKED = 12
"""A line of more points has no marks, which would hide each other."""
MOST_POWERS = 5
"""Of more powers of ten, only some have room for their names."""
SPARK = (1, 2, 118, 22)
"""Left, top, width and height of a small drawing."""

Style = Literal["ours", "theirs", "guide", "bars", "band"]
"""A class of the style sheet: lines with a mark at each point, one without, bars from zero, and
what a line encloses."""
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


class Scale(NamedTuple):
    """An axis: its ends, and (place, what stands there) pairs."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        """Return where a value stands between the ends, from 0 to 1."""
        low, high, at = self.low, self.high, value
        if self.is_log:
            low, high, at = (math.log10(max(each, self.low)) for each in (low, high, value))
        return min(max((at - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def scale_from_zero(high: float, least: float) -> Scale:
    """Return an axis with three marks, whose end is a round number that can be halved: 0, 3, 6.

    It reaches at least so far as `high`, and as `least` where that is further.
    """
    high = max(high, least)
    step = 10.0 ** math.floor(math.log10(high))
    end = next(round(step * times, 12) for times in (1, 2, 4, 6, 8, 10) if high <= step * times)
    return Scale("", 0.0, end, tuple((mark, in_short(mark)) for mark in (0.0, end / 2, end)))


def scale_of_powers(values: Sequence[float], label: str) -> Scale:
    """Return an axis marked at powers of ten; 0, which has no logarithm, is at its lower end."""
    above = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(above))), math.ceil(math.log10(max(above)))
    low = min(low, high - 1)
    powers = range(high, low - 1, -(1 + (high - low) // MOST_POWERS))
    ticks = [(10.0**power, f"{10.0**power:g}") for power in powers]
    if min(values) <= 0:
        ticks.append((10.0 ** (low - 1), "0"))
    return Scale(label, min(ticks[-1][0], 10.0**low), 10.0**high, tuple(ticks), is_log=True)


def scale_around(values: Sequence[float]) -> Scale:
    """Return an axis that holds all values: from zero, or around it, unless all are far from it.

    Those far from zero have their own ends, so that a small move of a large number is seen. The
    marks are so far from each other that three digits tell them apart.
    """
    low, high = min(values), max(values)
    from_zero = scale_from_zero(max(-low, high), SMALLEST_TOP)
    if 0 <= low <= high / 2:
        return from_zero
    if low < 0 <= high:
        low, high = -from_zero.high, from_zero.high
    middle, half = (low + high) / 2, max((high - low) / 2, abs(low + high) / 200)
    ticks = tuple((mark, in_short(mark)) for mark in (middle - half, middle, middle + half))
    return Scale("", middle - half, middle + half, ticks)


def in_short(count: float) -> str:
    """Return a count in four letters or so: 950 -> '950', 1200000 -> '1.2M'."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"


class Drawing(NamedTuple):
    """What a chart shows: large, as a `panel`, or as a `spark` on a line of text."""

    label: str  # What it shows, for those who do not see it.
    x: Scale  # The horizontal axis.
    y: Scale  # The vertical axis.
    # Its points by how they are drawn; a later one is drawn over an earlier one.
    series: Mapping[Style, Points]


def panel(drawn: Drawing, plot_height: int = PLOT_HEIGHT) -> Markup:
    """Return a drawing as SVG with axes; `plot_height` is of the part between the axes' ends."""
    return _svg(drawn, LEFT, TOP, _X, plot_height, is_spark=False)


def spark(drawn: Drawing) -> Markup:
    """Return a drawing without axes, for a line whose text says what it shows."""
    return _svg(drawn, *SPARK, is_spark=True)


def _svg(drawn: Drawing, left: int, top: int, width: int, height: int, is_spark: bool) -> Markup:
    """Return a drawing as SVG whose axes end at the sides of a box."""

    def across(value: float) -> float:
        return round(left + width * drawn.x.share(value), 1)

    def up(value: float) -> float:
        return round(top + height * (1 - drawn.y.share(value)), 1)

    values = {"drawn": drawn, "left": left, "top": top, "width": width, "height": height}
    values |= {"across": across, "up": up, "is_spark": is_spark, "most_marked": MOST_MARKED}
    template = environment().get_template("chart.svg.j2")
    return Markup(template.render(values))  # noqa: S704 - the template escapes every value


def days_scale(days: Collection[date]) -> Scale:
    """Return the axis of days, which all panels of a page share; its unit is a day."""
    first, last = min(days).toordinal(), max(days).toordinal()
    num = last - first + 1
    reach, middle = max(num, FEWEST_SLOTS) / 2, (first + last) / 2
    marked = {first, last} | ({(first + last) // 2} if num >= FEWEST_MARKED else set())
    ticks = tuple((float(mark), date.fromordinal(mark).isoformat()) for mark in sorted(marked))
    return Scale("", middle - reach, middle + reach, ticks)


def by_day(label: str, series: Mapping[Style, Points]) -> Drawing:
    """Return lines over days, given as ordinals; what is beyond their ends is cut at the edge."""
    points = [point for style in ("theirs", "ours") for point in series.get(style, ())]
    days = {date.fromordinal(int(day)) for day, _ in points} or {date.min}
    up = scale_around([value for _, value in points] or [0.0])
    return Drawing(label, days_scale(days), up, {style: of for style, of in series.items() if of})


def day_panel(
    label: str, days: Scale, numbers: Mapping[date, float], is_share: bool = False
) -> Markup:
    """Return a panel with a bar for each day, from zero; shares, from 0 to 1, are in percent."""
    factor, least = (100, SMALLEST_TOP) if is_share else (1, 2)
    bars = [(float(day.toordinal()), factor * float(of)) for day, of in numbers.items()]
    up = scale_from_zero(max((height for _, height in bars), default=0), least)
    return panel(Drawing(label, days, up, {"bars": bars}), DAYS_HEIGHT)


def drawn_of(names: Mapping[str, float]) -> tuple[tuple[str, ...], int]:
    """Return which names have a panel of days, in their order, and how many have none.

    A panel for each, and not one drawing of all: a rare action type has its own scale, so that its
    fall is seen, and forty names need no forty colours.

    Args:
        names: How many rows each has.
    """
    most = sorted(names, key=lambda name: -names[name])[:MAX_PANELS]
    return tuple(name for name in names if name in most), len(names) - len(most)
