"""What happened on each day: panels side by side, one for each kind of row or action.

A panel for each, and not one drawing of all of them: a rare action type has its own scale, so that
its fall is seen, and forty names need no forty colours.
"""

from collections.abc import Collection, Mapping
from datetime import date
from typing import Literal

from markupsafe import Markup

from validation.report.charts import Scale, Series, in_short, panel, scale_from_zero

MAX_PANELS = 12
"""Of one kind on a page; of more, those of the most rows are drawn, and the rest is counted."""
MANY_DAYS = 45
"""Where there are more days, a line has no mark at each of them."""
PLOT_HEIGHT = 110
FEWEST_SLOTS = 3
"""An axis has room for as many days, so that one day alone is a bar and no wall."""
FEWEST_MARKED = 5
"""Of fewer days, the middle one has no room for its name."""
SMALLEST_TOP = 0.001
"""Percent that an axis of shares reaches at least."""


def days_scale(days: Collection[date]) -> Scale:
    """Return the axis of days, which all panels of a page share; its unit is a day."""
    first, last = min(days).toordinal(), max(days).toordinal()
    num = last - first + 1
    reach, middle = max(num, FEWEST_SLOTS) / 2, (first + last) / 2
    marked = {first, last} | ({(first + last) // 2} if num >= FEWEST_MARKED else set())
    ticks = tuple((float(mark), date.fromordinal(mark).isoformat()) for mark in sorted(marked))
    return Scale("", middle - reach, middle + reach, ticks)


def count_panel(label: str, days: Scale, numbers: Mapping[date, float]) -> Markup:
    """Return a panel with a bar for each day, from zero."""
    up = scale_from_zero(max(numbers.values(), default=0), 2, in_short)
    return panel(label, days, up, [Series("ours", _points(numbers), "bars")], PLOT_HEIGHT)


def share_panel(label: str, days: Scale, shares: Mapping[date, float]) -> Markup:
    """Return a panel with a line of shares in percent, from zero; they are given from 0 to 1."""
    points = _points({day: 100 * share for day, share in shares.items()})
    up = scale_from_zero(max((y for _, y in points), default=0), SMALLEST_TOP, "{:.3g}".format)
    shape: Literal["line", "marks"] = "line" if len(points) > MANY_DAYS else "marks"
    return panel(label, days, up, [Series("ours", points, shape)], PLOT_HEIGHT)


def drawn_of(names: Mapping[str, float]) -> tuple[tuple[str, ...], int]:
    """Return which names have a panel, in their order, and how many have none.

    Args:
        names: How many rows each has.
    """
    most = sorted(names, key=lambda name: -names[name])[:MAX_PANELS]
    return tuple(name for name in names if name in most), len(names) - len(most)


def _points(numbers: Mapping[date, float]) -> tuple[tuple[float, float], ...]:
    return tuple((float(day.toordinal()), float(numbers[day])) for day in sorted(numbers))
