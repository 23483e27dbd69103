"""The verdict's drawings as PNG files, for MLflow's artifact view.

Not for the verdict page, which draws the same as SVG (`validation.report.drawings`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.contracts.judgement import Comparison
from validation.report.drawings import (
    ForestRow,
    forest_span,
    reliability_heads,
    reliability_points,
    reliability_reach,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, THEIRS, SOFT, BAD = "#0550ae", "#8a6d3b", "#59636e", "#a40e26"
DPI = 110


def write_plots(
    comparison: Comparison, rows: tuple[ForestRow, ...], needed: float, out_dir: Path
) -> tuple[Path, ...]:
    """Write `changes.png` and `reliability.png`, each only where there is something to draw.

    Args:
        comparison: The facts.
        rows: Lines of the forest plot.
        needed: What the target metric's lower end must exceed.
        out_dir: Existing folder.
    """
    written = []
    if rows:
        written.append(_write_changes(rows, needed, out_dir / "changes.png"))
    if reliability_heads(comparison):
        written.append(_write_reliability(comparison, out_dir / "reliability.png"))
    return tuple(written)


def _write_changes(rows: tuple[ForestRow, ...], needed: float, path: Path) -> Path:
    """Draw the relative changes with their intervals, first row on top."""
    # The object interface keeps no global state, unlike pyplot, and needs no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.4 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    span = forest_span(rows, needed) * 100
    for y, row in enumerate(rows):
        colour = OURS if row.is_target else SOFT
        low, mid, high = (100 * v for v in (row.change.low, row.change.value, row.change.high))
        axes.plot([low, high], [y, y], color=colour, linewidth=3 if row.is_target else 2)
        axes.plot([mid], [y], "o", color=colour, markersize=7 if row.is_target else 5)
    axes.axvline(0, color="#1b1f24", linewidth=1)
    if needed:
        axes.axvline(needed * 100, color=BAD, linestyle="--", linewidth=1)
        axes.set_title(f"dashed: the margin, {needed * 100:+g} %", fontsize=9, color=BAD)
    axes.set_yticks(range(len(rows)), [f"{row.metric}  ({row.segment})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(-span, span)
    confidence = rows[0].change.confidence * 100
    axes.set_xlabel(f"relative change, challenger against baseline (%), {confidence:g} % intervals")
    _unclutter(axes)
    figure.savefig(path, dpi=DPI)
    return path


def _write_reliability(comparison: Comparison, path: Path) -> Path:
    """Draw observed share by predicted probability, one panel per head."""
    from matplotlib.figure import Figure

    heads = reliability_heads(comparison)
    figure = Figure(figsize=(3.6 * len(heads), 3.6), layout="constrained")
    panels = figure.subplots(1, len(heads), squeeze=False)[0]
    for axes, head in zip(panels, heads, strict=True):
        reach = reliability_reach(comparison, head)
        axes.plot([0, reach], [0, reach], color=SOFT, linestyle="--", linewidth=1)
        for side, colour, marker in (("baseline", THEIRS, "s"), ("challenger", OURS, "o")):
            points = reliability_points(comparison, head, side)
            if points:
                axes.plot(
                    [point.mean_predicted for point in points],
                    [point.mean_observed for point in points],
                    marker=marker,
                    color=colour,
                    label=side,
                    fillstyle="full" if side == "challenger" else "none",
                    clip_on=False,
                )
        axes.set_title(head, fontsize=10)
        axes.set_xlabel("predicted probability")
        axes.set_xlim(0, reach)
        axes.set_ylim(0, reach)
        axes.set_aspect("equal")
        _unclutter(axes)
    panels[0].set_ylabel("share with the action")
    panels[0].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=DPI)
    return path


def _unclutter(axes: "Axes") -> None:
    """Take away the lines that carry no information."""
    axes.grid(axis="x", color="#e7ebef")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
