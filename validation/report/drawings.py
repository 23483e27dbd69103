"""What the verdict page draws: changes with intervals, calibration, and what the gate can see.

Not for the PNG files that MLflow shows (`validation.report.plots`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipelines.contracts.judgement import Comparison, Judgement, OperatingPoint
from validation.report.interval_rows import Axis, Track, axis_of
from validation.report.panels import Series, even_scale, panel, round_up
from validation.report.plots import ForestRow, forest_rows


@dataclass(frozen=True)
class ChartRow:
    """One change: its name, where it stands on the axis, and its numbers."""

    name: str
    track: Track
    numbers: str
    is_target: bool


@dataclass(frozen=True)
class Drawings:
    """What a page draws; () or None where there is nothing to draw."""

    rows: tuple[ChartRow, ...]
    axis: Axis
    num_left_out: int
    calibration: tuple[tuple[str, Markup], ...]  # (head, its panel)
    gate: tuple[tuple[str, Markup], ...]  # (what it shows, the panel)


def drawings_of(judgement: Judgement, needed: float) -> Drawings:
    """Return what the page of a judgement draws.

    Args:
        judgement: The facts.
        needed: What the lower end of the target metric's interval must exceed.
    """
    comparison = judgement.comparison
    rows = forest_rows(comparison)
    axis = axis_of([row.change for row in rows], needed)
    return Drawings(
        rows=_chart_rows(rows, axis),
        axis=axis,
        num_left_out=len(forest_rows(comparison, None)) - len(rows),
        calibration=_calibration(comparison),
        gate=_gate(judgement.operating_curve),
    )


def _chart_rows(rows: Sequence[ForestRow], axis: Axis) -> tuple[ChartRow, ...]:
    made = []
    for row in rows:
        numbers = (100 * row.change.value, 100 * row.change.low, 100 * row.change.high)
        text = "{:+.2f} % ({:+.2f} to {:+.2f})".format(*numbers)
        name = f"{row.metric}, {row.segment}"
        made.append(ChartRow(name, axis.track(row.change), text, row.is_target))
    return tuple(made)


def _calibration(comparison: Comparison) -> tuple[tuple[str, Markup], ...]:
    """Return a panel for each head: observed share by predicted probability."""
    return tuple(
        (head, _calibration_of(comparison, head))
        for head in dict.fromkeys(point.head for point in comparison.reliability)
    )


def _calibration_of(comparison: Comparison, head: str) -> Markup:
    points = [point for point in comparison.reliability if point.head == head]
    largest = max(max(point.mean_predicted, point.mean_observed) for point in points)
    reach = min(1.0, round_up(max(largest * 1.04, 1e-4)))
    sides = {"baseline": "theirs", "challenger": "ours"}
    lines = [Series("right", "guide", ((0, 0), (reach, reach)))]
    for side, style in sides.items():
        own = tuple((p.mean_predicted, p.mean_observed) for p in points if p.side == side)
        lines += [Series(side, style, own)] if own else []
    across = even_scale("predicted probability", 0.0, reach)
    up = even_scale("observed share", 0.0, reach)
    return panel(f"Calibration of head {head}: observed share by prediction", across, up, lines)


def _gate(points: tuple[OperatingPoint, ...]) -> tuple[tuple[str, Markup], ...]:
    """Return two panels: what becomes of recipes in each cycle, and over a year."""
    if not points:
        return ()
    changes = [100 * point.true_change for point in points]
    across = even_scale("true change by the recipe, %", min(changes), max(changes))
    each = [
        Series("promoted", "ours", _pairs(changes, [100 * p.promoted for p in points])),
        Series("rejected", "bad", _pairs(changes, [100 * p.rejected for p in points])),
    ]
    quality = [100 * point.year_quality for point in points]
    year = [
        Series("no gate, no age", "guide", _pairs(changes, changes)),
        Series("with this gate", "ours", _pairs(changes, quality)),
    ]
    up = even_scale("", min(*changes, *quality), max(*changes, *quality), " %")
    shares = even_scale("", 0.0, 100.0, " %")
    titles = (
        "Share of cycles that promote and reject such a challenger",
        "Target metric of what serves, mean of a year, against the accepted recipe always fresh",
    )
    return (
        (titles[0], panel(titles[0], across, shares, each)),
        (titles[1], panel(titles[1], across, up, year)),
    )


def _pairs(first: Sequence[float], second: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(first, second, strict=True))
