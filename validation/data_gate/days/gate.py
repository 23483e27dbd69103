"""Judges the days of an event log before anything is built of them, with Great Expectations.

What is judged is a handful of small tables: the days, and each number's largest deviation as a
multiple of its limit. A day that an accepted snapshot had is not judged again; it is told where it
was rewritten since.

    critical   most likely a model is harmed: several days are missing, or a number deviates over
               all judged days by more than its kind's `critical`
    warning    something happened that has not happened before; a person should know why

Not for limits (`limits`), nor for reading a log. Tested in
tests/validation/data_gate/days/test_gate.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path

from pipelines.contracts.artifacts import ExpectationOutcome, Severity
from pipelines.contracts.data_rules import MISSING_DAYS
from pipelines.contracts.day_profile import DayProfile, Number
from pipelines.contracts.time import DAY_MS
from validation.data_gate.days.limits import DISTANCE, FEWEST_DAYS, Deviation, deviations, kind_of
from validation.data_gate.days.moments import PREFIX
from validation.data_gate.gx_runner import Check, Unit, evaluate
from validation.report.charts import Drawing, by_day
from validation.report.data_docs import NEAR, Line, Subject

_OF_LATENESS = ("lag_median_s", "known_at_once", "known_after_an_hour", "known_after_a_day")
_TIMES_NOISE = 4.0


@dataclass(frozen=True)
class JudgedLog:
    """The days of an event log, and what they are held against."""

    as_of: datetime
    uri: str
    days: tuple[DayProfile, ...]  # Of the windows, up to as_of.
    first_day: int  # Days since the epoch.
    end_day: int
    accepted: tuple[DayProfile, ...]  # Of earlier accepted snapshots.
    earlier: tuple[DayProfile, ...]  # Of the log itself, before the windows.
    limit_factor: float = 1.0  # The recipe's.

    @cached_property
    def rewritten(self) -> dict[int, tuple[str, ...]]:
        """By day that was accepted, the numbers that changed since."""
        before = {day.day: day for day in self.accepted}
        found = {now.day: changes(before[now.day], now) for now in self.days if now.day in before}
        return {day: changed for day, changed in found.items() if changed}

    @property
    def history(self) -> tuple[DayProfile, ...]:
        """What the judged days are held against: the log's earlier days, as accepted if they were.

        So the history of a later cycle is never shorter than that of an earlier one.
        """
        known = {day.day: day for day in (*self.earlier, *self.accepted)}
        return tuple(known[day] for day in sorted(known.keys() - self.rewritten.keys()))

    @cached_property
    def found(self) -> Sequence[Deviation]:
        """How far each number deviates."""
        return deviations(self.history, self.judged, self.limit_factor)

    @property
    def judged(self) -> tuple[DayProfile, ...]:
        """The days that no accepted snapshot had as they are now."""
        accepted = {day.day for day in self.accepted} - self.rewritten.keys()
        return tuple(day for day in self.days if day.day not in accepted)


def changes(before: DayProfile, now: DayProfile) -> tuple[str, ...]:
    """Return the numbers of a day that changed by more than chance and late rows change them.

    Rows that became known later change a day a little, and that is nobody's fault. How late rows
    are is not compared at all: the latest ones come last.
    """
    none = Number(value=0.0, num=0)
    changed = []
    for name in sorted(before.numbers.keys() | now.numbers.keys()):
        is_in_both = name in before.numbers and name in now.numbers
        if name.endswith(_OF_LATENESS) or not (is_in_both or name.endswith(".rows")):
            continue
        if name.startswith(PREFIX):  # A few late rows move some of hundreds.
            continue
        kind = kind_of(name)
        pair = [day.numbers.get(name, none) for day in (before, now)]
        then, since = (kind.judged(number) for number in pair)
        noise = kind.noise(max(pair, key=lambda number: number.num))
        if abs(since - then) > kind.run_floor + _TIMES_NOISE * noise:
            changed.append(name)
    return tuple(changed)


def judge_log(
    log: JudgedLog, docs_dir: Path, accepted: Mapping[str, str] | None = None
) -> tuple[ExpectationOutcome, ...]:
    """Judge the days of a log, and leave the Data Docs.

    Args:
        log: What is judged.
        docs_dir: Empty folder for the Data Docs.
        accepted: Who accepted which expectation though it is not met, and why.

    Returns:
        One outcome for each expectation; critical ones that are not met must stop the cycle.

    Raises:
        HomefeedError: a check itself broke; nothing is known of the log.
    """
    facts = {
        "Event log": log.uri,
        "Days": f"{date_of(log.first_day)} to {date_of(log.end_day - 1)}, "
        f"{len(log.judged)} of them judged; what was accepted before is not judged again",
        "Held against": f"{len(log.history)} earlier days, {len(log.accepted)} of them accepted",
    }
    subject = Subject(
        f"event log up to {log.as_of:%Y-%m-%d}",
        "no snapshot may be built of this event log",
        facts,
        lines_of(log.found),
        {"ours": "each day", "guide": "mean of the judged days", "band": "allowed"},
    )
    checks = log_checks(log)
    name = f"event-log-{log.as_of:%Y-%m-%d}"
    return evaluate(checks, name, log.as_of, subject, docs_dir, accepted)


def log_checks(log: JudgedLog) -> tuple[Check, ...]:
    """Return all checks of the days of a log."""
    return (*_day_checks(log), *_number_checks(log, log.found))


def date_of(day: int) -> date:
    """Return the UTC day of a number of days since the epoch."""
    return datetime.fromtimestamp(day * DAY_MS / 1000, tz=UTC).date()


def _day_checks(log: JudgedLog) -> tuple[Check, ...]:
    """Return the checks that every day is there, and as it was accepted."""
    known = {day.day: day.numbers for day in log.days}
    missing, changed, without, rewritten = {}, {}, {}, {}
    for day in range(log.first_day, log.end_day):
        name, numbers = f"{date_of(day)}", known.get(day, {})
        # Of a day without impressions nothing is measured, so nothing is known of its actions.
        has_actions = any(n.startswith("actions.") and n.endswith(".rows") for n in numbers)
        tables = {"impressions": bool(numbers), "actions": has_actions or not numbers}
        lost = [table for table, is_there in tables.items() if not is_there]
        others = log.rewritten.get(day, ())
        missing[name], changed[name] = float(len(lost)), float(len(others))
        without[name] = f"{name} has no {' and no '.join(lost)}"
        told = ", ".join(others[:3]) + (" and others" if len(others) > 3 else "")
        rewritten[name] = f"{name} was rewritten since it was accepted: {told} changed"
    share = sum(map(bool, missing.values())) / len(missing)
    return (
        Check("log_has_every_day", Severity.WARNING, "Every day has impressions and actions.",
              "log_days", missing, minimum=0, maximum=0, phrases=without),
        Check("log_has_most_days", Severity.CRITICAL,
              "Days of the windows without impressions or actions.",
              "log", {"log": share}, "share", maximum=MISSING_DAYS.critical),
        Check("log_days_as_accepted", Severity.WARNING,
              "Days of accepted snapshots are as they were: the numbers that changed since.",
              "log_days", changed, minimum=0, maximum=0, phrases=rewritten),
    )  # fmt: skip


def _number_checks(log: JudgedLog, found: Sequence[Deviation]) -> tuple[Check, ...]:
    """Return the checks of each number, by the days before."""
    not_judged, num_known = "", len(log.history)
    if num_known < FEWEST_DAYS:
        known = f"{num_known} earlier days are known"
        not_judged = f"{known}, and {FEWEST_DAYS} are needed to know what is usual"
    elif not log.judged:
        not_judged = "every day was accepted before"

    def check(name: str, severity: Severity, said: str, level: str, table: str) -> Check:
        of = [each for each in found if each.level == level]
        values = {e.name: e.risk if table == "log_risks" else e.times_limit for e in of}
        unit: Unit = "risk" if table == "log_risks" else "limits"
        phrases = {each.name: f"{each.name}: {told(each)}" for each in of}
        ranks = {each.name: _rank(each.name) for each in of}
        return Check(
            name, severity, said, table, values, unit, None, 1.0, not_judged, phrases, ranks
        )

    return (
        check("log_days_as_usual", Severity.WARNING, "Each number of each day, by the days before.",
              "day", "log_days_numbers"),
        check("log_as_usual", Severity.WARNING,
              "Each number over all judged days, by the days before.", "run", "log_run_numbers"),
        check("log_harms_no_model", Severity.CRITICAL,
              "Numbers over all judged days that deviate so far that a model is harmed.",
              "run", "log_risks"),
    )  # fmt: skip


def _rank(name: str) -> int:
    """Return how far a number is from the cause: lost rows, what follows from them, rows at all."""
    if name.startswith(PREFIX):
        return 2
    is_loss = name.endswith((".rows", ".requests", ".users", "_come_back", "_new"))
    return 0 if is_loss else 1


def told(each: Deviation) -> str:
    """Return what was found, what is usual and what is allowed, in the number's own unit."""
    when = f"on {date_of(each.day)}" if each.level == "day" else f"from {date_of(each.day)} on"
    if each.kind is DISTANCE:
        return f"shares are {each.found:.2f} from the usual ones {when}, allowed {each.limit:.2f}"
    own = [_natural(each, value) for value in (each.found, each.usual)] + allowed(each)
    found, usual, low, high = (f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.3g}" for v in own)
    return f"{found} {when}, usual {usual}, allowed {low} to {high}"


def _natural(each: Deviation, judged: float) -> float:
    own = each.kind.natural(judged) * each.unit
    return own % 24 if each.name.endswith(".centre") else own


def allowed(each: Deviation) -> list[float]:
    """Return the least and the largest number that is allowed, in the number's own unit."""
    lowest, highest = each.kind.bounds
    low, high = (_natural(each, each.usual + sign * each.limit) for sign in (-1, 1))
    # Actions may come before what was shown, on many days.
    if not lowest <= _natural(each, each.usual) <= highest:
        return [low, high]
    return [max(low, lowest), min(high, highest)]


def lines_of(found: Sequence[Deviation]) -> tuple[Line, ...]:
    """Return each number as a line of the overview, on the level on which it deviates more.

    What rows give together are hundreds of numbers: of these only those near their limit.
    """
    worst: dict[str, Deviation] = {}
    for each in sorted(found, key=lambda each: each.times_limit):
        if not each.name.startswith(PREFIX) or each.times_limit >= NEAR:
            worst[each.name] = each
    return tuple(Line(name, told(each), each.times_limit, drawn=draw(each))
                 for name, each in worst.items())  # fmt: skip


def draw(each: Deviation) -> Drawing | None:
    """Return the days before and the judged ones as a line, and where they are held to a band.

    None of a number that has no single value a day.
    """
    if not each.series or each.name.endswith(".by_weekday"):
        return None
    days = [float(date_of(day).toordinal()) for day in each.days]
    is_run, (low, high) = each.level == "run", allowed(each)
    start = days[-each.num_judged] if is_run else float(date_of(each.day).toordinal())
    start, end = start - 0.5, (days[-1] if is_run else start) + 0.5
    return by_day(f"{each.name} by day", {
        "band": ((start, low), (end, low), (end, high), (start, high)),
        "ours": [*zip(days, (_natural(each, value) for value in each.series), strict=True)],
        "guide": [(at, _natural(each, each.found)) for at in (start, end) if is_run],
    })  # fmt: skip
