"""Tables with a row for each day, cut into as many as fit a page side by side on paper.

Forty action types have forty columns, which no screen and no sheet holds: six of them make a table.
Not for panels of days (`validation.report.day_panels`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS_PER_TABLE = 6
"""Of counts with their shares; more do not fit a sheet of paper."""
MAX_NAME = 28
"""Letters of a column's name. Of a longer one, its beginning and end are shown."""


@dataclass(frozen=True)
class DayRow:
    """One day: what stands in the columns of every table, and (count, share) by name."""

    day: str
    always: tuple[str, ...]
    counts: tuple[tuple[int, float | None], ...]  # a share of None is not known


@dataclass(frozen=True)
class DayTable:
    """Some of the columns; `span` says which of them, '' where these are all."""

    names: tuple[str, ...]
    span: str
    rows: tuple[DayRow, ...]


def day_tables(names: Sequence[str], rows: Sequence[DayRow]) -> tuple[DayTable, ...]:
    """Return the rows in tables of a few columns each; one table where there are no names."""
    starts = range(0, max(len(names), 1), COLUMNS_PER_TABLE)
    return tuple(_table(names, rows, start, len(starts) > 1) for start in starts)


def _table(names: Sequence[str], rows: Sequence[DayRow], start: int, is_part: bool) -> DayTable:
    end = min(start + COLUMNS_PER_TABLE, len(names))
    span = f"columns {start + 1} to {end} of {len(names)}" if is_part else ""
    own = tuple(DayRow(row.day, row.always, row.counts[start:end]) for row in rows)
    return DayTable(tuple(_short(name) for name in names[start:end]), span, own)


def _short(name: str) -> str:
    half = (MAX_NAME - 1) // 2
    whole = len(name) <= MAX_NAME
    return name if whole else f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"
