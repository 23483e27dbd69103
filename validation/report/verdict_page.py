"""The verdict page: one self-contained HTML file that a person reads before believing a verdict.

The page must open years later, from a mail or an archive, without a network and without scripts.
Styles and drawings are therefore inside, and nothing is fetched. MLflow shows it among a model's
artifacts. Not for deciding (`validation.model_gate.verdict`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from pipelines.contracts.cycle import CycleRecord
from pipelines.contracts.judgement import Comparison, Judgement, OperatingPoint, Outcome
from pipelines.contracts.reasons import AbsentMetric, MetricComparison, PooledChange
from pipelines.contracts.run_layout import VERDICT_PAGE
from validation.model_gate.examine import margin_of
from validation.model_gate.target_metric import other_form
from validation.model_gate.years import ASSUMED_DECAY, NUM_YEARS
from validation.report.charts import (
    Axis,
    Series,
    Track,
    axis_of,
    change_with_interval,
    even_scale,
    panel,
    round_up,
)
from validation.report.costs import cost_rows
from validation.report.pages import environment

NOTHING = CycleRecord()
CONTEXT_KEYS = ("run_id", "recipe", "as_of", "code_version", "margin")
MAX_DRAWN = 60
"""A drawing of more changes is read by nobody; all of them stand in the tables."""
MAX_ROWS = 700
"""Rows of all tables together; a row weighs up to 200 bytes, and a page 300 kB at most."""
MAX_ABSENT = 150
"""Sentences of all segments together that say why a number is missing."""


def write_report(
    judgement: Judgement,
    outcome: Outcome,
    out_dir: Path,
    context: Mapping[str, str],
    record: CycleRecord = NOTHING,
) -> Path:
    """Write the verdict page, `<out_dir>/verdict.html`: self-contained, below 300 kB.

    Args:
        judgement: The facts, and what was decided.
        outcome: What people are told of it, in the words that every other place has.
        out_dir: Existing folder.
        context: What else the page says of the run; see `CONTEXT_KEYS`, all of them required.
        record: When the cycle ran and what it cost, as far as that is known.

    Returns:
        Path of the page.

    Raises:
        KeyError: the context lacks a key.
    """
    said = {key: context[key] for key in CONTEXT_KEYS}
    comparison = judgement.comparison
    needed = -margin_of(comparison, float(said["margin"]))
    page = out_dir / VERDICT_PAGE
    html = (
        environment()
        .get_template("verdict.html.j2")
        .render(
            comparison=comparison,
            verdict=judgement.verdict,
            anchor=judgement.anchor,
            changes=_changes(judgement),
            judgement=judgement,
            assumed_decay=ASSUMED_DECAY,
            num_years=NUM_YEARS,
            other_form=other_form(comparison.target_metric),
            context=said,
            target=comparison.target,
            self_test=judgement.self_test,
            needed=needed,
            drawings=drawings_of(judgement, needed),
            tables=segment_tables(comparison),
            record=record,
            costs=cost_rows(record.costs, record.earlier),
            age=_age(comparison),
            outcome=outcome,
            confidence=_confidence(comparison),
        )
    )
    page.write_text(html, "utf-8")
    return page


@dataclass(frozen=True)
class ChangeRow:
    """One line of the table that tells recipe and freshness apart."""

    question: str
    sides: str
    comparison: Comparison
    pooled: PooledChange

    @property
    def reach(self) -> float:
        """Half the width of the pooled two-sided 95 % interval."""
        return 1.96 * self.pooled.pooled_error


def _changes(judgement: Judgement) -> list[ChangeRow]:
    """Return the changes of the target metric that decide, each with the question it answers."""
    anchor, found = judgement.anchor, judgement.comparison
    asked: list[tuple[str, Comparison | None]] = [
        ("What would users notice?", found),
        ("What is the change of recipe worth?", anchor.recipe if anchor else None),
        ("What is fresh data worth?", anchor.freshness if anchor else None),
    ]
    return [
        ChangeRow(
            question,
            f"{comparison.challenger_model.label} against {comparison.baseline_label}",
            comparison,
            row,
        )
        for question, comparison in asked
        if comparison is not None and (row := comparison.find_pooled(comparison.target_metric))
    ]


def _confidence(comparison: Comparison) -> str:
    """Return the intervals' confidence as text, e.g. '95 %'; 'no' where there is no interval."""
    changes = (row.relative_change for row in comparison.metrics)
    return next((f"{change.confidence * 100:g} %" for change in changes if change), "no")


def _age(comparison: Comparison) -> str:
    """Say how old the champion is beside the challenger; '' where there is none."""
    champion = comparison.baseline_model
    if champion is None:
        return ""
    days = (comparison.challenger_model.as_of - champion.as_of).total_seconds() / 86400
    return f"{champion.label} was trained as of {champion.as_of:%Y-%m-%d}, {days:g} days earlier"


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
    every = _drawn_changes(comparison)
    drawn = every
    if len(every) > MAX_DRAWN:
        # Those of all users come before those of one segment, and the target's before others.
        target = comparison.target_metric
        drawn = sorted(every, key=lambda row: (row.segment != "all", row.metric != target))
        drawn = _target_first(drawn[:MAX_DRAWN], target)
    axis = axis_of([row.relative_change for row in drawn if row.relative_change], needed)
    return Drawings(
        rows=tuple(
            ChartRow(
                f"{row.metric}, {row.segment}",
                axis.track(row.relative_change),
                change_with_interval(row.relative_change),
                row.metric == comparison.target_metric,
            )
            for row in drawn
            if row.relative_change
        ),
        axis=axis,
        num_left_out=len(every) - len(drawn),
        calibration=_calibration(comparison),
        gate=_gate(judgement.operating_curve),
    )


def _drawn_changes(comparison: Comparison) -> list[MetricComparison]:
    """Return target metric and HIT@3 where they have an interval: target first, then by metric.

    HIT@3 of the target's own head is left out: its relative change is the target's.
    """
    target = comparison.target_metric
    rows = [
        row
        for row in comparison.metrics
        if (row.metric == target or _is_hits(row))
        and row.relative_change is not None
        and row.metric != other_form(target)
    ]
    return _target_first(rows, target)


def _target_first(rows: list[MetricComparison], target: str) -> list[MetricComparison]:
    metrics = [row.metric for row in rows]
    return sorted(rows, key=lambda row: (row.metric != target, metrics.index(row.metric)))


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


@dataclass(frozen=True)
class SegmentTable:
    """One segment's rows, and how many of its numbers are left out here."""

    segment: str
    num_users: int
    rows: tuple[MetricComparison, ...]
    absent: tuple[AbsentMetric, ...]
    num_left_out: int


def segment_tables(comparison: Comparison) -> tuple[SegmentTable, ...]:
    """Return a table for each segment, in the comparison's order."""
    target, twin = comparison.target_metric, other_form(comparison.target_metric)
    every = [row for row in comparison.metrics if row.metric != twin]
    keeps: tuple[Callable[[MetricComparison], bool], ...] = (
        lambda row: True,
        lambda row: row.segment == "all" or row.metric == target or _is_hits(row),
        lambda row: row.metric == target or (row.segment == "all" and _is_hits(row)),
    )
    kept = next(
        (found for keep in keeps if len(found := [r for r in every if keep(r)]) <= MAX_ROWS), []
    )
    kept = kept or [row for row in every if keeps[-1](row)][:MAX_ROWS]
    share = max(1, MAX_ABSENT // max(1, len(comparison.segment_users)))
    return tuple(
        _table(comparison, segment, every, kept, share) for segment in comparison.segment_users
    )


def _table(
    comparison: Comparison,
    segment: str,
    every: list[MetricComparison],
    kept: list[MetricComparison],
    share: int,
) -> SegmentTable:
    rows = tuple(row for row in kept if row.segment == segment)
    absent = tuple(row for row in comparison.absent if row.segment == segment)
    num = sum(row.segment == segment for row in every) - len(rows)
    listed = absent if len(comparison.absent) <= MAX_ABSENT else absent[:share]
    return SegmentTable(
        segment, comparison.segment_users[segment], rows, listed, num + len(absent) - len(listed)
    )


def _is_hits(row: MetricComparison) -> bool:
    return row.metric.startswith("hit_at_")
