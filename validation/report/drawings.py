"""Inline SVG drawings of the verdict page: changes with intervals, and calibration.

Only numbers are computed here. The shapes are in templates, so that text can be selected and read
aloud, and everything is escaped. Not for PNG files (`validation.report.plots`).
"""

from dataclasses import dataclass

from markupsafe import Markup

from pipelines.contracts.judgement import Comparison, Interval, ReliabilityBin
from validation.report.data_docs import environment

WIDTH = 900
LABEL_WIDTH = 240
TEXT_WIDTH = 260
ROW_HEIGHT = 26
TOP = 34
LARGEST_SHOWN = 0.5
"""An interval is cut at +-50 %. Without the cut, one wide interval would squeeze all others."""
PLOT = 300
PAD = 44


@dataclass(frozen=True)
class ForestRow:
    """One line of the forest plot."""

    metric: str
    segment: str
    change: Interval
    is_target: bool


def forest_rows(comparison: Comparison) -> tuple[ForestRow, ...]:
    """Return target metric and HIT@3 where they have an interval: target first, then by metric."""
    rows = [
        ForestRow(row.metric, row.segment, row.relative_change, is_target)
        for row in comparison.metrics
        if (
            (is_target := row.metric == comparison.target_metric)
            or row.metric.startswith("hit_at_")
        )
        and row.relative_change is not None
    ]
    first_seen = {row.metric: i for i, row in reversed(list(enumerate(rows)))}
    return tuple(sorted(rows, key=lambda r: (not r.is_target, first_seen[r.metric])))


def draw_forest(rows: tuple[ForestRow, ...], needed: float) -> Markup:
    """Return the forest plot as SVG; nothing where no change has an interval.

    Args:
        rows: Lines from top to bottom.
        needed: What the target metric's lower end must exceed; drawn as a dashed line.
    """
    if not rows:
        return Markup("")
    span = forest_span(rows, needed)
    left, right = LABEL_WIDTH, WIDTH - TEXT_WIDTH

    def x(share: float) -> float:
        clipped = min(max(share, -span), span)
        return round(left + (clipped + span) / (2 * span) * (right - left), 1)

    lines = [
        {
            "row": row,
            "y": TOP + i * ROW_HEIGHT + ROW_HEIGHT // 2,
            "low": x(row.change.low),
            "mid": x(row.change.value),
            "high": x(row.change.high),
            "is_first": i == 0 or rows[i - 1].metric != row.metric,
        }
        for i, row in enumerate(rows)
    ]
    svg = environment().get_template("forest.svg.j2")
    return Markup(  # noqa: S704  the template escapes
        svg.render(
            lines=lines,
            ticks=[(x(tick), f"{tick * 100:+g} %" if tick else "0 %") for tick in axis_ticks(span)],
            zero=x(0.0),
            needed=x(needed),
            needed_text=f"{needed * 100:+g} %",
            has_margin=needed != 0,
            width=WIDTH,
            top=TOP,
            bottom=TOP + len(rows) * ROW_HEIGHT,
            text_x=right + 16,
        )
    )


def forest_span(rows: tuple[ForestRow, ...], needed: float) -> float:
    """Return the half-width of the axis: a round share that holds intervals and margin."""
    reach = max(max(abs(row.change.low), abs(row.change.high)) for row in rows)
    wanted = min(max(reach, abs(needed) * 1.5, 0.01), LARGEST_SHOWN)
    for step in (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, LARGEST_SHOWN):
        if wanted <= step:
            return step
    return LARGEST_SHOWN


def axis_ticks(span: float) -> tuple[float, ...]:
    """Return five ticks from minus to plus the span."""
    return (-span, -span / 2, 0.0, span / 2, span)


def reliability_heads(comparison: Comparison) -> tuple[str, ...]:
    """Return the heads that have a calibration plot, in order."""
    return tuple(dict.fromkeys(point.head for point in comparison.reliability))


def reliability_points(comparison: Comparison, head: str, side: str) -> list[ReliabilityBin]:
    """Return one side's points of one head, by predicted probability."""
    return [p for p in comparison.reliability if p.head == head and p.side == side]


def reliability_reach(comparison: Comparison, head: str) -> float:
    """Return the end of both axes: a little beyond the largest share in the plot."""
    points = [p for p in comparison.reliability if p.head == head]
    largest = max(max(p.mean_predicted, p.mean_observed) for p in points)
    return min(1.0, max(largest * 1.08, 1e-4))


def draw_reliability(comparison: Comparison, head: str) -> Markup:
    """Return one head's calibration plot as SVG. On the diagonal, predictions come true."""
    reach = reliability_reach(comparison, head)

    def at(point: ReliabilityBin) -> tuple[float, float]:
        return (
            round(PAD + point.mean_predicted / reach * (PLOT - PAD), 1),
            round((PLOT - PAD) * (1 - point.mean_observed / reach) + 10, 1),
        )

    sides = [
        (side, [at(point) for point in reliability_points(comparison, head, side)])
        for side in ("baseline", "challenger")
    ]
    return Markup(  # noqa: S704  the template escapes
        environment()
        .get_template("reliability.svg.j2")
        .render(head=head, sides=[s for s in sides if s[1]], reach=reach, size=PLOT, pad=PAD)
    )
