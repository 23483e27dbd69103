"""A checked log as lines for a terminal: what it looks like, then what is wrong, the worst first.

Not for the page (`page`).
"""

from collections.abc import Iterator
from datetime import date
from itertools import groupby

import numpy as np

from pipelines.event_log.rules import RULES, Finding
from pipelines.log_check.judgements import label_rates
from pipelines.log_check.report import (
    LENGTH_EDGES,
    TABLES,
    LogReport,
    Problem,
    Severity,
    lag_quantile,
)

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
    shown, acted, named = (report.total(what) for what in ("impressions", "actions", "named"))
    num_shown, num_acted = (report.num_rows(table) for table in TABLES)
    if days := report.days_of("impressions"):
        yield (
            f"impressions: {num_shown:,} on {len(days)} days, {days[0]} to {days[-1]}; "
            f"{report.num_requests:,} requests of {report.num_users:,} users; candidates of a "
            f"request: {_candidates(report)}; {_share(shown['exploration'], num_shown)} "
            f"exploration; {shown['repeated']:,} duplicates"
        )
    types = ", ".join(f"{name} {count:,}" for name, count in sorted(acted.items()))
    yield f"actions: {num_acted:,} on {len(report.days_of('actions'))} days: {types or 'none'}"
    labelled = report.total("labelled")
    rates = ", ".join(f"{name} {_share(labelled[name], num_shown)}" for name in sorted(acted))
    yield f"impressions that got it within {report.label_window_hours} h: {rates or 'none'}"
    yield (
        f"actions that name a request: {_share(named['all'], num_acted)}; of those on days with "
        f"impressions {_share(named['found'], named['in_span'])} name one of their user's in the "
        f"log, {_share(named['pair_found'], named['in_span'])} with their pin"
    )
    for table in TABLES:
        lags, longest = report.total(f"{table}.lag"), report.number(f"{table}.longest_lag_ms")
        yield (
            f"{table} are known after: {_span(lag_quantile(lags, 0.5))} (median), "
            f"{_span(lag_quantile(lags, 0.95))} (95 %), {_span(longest)} (longest)"
        )
    for version, known in sorted(report.pins.items()):
        yield (
            f"pins of version {version}: {known.rows:,}, "
            f"{' and '.join(map(str, sorted(known.widths)))} wide; "
            f"{_share(known.num_in_use, report.num_pins)} of the {report.num_pins:,} pins in use "
            f"have one"
        )
    having = _share(report.users.num_in_use, report.num_users)
    yield f"users: {report.users.rows:,} rows; {having} of the users with requests have one"
    lengths = report.lengths
    told = [
        f"{name}: {count / lengths.sum():.0%}"
        for name, count in zip(length_names(), lengths, strict=True)
        if count
    ]
    yield f"earlier actions of a request's user, about: {', '.join(told) or 'no requests'}"


def _day_lines(report: LogReport) -> Iterator[str]:
    """Yield one line for each day."""
    rates, days = label_rates(report), sorted(report.days)
    if len(days) > DAYS_SHOWN:
        yield f"the last {DAYS_SHOWN} of {len(days)} days (`--html FILE` shows what a page holds):"
    for day in days[-DAYS_SHOWN:]:
        acts = report.of(day, "actions")
        parts = [
            f"{name} {acts.get(name, 0):,}"
            + (f" ({rates[name][day]:.2%})" if day in rates[name] else "")
            for name in (sorted(rates) or sorted(acts))
        ]
        rows = report.rows(day, "impressions")
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
    if not report.candidates:
        return "none"
    sizes = sorted(report.candidates)
    total = np.cumsum([report.candidates[size] for size in sizes])
    low, middle, high = (
        sizes[int(np.searchsorted(total, part * total[-1]))] for part in (0.05, 0.5, 0.95)
    )
    return f"{middle} (median), {low} to {high} in 90 %"


def length_names() -> list[str]:
    """Return the names of the classes of `LogReport.sequence_lengths`."""
    edges = [int(edge) for edge in LENGTH_EDGES]
    pairs = zip(edges, edges[1:], strict=False)
    closed = [f"{low}" if high == low + 1 else f"{low} to {high - 1}" for low, high in pairs]
    return [*closed, f"{edges[-1]} or more"]
