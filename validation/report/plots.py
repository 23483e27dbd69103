"""The verdict's drawings as PNG files, for MLflow's artifact view.

Relative changes, calibration, and what the gate can see. The verdict page draws the same numbers
anew for each width (`validation.report.drawings`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.contracts.judgement import Comparison, Interval, Judgement, OperatingPoint
from validation.model_gate.target_metric import other_form
from validation.report.interval_rows import span_of

OURS, THEIRS, SOFT, BAD, INK = "#0550ae", "#8a6d3b", "#59636e", "#a40e26", "#1b1f24"
PANELS_PER_ROW = 3
MAX_NAME = 32
MAX_FOREST_ROWS = 60
"""A drawing of more rows is read by nobody; all of them stand in the tables."""
_STYLES: dict[str, dict[str, Any]] = {
    "baseline": {"color": THEIRS, "marker": "s", "fillstyle": "none"},
    "challenger": {"color": OURS, "marker": "o"},
}


@dataclass(frozen=True)
class ForestRow:
    """One line of the drawing of changes."""

    metric: str
    segment: str
    change: Interval
    is_target: bool


def write_drawings(judgement: Judgement, needed: float, out_dir: Path) -> None:
    """Write a PNG file for each drawing, where there is something to draw.

    Args:
        judgement: The facts.
        needed: What the lower end of the target metric's interval must exceed.
        out_dir: Existing folder.
    """
    figures, comparison = {}, judgement.comparison
    if rows := forest_rows(comparison):
        figures["changes"] = draw_changes(rows, needed)
    if comparison.reliability:
        figures["reliability"] = draw_reliability(comparison)
    if judgement.operating_curve:
        figures["operating_curve"] = draw_operating_curve(judgement.operating_curve)
    for name, figure in figures.items():
        figure.savefig(out_dir / f"{name}.png", dpi=110)


def forest_rows(
    comparison: Comparison, at_most: int | None = MAX_FOREST_ROWS
) -> tuple[ForestRow, ...]:
    """Return target metric and HIT@3 where they have an interval: target first, then by metric.

    HIT@3 of the target's own head is left out: its relative change is the target's.

    Args:
        comparison: The facts.
        at_most: How many. Where there are more, those of all users come before those of one
            segment, and the target's before others. None: all.
    """
    rows = [
        ForestRow(row.metric, row.segment, row.relative_change, is_target)
        for row in comparison.metrics
        if (
            (is_target := row.metric == comparison.target_metric)
            or row.metric.startswith("hit_at_")
        )
        and row.relative_change is not None
        and row.metric != other_form(comparison.target_metric)
    ]
    if at_most is not None and len(rows) > at_most:
        rows.sort(key=lambda row: (row.segment != "all", not row.is_target))
        rows = rows[:at_most]
    metrics = [row.metric for row in rows]
    return tuple(sorted(rows, key=lambda row: (not row.is_target, metrics.index(row.metric))))


@rc_context({"text.parse_math": False})  # a name with two dollar signs is no formula
def draw_changes(rows: tuple[ForestRow, ...], needed: float) -> Figure:
    """Draw the relative changes with their intervals, first row on top, numbers on the right."""
    figure = Figure(figsize=(10, 0.9 + 0.29 * len(rows)), layout="constrained")
    axes = figure.subplots()
    span = span_of([row.change for row in rows], needed)
    names = []
    for y, row in enumerate(rows):
        is_first = y == 0 or rows[y - 1].metric != row.metric
        metric, segment = _short(row.metric), _short(row.segment)
        names.append(f"{metric}, {segment}" if is_first else segment)
        if is_first and y:
            axes.axhline(y - 0.5, color="#d8dee4", linewidth=0.8)
        colour, scale = (OURS, 1.5) if row.is_target else (SOFT, 1)
        numbers = np.array([row.change.value, row.change.low, row.change.high])
        middle, low, high = np.clip(numbers, -span, span)
        axes.plot([low, high], [y, y], color=colour, linewidth=1.5 * scale)
        axes.plot([middle], [y], "o", color=colour, markersize=5 * scale)
        text = "{:+.2f} %  ({:+.2f} to {:+.2f})".format(*(numbers * 100))
        axes.text(span * 1.04, y, text, color=INK, verticalalignment="center")
    axes.set_yticks(range(len(rows)), names)
    for name, row in zip(axes.get_yticklabels(), rows, strict=True):
        name.set_fontweight("bold" if row.is_target else "normal")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(0, color=INK, linewidth=1)
    if needed:
        axes.axvline(needed, color=BAD, linestyle="--", linewidth=1)
        axes.set_title(f"dashed: margin {needed * 100:+g} %", fontsize=10, color=BAD)
    ticks = np.linspace(-span, span, 5)
    axes.set_xticks(ticks, [f"{tick * 100:+g} %" if tick else "0 %" for tick in ticks])
    axes.set_xlim(-span, span)
    confidence = rows[0].change.confidence * 100
    axes.set_xlabel(f"relative change, challenger against baseline, {confidence:g} % intervals")
    axes.tick_params(length=0)
    _unclutter(axes, "top", "right", "left")
    return figure


@rc_context({"text.parse_math": False})  # a name with two dollar signs is no formula
def draw_reliability(comparison: Comparison) -> Figure:
    """Draw observed share by predicted probability; on the dashed line, predictions come true."""
    heads = list(dict.fromkeys(point.head for point in comparison.reliability))
    num_columns = min(len(heads), PANELS_PER_ROW)
    num_rows = -(-len(heads) // num_columns)
    figure = Figure(figsize=(3.3 * num_columns, 3.3 * num_rows), layout="constrained")
    for number, head in enumerate(heads):
        axes = figure.add_subplot(num_rows, num_columns, number + 1)
        points = [point for point in comparison.reliability if point.head == head]
        largest = max(max(point.mean_predicted, point.mean_observed) for point in points)
        reach = min(1.0, max(largest * 1.08, 1e-4))
        axes.plot([0, reach], [0, reach], color=SOFT, linestyle="--", linewidth=1)
        for side, style in _STYLES.items():
            own = [(p.mean_predicted, p.mean_observed) for p in points if p.side == side]
            if own:
                axes.plot(*zip(*own, strict=True), label=side, clip_on=False, **style)
        axes.set(title=_short(head), xlabel="predicted probability", aspect="equal")
        axes.set(xlim=(0, reach), ylim=(0, reach))
        if number % num_columns == 0:
            axes.set_ylabel("share with the action")
        if number == 0:
            axes.legend(frameon=False)
        _unclutter(axes, "top", "right")
    return figure


def draw_operating_curve(points: tuple[OperatingPoint, ...]) -> Figure:
    """Draw what becomes of recipes by how much they truly differ: each cycle, and over a year."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    each, year = figure.subplots(1, 2)
    changes = [100 * point.true_change for point in points]
    promoted = [100 * point.promoted for point in points]
    each.plot(changes, promoted, color=OURS, marker="o", label="promoted")
    rejected = [100 * point.rejected for point in points]
    each.plot(changes, rejected, color=BAD, marker="s", fillstyle="none", label="rejected")
    each.set(ylabel="% of cycles", ylim=(-3, 103), title="the challenger, each cycle")
    each.legend(frameon=False)
    quality = [100 * point.year_quality for point in points]
    year.plot(changes, changes, color=SOFT, linestyle="--", linewidth=1, label="no gate, no age")
    year.plot(changes, quality, color=OURS, marker="o", label="with this gate")
    year.set(ylabel="% of the target metric", title="what serves, mean of a year")
    year.legend(frameon=False)
    for axes in (each, year):
        axes.set_xlabel("true change by the recipe, %")
        _unclutter(axes, "top", "right")
    return figure


def _short(name: str) -> str:
    """Return a name that leaves room for what is drawn; the page has the whole of it."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"


def _unclutter(axes: Axes, *sides: str) -> None:
    """Draw a faint grid, and take away lines that carry no information."""
    axes.grid(axis="x", color="#e7ebef")
    axes.set_axisbelow(True)
    axes.spines[list(sides)].set_visible(False)
