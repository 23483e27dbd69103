"""The report of a checked log: counts of each day, totals, findings, their words and the page.

The counts of a day stand by name and key, and add up over days:

    impressions          rows, exploration, repeated (the same request and pin again on the day)
    impressions.hour     rows by the hour of the day
    labelled             impressions that got an action of a type within the label window
    labelled.hour        impressions that got any, by hour
    actions              rows by type
    unread               rows that lack a column, by table
    named                all; in_span (on days with impressions); found; of_other_user; pair_found;
                         early (before their request)
    named.early          by how many hours they are early
    unnamed              near (the pin was shown to the user within 24 h); early (only afterwards)
    unnamed.shift        by hours from the nearest impression, -24 to 23

What does not add up stands there with the key '': `<table>.median_lag_ms`,
`<table>.longest_lag_ms`, `<table>.first_ms` and `<table>.last_ms` (of the day). Not for measuring
(`measuring`), nor for what it means (`judgements`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.event_log.rules import Finding, Severity
from pipelines.storage import translated_errors

TABLES = ("impressions", "actions")
SHIFT_HOURS = 24
"""How far an action is looked for on either side of an impression of the same user and pin."""
DAYS_SHOWN = 31
BADGES = {Severity.ERROR: "is-bad", Severity.WARNING: "is-warn", Severity.NOTE: "is-quiet"}
MAX_PROBLEMS = 200
DAYS_TOLD = 5
"""Where more days than these have the same problem, they are told in one line."""


@dataclass
class Embeddings:
    """What the embeddings of one version, or of the users, come to."""

    rows: int = 0
    zero: int = 0
    widths: Counter[int] = field(default_factory=Counter)  # rows by width
    num_in_use: int = 0  # of the pins or users in use, those that have a row
    missing: tuple[int, ...] = ()  # the first pins in use that have none


@dataclass(frozen=True)
class Unlisted:
    """What of a feature's values the recipe does not list."""

    rows: int
    nulls: int
    others: int  # rows with a value that is not listed
    values: tuple[tuple[str, int], ...]  # such values and their rows, the most frequent first


@dataclass
class LogReport:
    """All that is known of a log."""

    uri: str
    recipe: str
    label_window_hours: int
    days: dict[date, dict[str, dict[str, int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    num_requests: int = 0
    num_users: int = 0  # with requests
    num_pins: int = 0  # that were shown or acted upon
    candidates: tuple[int, ...] = ()  # of a request: 5 %, the median and 95 % have no more
    pins: dict[str, Embeddings] = field(default_factory=dict)  # by embedding version
    users: Embeddings = field(default_factory=Embeddings)
    unlisted: dict[str, Unlisted] = field(default_factory=dict)  # by <table>.<feature>
    problems: list[Finding] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # ids in the problems -> such as "pin 'p1'"

    def days_of(self, table: str) -> list[date]:
        """Return the days that have files of impressions or actions, in order."""
        return sorted(day for day, counts in self.days.items() if table in counts)

    def of(self, day: date, what: str) -> Mapping[str, int]:
        """Return a count of a day; nothing where the day has none."""
        return self.days.get(day, {}).get(what, {})

    def usable(self, day: date, table: str) -> int:
        """Return a day's impressions or actions that lack no column."""
        found = self.of(day, table)
        return found.get("rows", 0) if table == "impressions" else sum(found.values())

    def rows(self, day: date, table: str) -> int:
        """Return a day's impressions or actions."""
        return self.usable(day, table) + self.of(day, "unread").get(table, 0)

    def total(self, what: str) -> Counter[str]:
        """Return a count over all days."""
        total: Counter[str] = Counter()
        for counts in self.days.values():
            total.update(counts.get(what, {}))
        return total

    def num_rows(self, table: str) -> int:
        """Return all impressions or actions."""
        return sum(self.rows(day, table) for day in self.days_of(table))

    def numbers(self, what: str) -> list[int]:
        """Return a number of the days that have it, in order of size."""
        return sorted(counts[what][""] for counts in self.days.values() if what in counts)

    @property
    def label_window(self) -> timedelta:
        """The label window in whole days."""
        return timedelta(days=-(-self.label_window_hours // 24))

    def label_rates(self) -> dict[str, dict[date, float]]:
        """Return, by action type, each day's share of impressions that got it in the label window.

        Days whose label window reaches beyond the last day of actions are left out.
        """
        last = max(self.days_of("actions"), default=date.min + self.label_window)
        rows = {day: self.rows(day, "impressions") for day in self.days_of("impressions")}
        known = {day: n for day, n in rows.items() if n and day <= last - self.label_window}
        return {
            name: {day: self.of(day, "labelled").get(name, 0) / n for day, n in known.items()}
            for name in sorted(self.total("actions"))
        }


def binned(counts: Mapping[str, int], num_bins: int, first: int = 0) -> npt.NDArray[np.int64]:
    """Return counts by whole numbers from `first` on as an array."""
    found = np.zeros(num_bins, dtype=np.int64)
    for place, num in counts.items():
        found[int(place) - first] += num
    return found


def lines_of(report: LogReport) -> Iterator[str]:
    """Yield the report line by line: what the log looks like, then what is wrong, worst first."""
    yield f"event log: {report.uri}"
    yield from (f"{name}: {text}" for name, text in summary_of(report))
    rates, days = report.label_rates(), sorted(report.days)
    if len(days) > DAYS_SHOWN:
        yield f"the last {DAYS_SHOWN} of {len(days)} days (`--from` and `--to` choose others):"
    for day in days[-DAYS_SHOWN:]:
        parts = [f"{report.rows(day, 'impressions'):,} impressions"]
        for name, of_days in rates.items():
            rate = f" ({of_days[day]:.2%})" if day in of_days else ""
            parts.append(f"{name} {report.of(day, 'actions').get(name, 0):,}{rate}")
        yield f"{day}: {', '.join(parts)}"
    told = list(told_problems(report))
    yield from (f"{severity.upper()}: {text}" for severity, text in told)
    counts = Counter(severity for severity, _ in told)
    yield ", ".join(f"{counts[each]} {each}{'s' * (counts[each] != 1)}" for each in Severity)


def summary_of(report: LogReport) -> Iterator[tuple[str, str]]:
    """Yield what the log looks like as a whole, as (name, text)."""
    shown, acted, named = (report.total(what) for what in ("impressions", "actions", "named"))
    num_shown, num_acted = (report.num_rows(table) for table in TABLES)
    if days := report.days_of("impressions"):
        low, middle, high = report.candidates or (0, 0, 0)
        yield (
            "impressions",
            f"{num_shown:,} on {len(days)} days, {days[0]} to {days[-1]}; {report.num_requests:,} "
            f"requests of {report.num_users:,} users; candidates of a request: {middle} (median), "
            f"{low} to {high} in 90 %; {_share(shown['exploration'], num_shown)} exploration; "
            f"{shown['repeated']:,} duplicates",
        )
    types = ", ".join(f"{name} {count:,}" for name, count in sorted(acted.items()))
    yield "actions", f"{num_acted:,} on {len(report.days_of('actions'))} days: {types or 'none'}"
    labelled = report.total("labelled")
    rates = ", ".join(f"{name} {_share(labelled[name], num_shown)}" for name in sorted(acted))
    yield f"impressions that got it within {report.label_window_hours} h", rates or "none"
    yield (
        "actions that name a request",
        f"{_share(named['all'], num_acted)}; of those on days with impressions "
        f"{_share(named['found'], named['in_span'])} name one of their user's in the log, "
        f"{_share(named['pair_found'], named['in_span'])} with their pin",
    )
    for table in TABLES:
        if medians := report.numbers(f"{table}.median_lag_ms"):
            usual, longest = medians[len(medians) // 2], report.numbers(f"{table}.longest_lag_ms")
            told = f"{_span(usual)} (median of a usual day), {_span(longest[-1])} (longest)"
            yield f"{table} are known after", told
    for version, known in sorted(report.pins.items()):
        yield (
            f"pins of version {version}",
            f"{known.rows:,}, {' and '.join(map(str, sorted(known.widths)))} wide; "
            f"{_share(known.num_in_use, report.num_pins)} of the {report.num_pins:,} pins in use "
            f"have one",
        )
    having = _share(report.users.num_in_use, report.num_users)
    yield "users", f"{report.users.rows:,} rows; {having} of the users with requests have one"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _span(ms: float) -> str:
    units = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000))
    return next((f"{ms / size:.1f} {unit}" for unit, size in units if ms >= size), f"{ms:.0f} ms")


def told_problems(report: LogReport) -> Iterator[tuple[Severity, str]]:
    """Yield each problem in words; what is wrong in several files or on many days is one."""
    root = report.uri.removeprefix("file://").rstrip("/") + "/"
    alike: dict[tuple[object, ...], list[Finding]] = defaultdict(list)
    for each in report.problems:
        is_alone = not each.where and each.day is None
        same = each.message if is_alone else each.value if each.day else ""
        alike[each.severity, each.rule, each.column, same].append(each)
    for group in alike.values():
        found = sorted(group, key=lambda each: (each.day or date.min, each.where))
        if found[0].day and len(found) <= DAYS_TOLD:
            yield from ((each.severity, each.message) for each in found)
            continue
        num_rows = sum(each.num_rows for each in found)
        first = replace(found[0], where=found[0].where.removeprefix(root), num_rows=num_rows)
        message, last = first.message, found[-1].day or found[-1].where.removeprefix(root)
        if len(found) > 1:
            message += f" (and {len(found) - 1} more {'days' if first.day else 'files'} to {last})"
        known = {number: report.names[number] for _, number in first.ids if number in report.names}
        names = ", ".join(f"{number} is {name}" for number, name in known.items())
        yield first.severity, message + (f" ({names})" if names else "")


def write_page(report: LogReport, path: Path) -> None:
    """Write the page to a file, whose folder is made where it is missing.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    html = render(report)
    with translated_errors(path.resolve().as_uri(), "writing"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, "utf-8")


def render(report: LogReport) -> str:
    """Return the page's HTML: what to look at, totals, and charts of the days."""
    from validation.report.days import count_panel, days_scale, drawn_of, share_panel
    from validation.report.pages import environment

    told, shown, counts = list(told_problems(report)), report.days_of("impressions"), []
    drawn, num_left_out = drawn_of(dict(sorted(report.total("actions").items())))
    rates = {name: each for name, each in report.label_rates().items() if name in drawn and each}
    if shown:
        numbers = {"impressions": {day: report.rows(day, "impressions") for day in shown}}
        for name in drawn:
            of = {day: report.of(day, "actions").get(name, 0) for day in report.days_of("actions")}
            numbers[name] = of
        days = days_scale(report.days)
        counts = [(n, count_panel(f"{n} of each day", days, of)) for n, of in numbers.items()]
        shares = [(n, share_panel(f"Share of {n} by day", days, of)) for n, of in rates.items()]
    kinds = Counter(kind for kind, _ in told)
    return (
        environment()
        .get_template("log_check.html.j2")
        .render(
            report=report,
            errors=kinds[Severity.ERROR],
            warnings=kinds[Severity.WARNING],
            problems=[(kind, BADGES[kind], text) for kind, text in told[:MAX_PROBLEMS]],
            num_more_problems=len(told[MAX_PROBLEMS:]),
            summary=list(summary_of(report)),
            counts=counts,
            shares=shares if shown else [],
            num_left_out=num_left_out,
        )
    )
