"""The tables of a page that hold every metric of every segment, within what a page may weigh.

Forty segments of twenty heads have thousands of numbers. Where all of them do not fit, segments
other than 'all' keep what says whether their users are hurt, and the page says what is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.contracts.judgement import AbsentMetric, Comparison, MetricComparison
from validation.model_gate.target_metric import other_form

MAX_ROWS = 700
"""Rows of all tables together; a row weighs up to 200 bytes, and a page 300 kB at most."""
MAX_ABSENT = 150
"""Sentences of all segments together that say why a number is missing."""


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
