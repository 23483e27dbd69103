"""Snapshots for people: lines for a terminal, and one HTML page that reads offline.

The page's look is that of the gates' pages (`validation.report`). Not for judging a difference: the
data gate knows what is usual.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from pipelines.contracts.artifacts import Snapshot
from pipelines.snapshot_view.facts import (
    LENGTH_NAMES,
    Counts,
    Difference,
    Figure,
    SnapshotFacts,
    figures_of,
    readable_bytes,
    settings_of,
    span,
)

STYLES = {"training": "ours", "holdout": "theirs"}


def list_lines(snapshots: Iterable[Snapshot]) -> Iterator[str]:
    """Yield one line for each snapshot."""
    for each in snapshots:
        size = readable_bytes(sum(file.num_bytes for file in each.files))
        yield (
            f"{each.digest[:16]}  as of {each.as_of:%Y-%m-%d}, training {span(each.training)}, "
            f"holdout {span(each.holdout)}: {each.num_examples:,} examples of "
            f"{each.num_requests:,} requests, {size}"
        )


def lines_of(facts: SnapshotFacts) -> Iterator[str]:
    """Yield what a snapshot is, its numbers, and its days."""
    yield f"snapshot {facts.snapshot.digest[:16]} at {facts.snapshot.uri}"
    yield from (f"{name}: {value}" for name, value in settings_of(facts.snapshot).items())
    yield from (f"{figure.name}: {figure.text}" for figure in figures_of(facts))
    for window in facts.windows:
        shares = window.lengths / max(window.whole.requests, 1)
        each = ", ".join(f"{n}: {share:.0%}" for n, share in zip(LENGTH_NAMES, shares, strict=True))
        yield f"{window.name}: known actions of a request's user: {each}"
    for window in facts.windows:
        for day, of_day in window.by_day.items():
            rates = ", ".join(f"{h} {of_day.rate(h) or 0:.2%}" for h in sorted(of_day.positives))
            yield (
                f"{day} ({window.name}): {of_day.requests:,} requests, {of_day.examples:,} "
                f"examples; {rates}"
            )


def difference_lines(found: Difference) -> Iterator[str]:
    """Yield what differs, settings first; numbers of both with their relative change."""
    one, other, shared = found.one.snapshot, found.other.snapshot, found.num_shared
    yield f"{one.digest[:16]} and {other.digest[:16]}"
    if one.digest == other.digest:
        yield "both hold the same bytes"
        return
    settings = settings_of(other)
    for name, value in settings_of(one).items():
        if value != settings[name]:
            yield f"{name}: {value} -> {settings[name]}"
    before, after = (
        {each.name: each for each in figures_of(facts)} for facts in (found.one, found.other)
    )
    for name in before | after:
        old, new = (each.get(name, Figure(name, None)) for each in (before, after))
        if old.value != new.value:
            ratio = new.value / old.value if old.value and new.value is not None else np.nan
            change = f" ({ratio - 1:+.1%})" if np.isfinite(ratio) else ""
            yield f"{name}: {old.text} -> {new.text}{change}"
    if shared is None:
        yield "requests in both: unknown, because users are dealt out over other shards"
    else:
        yield (
            f"requests in both: {shared:,}; {one.num_requests - shared:,} only in the first, "
            f"{other.num_requests - shared:,} only in the second"
        )
    files = {each.path: each.sha256 for each in one.files}
    same = sum(files.get(each.path) == each.sha256 for each in other.files)
    yield f"files with the same bytes: {same} of {len(one.files)} and {len(other.files)}"


def render(facts: SnapshotFacts) -> str:
    """Return the page's HTML, of at most 300 kB; where it would have more, older days lack."""
    from validation.report import days as drawn
    from validation.report.pages import environment, within_limit

    heads, size = sorted(facts.snapshot.features.head_names), sum(facts.num_bytes.values())
    rows = [
        drawn.DayRow(
            str(day),
            (window.name, f"{counts.requests:,}", f"{counts.examples:,}"),
            tuple((counts.positives[head], counts.rate(head)) for head in heads),
        )
        for window in facts.windows
        for day, counts in window.by_day.items()
    ]
    drawings, template = _drawings(facts, heads), environment().get_template("snapshot.html.j2")
    headline = [(f"{each.name} examples", f"{each.whole.examples:,}") for each in facts.windows]

    def page_of(num_days: int) -> str:
        return template.render(
            snapshot=facts.snapshot,
            headline=[*headline, ("size", readable_bytes(size))],
            settings=settings_of(facts.snapshot).items(),
            figures=list(figures_of(facts)),
            drawings=drawings,
            tables=drawn.day_tables(heads, rows[len(rows) - num_days :]),
            num_older=len(rows) - num_days,
        )

    return within_limit(page_of, len(rows))


def _drawings(facts: SnapshotFacts, heads: list[str]) -> dict[str, Any]:
    """Return what the page draws: bars, and where a window has a day, panels of days."""
    from validation.report import days as drawn
    from validation.report.charts import bar_rows

    windows, sizes = facts.windows, facts.num_bytes
    lengths = {
        STYLES[each.name]: (100 * each.lengths / max(each.whole.requests, 1)).tolist()
        for each in windows
    }
    drawings: dict[str, Any] = {
        "examples": None,
        "lengths": bar_rows(LENGTH_NAMES, lengths, "{:.1f} %".format),
        "sizes": bar_rows(list(sizes), {"ours": list(sizes.values())}, readable_bytes),
    }

    def of_days(number: Callable[[Counts], float | None]) -> list[drawn.OfDays]:
        """Return a number of each day that has it, in both windows."""
        found = ({d: number(each) for d, each in window.by_day.items()} for window in windows)
        return [
            drawn.OfDays(name, style, {d: n for d, n in numbers.items() if n is not None})
            for (name, style), numbers in zip(STYLES.items(), found, strict=True)
        ]

    if all_days := {day for window in windows for day in window.by_day}:
        days = drawn.days_scale(all_days)
        totals = {head: sum(each.whole.positives[head] for each in windows) for head in heads}
        shown, num_left_out = drawn.drawn_of(totals)
        shares = {head: of_days(partial(Counts.rate, head=head)) for head in shown}
        rates = tuple(
            (head, drawn.share_panel(f"Share of examples with {head} by day", days, numbers))
            for head, numbers in shares.items()
        )
        examples = of_days(lambda counts: counts.examples)
        drawings["examples"] = drawn.count_panel("Examples of each day", days, examples)
        drawings["rates"] = drawn.DayPanels(rates, num_left_out)
    return drawings
