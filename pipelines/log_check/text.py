"""A checked log as lines for a terminal: what it looks like, then what is wrong, the worst first.

Not for the page (`page`).
"""

from collections.abc import Iterator
from datetime import date
from itertools import groupby

import numpy as np

from pipelines.event_log.rules import RULES, Finding
from pipelines.log_check.found import (
    LENGTH_EDGES,
    Deeds,
    LogReport,
    Problem,
    Severity,
    lag_quantile,
)
from pipelines.log_check.judgements import label_rates

FILES_SHOWN = 3
"""Of several files that break one rule, as many are named."""
DAYS_SHOWN = 31
DAYS_TOLD = 5
"""Where more days than these have the same problem, they are told in one line."""


def lines_of(report: LogReport) -> Iterator[str]:
    """Yield the report line by line."""
    yield f"event log: {report.uri}"
    yield from summary_lines(report)
    yield from _day_lines(report)
    told = list(told_problems(report))
    for severity, text in told:
        yield f"{severity.upper()}: {text}"
    kinds = [severity for severity, _ in told]
    counts = [f"{kinds.count(each)} {each}{'s' * (kinds.count(each) != 1)}" for each in Severity]
    yield ", ".join(counts)


def summary_lines(report: LogReport) -> Iterator[str]:
    """Yield what the log looks like as a whole."""
    shown, acted = report.shown, report.acted
    if report.exposures:
        days = f"{min(report.exposures)} to {max(report.exposures)}"
        yield (
            f"impressions: {shown.rows:,} on {len(report.exposures)} days, {days}; "
            f"{report.num_requests:,} requests of {report.num_users:,} users; candidates of a "
            f"request: {_candidates(report)}; {_share(shown.exploration, shown.rows)} exploration; "
            f"{shown.duplicates:,} duplicates"
        )
    types = ", ".join(f"{name} {count:,}" for name, count in sorted(acted.by_type.items()))
    yield f"actions: {acted.rows:,} on {len(report.deeds)} days: {types or 'none'}"
    rates = ", ".join(f"{name} {_share(shown.labelled.get(name, 0), shown.rows)}"
                      for name in sorted(acted.by_type))  # fmt: skip
    yield f"impressions that got it within {report.label_window_hours} h: {rates or 'none'}"
    yield (
        f"actions that name a request: {_share(acted.named, acted.rows)}; of those on days with "
        f"impressions {_share(acted.found, acted.named_in_span)} name one of their user's in the "
        f"log, {_share(acted.pair_found, acted.named_in_span)} with their pin"
    )
    for name, found in (("impressions", shown), ("actions", acted)):
        yield (
            f"{name} are known after: {_span(lag_quantile(found.lags, 0.5))} (median), "
            f"{_span(lag_quantile(found.lags, 0.95))} (95 %), {_span(found.max_lag_ms)} (longest)"
        )
    for version, known in sorted(report.pins.items()):
        having = _share(report.num_pins_with.get(version, 0), report.num_pins)
        widths = " and ".join(map(str, sorted(known.widths)))
        yield (
            f"pins of version {version}: {known.rows:,}, {widths} wide; {having} of the "
            f"{report.num_pins:,} pins in use have one"
        )
    having = _share(report.num_users_with_row, report.num_users)
    yield f"users: {report.users.rows:,} rows; {having} of the users with requests have one"
    yield f"earlier actions of a request's user, about: {_lengths(report)}"


def _day_lines(report: LogReport) -> Iterator[str]:
    """Yield one line for each day."""
    rates = label_rates(report)
    names = sorted(rates)
    days = sorted({*report.exposures, *report.deeds})
    if len(days) > DAYS_SHOWN:
        yield f"the last {DAYS_SHOWN} of {len(days)} days (`--html FILE` shows what a page holds):"
    for day in days[-DAYS_SHOWN:]:
        rows = report.exposures[day].rows if day in report.exposures else 0
        acts = report.deeds.get(day, Deeds()).by_type
        parts = [
            f"{name} {acts.get(name, 0):,}"
            + (f" ({rates[name][day]:.2%})" if day in rates[name] else "")
            for name in (names or sorted(acts))
        ]
        yield f"{day}: {rows:,} impressions; {', '.join(parts) or 'no actions'}"


def told_problems(report: LogReport) -> Iterator[tuple[Severity, str]]:
    """Yield each problem in words; what is wrong in several files or on many days is one."""
    in_order = sorted(report.problems, key=_place)
    for (rank, *_), group in groupby(in_order, key=_kind):
        severity, findings = list(Severity)[rank], [problem.finding for problem in group]
        days = [finding.day for finding in findings if finding.day]
        if not days:
            known = {
                each: report.names[each] for _, each in findings[0].ids if each in report.names
            }
            named = ", ".join(f"{number} is {name}" for number, name in known.items())
            yield severity, describe(findings, report.uri) + (f" ({named})" if named else "")
        elif len(days) <= DAYS_TOLD:
            yield from ((severity, finding.message) for finding in findings)
        else:
            told = f"{len(days)} days from {min(days)} to {max(days)}, the first of them:"
            yield severity, f"{told} {findings[0].message}"


def _kind(problem: Problem) -> tuple[int, str, str, str]:
    """Return what the problems that are told together have in common."""
    finding = problem.finding
    is_alone = not finding.where and finding.day is None
    same = finding.message if is_alone else finding.value if finding.day else ""
    return (list(Severity).index(problem.severity), finding.rule, finding.column, same)


def _place(problem: Problem) -> tuple[int, str, str, str, str, date]:
    return (*_kind(problem), problem.finding.where, problem.finding.day or date.min)


def describe(findings: list[Finding], uri: str) -> str:
    """Return findings of one rule and column as a sentence: where, what, expected, remedy."""
    first, root = findings[0], uri.removeprefix("file://").rstrip("/") + "/"
    if not first.where:
        return first.message
    files = [finding.where.removeprefix(root) for finding in findings[:FILES_SHOWN]]
    more = len(findings) - len(files)
    where = ", ".join(files) + (f" and {more} more files" if more > 0 else "")
    num_rows = sum(finding.num_rows for finding in findings)
    if first.row is None:
        return f"{where}: {first.problem}; expected {first.expected}; {first.remedy}"
    key = f" ({first.key})" if first.key else ""
    found = f"column {first.column!r} is {first.value} in row {first.row}{key}"
    rows = f"{num_rows:,} such row{'s' * (num_rows != 1)}"
    return (
        f"{where}: {RULES.get(first.rule, first.rule)}: {found}, {rows}; expected "
        f"{first.expected}; {first.remedy}"
    )


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _span(ms: float) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if ms >= size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms:.0f} ms"


def _candidates(report: LogReport) -> str:
    counts = report.num_candidates
    if not len(counts) or not counts.any():
        return "none"
    total = np.cumsum(counts)
    low, middle, high = (
        int(np.searchsorted(total, part * total[-1])) for part in (0.05, 0.5, 0.95)
    )
    return f"{middle} (median), {low} to {high} in 90 %"


def length_names() -> list[str]:
    """Return the names of the classes of `LogReport.sequence_lengths`."""
    edges = [int(edge) for edge in LENGTH_EDGES]
    pairs = zip(edges, edges[1:], strict=False)
    closed = [f"{low}" if high == low + 1 else f"{low} to {high - 1}" for low, high in pairs]
    return [*closed, f"{edges[-1]} or more"]


def _lengths(report: LogReport) -> str:
    counts = report.sequence_lengths
    if not counts.any():
        return "no requests"
    return ", ".join(
        f"{name}: {count / counts.sum():.0%}"
        for name, count in zip(length_names(), counts, strict=True)
        if count
    )
