"""Changes with intervals as rows that a style sheet lays out, so that no text of them shrinks.

A row is a name, a track and its numbers. Where things stand on the track is a share of its width,
so one row fits any width. Not for PNG files (`validation.report.plots`), nor for the HTML of the
rows (templates/charts.html.j2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.contracts.judgement import Interval

SPANS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
"""Half-widths of the axis of changes. The last is the largest, and what lies beyond it is drawn at
the edge; without this bound one wide interval would squeeze all others."""


@dataclass(frozen=True)
class Track:
    """Where an interval stands on an axis, in percent of its width."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Axis:
    """An axis of changes around zero."""

    span: float
    margin: float | None  # Where the margin stands, in percent; None: there is none.
    ticks: tuple[tuple[float, str], ...]  # (percent of the width, what stands there)

    def track(self, change: Interval) -> Track:
        """Return where a change stands; what lies beyond the axis is drawn at its edge."""
        numbers = (change.low, change.value, change.high)
        return Track(*(_percent_of(number, self.span) for number in numbers))


def span_of(changes: Sequence[Interval], needed: float) -> float:
    """Return the half-width of an axis: a round share that holds the intervals and the margin."""
    reach = max((max(abs(change.low), abs(change.high)) for change in changes), default=0.0)
    wanted = max(reach, abs(needed) * 1.5)
    return next((span for span in SPANS if wanted <= span), SPANS[-1])


def axis_of(changes: Sequence[Interval], needed: float = 0.0) -> Axis:
    """Return the axis that all changes share.

    Args:
        changes: What is drawn on it.
        needed: What a change must exceed, as a share; 0: no margin is drawn.
    """
    span = span_of(changes, needed)
    shares = [span * step / 2 for step in range(-2, 3)]
    ticks = tuple(
        (_percent_of(share, span), f"{100 * share:+g} %" if share else "0 %") for share in shares
    )
    return Axis(span, _percent_of(needed, span) if needed else None, ticks)


def _percent_of(number: float, span: float) -> float:
    return round(50 + 50 * min(max(number / span, -1.0), 1.0), 2)
