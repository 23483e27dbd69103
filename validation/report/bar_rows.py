"""Numbers by class as rows of bars that a style sheet lays out, so that no text of them shrinks.

A row is a name, its bars and its numbers; a bar's length is a share of the width that it has. Not
for changes with intervals (`validation.report.interval_rows`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One bar: its length in percent of the width, and how it looks."""

    length: float
    style: str  # 'ours' or 'theirs'


@dataclass(frozen=True)
class BarRow:
    """One class: a bar for each of those who are compared, and the numbers in the same order."""

    name: str
    bars: tuple[Bar, ...]
    numbers: str


def bar_rows(
    names: Sequence[str], numbers: Mapping[str, Sequence[float]], say: Callable[[float], str]
) -> tuple[BarRow, ...]:
    """Return a row for each name; the longest bar of all has the whole width.

    Args:
        names: Of the classes.
        numbers: By style, a number for each name.
        say: The text of a number.
    """
    longest = max((max(each, default=0.0) for each in numbers.values()), default=0.0) or 1.0
    return tuple(
        BarRow(
            name,
            tuple(
                Bar(round(100 * each[place] / longest, 2), style) for style, each in numbers.items()
            ),
            ", ".join(say(each[place]) for each in numbers.values()),
        )
        for place, name in enumerate(names)
    )
