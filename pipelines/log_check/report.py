"""The report of a checked log: counts of each day, totals, findings, their words and the page.

The counts of a day stand by name and key, and add up over days:

    rows                 by table
    impressions          exploration, repeated (the same request and pin again on the day)
    impressions.hour     rows by the hour of the day
    labelled             impressions that got an action of a type within the label window
    labelled.hour        impressions that got any, by hour
    actions              rows by type
    named                all; in_span (on days with impressions); found; of_other_user; pair_found;
                         early (before their request)
    named.early          by how many hours they are early
    named.late           by hours after their request, 0 to 23 and later
    unnamed              near (the pin was shown to the user within 24 h); early (only afterwards)
    unnamed.shift        by hours from the nearest impression, -24 to 23

Rows that lack what a row needs count as rows alone. What does not add up stands there with the key
'': `<table>.longest_lag_ms`, `<table>.first_ms`, `<table>.last_ms` (of the day). Not for measuring
(`measuring`), nor for what it means (`judgements`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from pipelines.event_log.completeness import Complete
from pipelines.event_log.rules import Finding, Severity, told_together
from pipelines.storage import translated_errors

TABLES = ("impressions", "actions")
SHIFT_HOURS = 24
"""How far an action is looked for on either side of an impression of the same user and pin."""
DAYS_SHOWN, COLUMNS_SHOWN = 31, 5
BADGES = {Severity.ERROR: "is-bad", Severity.WARNING: "is-warn", Severity.NOTE: "is-quiet"}


class Embeddings(NamedTuple):
    """What the embeddings of one version, or of the users, come to."""

    rows: int = 0
    zero: int = 0
    widths: Sequence[tuple[int, int]] = ()  # and the rows of each, the most first
    num_missing: int = 0  # of the pins or users in use, those that have none
    missing: Sequence[int] = ()  # the first of them


class Unlisted(NamedTuple):
    """What of a feature's values the recipe does not list."""

    rows: int
    num: int  # rows with such a value, or with none
    values: Sequence[tuple[str | None, int]]  # such values and their rows, the most frequent first


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
    pins: dict[str, Embeddings] = field(default_factory=dict)  # by embedding version
    users: Embeddings = Embeddings()
    unlisted: dict[str, Unlisted] = field(default_factory=dict)  # by <table>.<feature>
    # By number of pins: those shown, and those for which it is no time before they were.
    created: dict[str, tuple[int, int]] = field(default_factory=dict)
    telling: dict[str, float] = field(default_factory=dict)  # by column, the most telling first
    complete: Complete | None = None  # None of some days, or where it cannot be told
    problems: list[Finding] = field(default_factory=list)
    # Ids that are usual words for no value: column, word, impressions and actions that have it.
    words: list[tuple[str, str, int]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # ids in the problems -> such as "pin 'p1'"

    def days_of(self, table: str) -> list[date]:
        """Return the days that have files of impressions or actions, in order."""
        return sorted(day for day in self.days if table in self.of(day, "rows"))

    def of(self, day: date, what: str) -> Mapping[str, int]:
        """Return a count of a day; nothing where the day has none."""
        return self.days.get(day, {}).get(what, {})

    def rows(self, table: str) -> dict[date, int]:
        """Return the impressions or actions of the days that have files, by day."""
        return {day: self.of(day, "rows")[table] for day in self.days_of(table)}

    def total(self, what: str) -> Counter[str]:
        """Return a count over all days."""
        total: Counter[str] = Counter()
        for counts in self.days.values():
            total.update(counts.get(what, {}))
        return total

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
        known = [(day, n) for day, n in self.rows("impressions").items() if n]
        return {
            name: {
                day: self.of(day, "labelled").get(name, 0) / n
                for day, n in known
                if day <= last - self.label_window
            }
            for name in sorted(self.total("actions"))
        }


def lines_of(report: LogReport) -> Iterator[str]:
    """Yield the report line by line: what the log looks like, then what is wrong, worst first."""
    yield f"event log: {report.uri}"
    yield from (f"{name}: {text}" for name, text in summary_of(report))
    rates, days, shown = report.label_rates(), sorted(report.days), report.rows("impressions")
    if len(days) > DAYS_SHOWN:
        yield f"the last {DAYS_SHOWN} of {len(days)} days (`--from` and `--to` choose others):"
    for day in days[-DAYS_SHOWN:]:
        parts = [f"{shown.get(day, 0):,} impressions"]
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
    shown, acted, rows = map(report.total, ("impressions", "actions", "rows"))
    num_shown, num_acted = (rows[table] for table in TABLES)
    if days := report.days_of("impressions"):
        yield (
            "impressions",
            f"{num_shown:,} on {len(days)} days, {days[0]} to {days[-1]}; {report.num_requests:,} "
            f"requests of {report.num_users:,} users; {_share(shown['exploration'], num_shown)} "
            f"exploration; {shown['repeated']:,} duplicates",
        )
    if report.complete:
        yield "complete to", report.complete.told
    labelled, days = report.total("labelled"), report.days_of("actions")
    types = (f"{n} {num:,} ({_share(labelled[n], num_shown)})" for n, num in sorted(acted.items()))
    told = f"{num_acted:,} on {len(days)} days: {', '.join(types) or 'none'}"
    yield f"actions (of impressions that got one within {report.label_window_hours} h)", told
    if telling := [f"{name} {area:.2f}" for name, area in report.telling.items()][:COLUMNS_SHOWN]:
        yield "most telling columns (area under the curve)", ", ".join(telling)
    of = {f"pins of version {name}": (each, report.num_pins) for name, each in report.pins.items()}
    for whose, (each, num) in [*sorted(of.items()), ("users", (report.users, report.num_users))]:
        having, wide = _share(num - each.num_missing, num), [width for width, _ in each.widths]
        yield whose, f"{each.rows:,} rows, {wide} wide; {having} of the {num:,} in use have one"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def told_problems(report: LogReport) -> Iterator[tuple[Severity, str]]:
    """Yield each problem in words; what is wrong in several files or on many days is one."""
    root = report.uri.removeprefix("file://").rstrip("/") + "/"
    return told_together(report.problems, root, report.names)


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
    from validation.report.charts import day_panel, days_scale, drawn_of
    from validation.report.pages import environment

    told, shown, counts, shares = list(told_problems(report)), report.rows("impressions"), [], []
    drawn, num_left_out = drawn_of(dict(sorted(report.total("actions").items())))
    if shown:
        days, rates = days_scale(report.days), report.label_rates()
        of, acted = {"impressions": shown}, report.days_of("actions")
        for name in drawn:
            of[name] = {day: report.of(day, "actions").get(name, 0) for day in acted}
        counts = [(name, day_panel(f"{name} of each day", days, num)) for name, num in of.items()]
        shares = [
            (n, day_panel(f"Share of {n} by day", days, rates[n], is_share=True))
            for n in drawn
            if rates[n]
        ]
    kinds = Counter(kind for kind, _ in told)
    template = environment().get_template("log_check.html.j2")
    return template.render(
        report=report,
        errors=kinds[Severity.ERROR],
        warnings=kinds[Severity.WARNING],
        problems=[(kind, BADGES[kind], text) for kind, text in told],
        summary=list(summary_of(report)),
        counts=counts,
        shares=shares,
        num_left_out=num_left_out,
    )
