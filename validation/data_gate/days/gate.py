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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd

from pipelines.contracts.artifacts import ExpectationOutcome, Severity
from pipelines.contracts.data_rules import MISSING_DAYS
from pipelines.contracts.day_profile import DayProfile, Number
from pipelines.contracts.time import DAY_MS
from validation.data_gate.checks import Check
from validation.data_gate.days.examples import can_show
from validation.data_gate.days.kinds import DISTANCE, kind_of
from validation.data_gate.days.limits import FEWEST_DAYS, SURE, Deviation, deviations
from validation.data_gate.gx_runner import Details, RunName, evaluate, with_accepted
from validation.report.data_docs import SINCE_REFUSED, Subject, finish_data_docs

_OF_LATENESS = ("lag_median_s", "known_at_once", "known_after_an_hour", "known_after_a_day")
_TIMES_NOISE = 4.0
MOST_WITH_EXAMPLES = 5
_PRESENT, _MISSING, _REWRITTEN = "days_present", "missing_share", "rewritten"
_DAY, _RUN, _RISK = "of_a_day", "of_all_days", "risk"


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
    since_refused: tuple[str, ...] = ()  # What changed since the same run was refused.

    @property
    def history(self) -> tuple[DayProfile, ...]:
        """What the judged days are held against: accepted days, or else the log's earlier ones."""
        fixed = {day.day for day in self.rewritten}
        accepted = [day for day in self.accepted if day.day not in fixed]
        known = accepted if len(accepted) >= FEWEST_DAYS else [*self.earlier, *accepted]
        return tuple(sorted(known, key=lambda day: day.day))

    @property
    def rewritten(self) -> tuple[DayProfile, ...]:
        """The days, as they are now, that were accepted with other numbers."""
        before = {day.day: day for day in self.accepted}
        return tuple(
            day for day in self.days if day.day in before and changes(before[day.day], day)
        )

    @property
    def judged(self) -> tuple[DayProfile, ...]:
        """The days that no accepted snapshot had as they are now."""
        rewritten = {day.day for day in self.rewritten}
        accepted = {day.day for day in self.accepted} - rewritten
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
        kind = kind_of(name)
        pair = [day.numbers.get(name, none) for day in (before, now)]
        then, since = (kind.judged(number) for number in pair)
        noise = kind.noise(max(pair, key=lambda number: number.num))
        if abs(since - then) > kind.run_floor + _TIMES_NOISE * noise:
            changed.append(name)
    return tuple(changed)


Look = Callable[[int, Sequence[str]], Mapping[str, Sequence[str]]]
"""Returns, for a day and the names of numbers, phrases about rows that show each number."""


def judge_log(
    log: JudgedLog,
    docs_dir: Path,
    accepted: Mapping[str, str] | None = None,
    look: Look | None = None,
) -> tuple[ExpectationOutcome, ...]:
    """Judge the days of a log, and leave the Data Docs.

    Args:
        log: What is judged.
        docs_dir: Empty folder for the Data Docs.
        accepted: Who accepted which expectation though it is not met, and why.
        look: Looks for rows that show what is unusual; None leaves them out.

    Returns:
        One outcome for each expectation; critical ones that are not met must stop the cycle.

    Raises:
        HomefeedError: a check itself broke; nothing is known of the log.
    """
    found = deviations(log.history, log.judged, log.limit_factor)
    tables = {
        "log_days": _day_table(log),
        "log": pd.DataFrame({"partition": ["log"], _MISSING: [_missing_share(log)]}),
        "log_days_numbers": _number_table(found, "day", _DAY),
        "log_run_numbers": _number_table(found, "run", _RUN),
        "log_risks": _risk_table(found),
    }
    name = RunName(f"event-log-{log.as_of:%Y-%m-%d}", log.as_of)
    phrases = _with_examples(_phrases(log, found), found, look)
    outcomes = evaluate(_checks(log), tables, phrases, name, docs_dir)
    outcomes = with_accepted(outcomes, accepted or {})
    finish_data_docs(docs_dir, _subject(log), outcomes)
    return outcomes


def date_of(day: int) -> date:
    """Return the UTC day of a number of days since the epoch."""
    return datetime.fromtimestamp(day * DAY_MS / 1000, tz=UTC).date()


def _checks(log: JudgedLog) -> tuple[Check, ...]:
    few = len(log.history) < FEWEST_DAYS
    why = (
        f"{len(log.history)} earlier days are known, and {FEWEST_DAYS} are needed to know what is "
        f"usual"
        if few
        else ""
        if log.judged
        else "every day was accepted before"
    )
    critical, warning = Severity.CRITICAL, Severity.WARNING
    return (
        Check("log_has_every_day", warning, "Every day has impressions and actions.",
              "log_days", _PRESENT, minimum=0, maximum=0),
        Check("log_has_most_days", critical, "Days of the windows without impressions or actions.",
              "log", _MISSING, "share", maximum=MISSING_DAYS.critical),
        Check("log_days_as_accepted", warning,
              "Days of accepted snapshots are as they were: the numbers that changed since.",
              "log_days", _REWRITTEN, minimum=0, maximum=0),
        Check("log_days_as_usual", warning, "Each number of each day, by the days before.",
              "log_days_numbers", _DAY, "limits", maximum=1.0, not_judged=why),
        Check("log_as_usual", warning, "Each number over all judged days, by the days before.",
              "log_run_numbers", _RUN, "limits", maximum=1.0, not_judged=why),
        Check("log_harms_no_model", critical,
              "Numbers over all judged days that deviate so far that a model is harmed.",
              "log_risks", _RISK, "risk", maximum=1.0, not_judged=why),
    )  # fmt: skip


def _missing(log: JudgedLog) -> dict[int, list[str]]:
    """Return, by day of the windows, which tables have no rows."""
    known = {day.day: day for day in log.days}
    missing = {}
    for day in range(log.first_day, log.end_day):
        numbers = known[day].numbers if day in known else {}
        names = ["impressions"] * ("impressions.rows" not in numbers)
        has_actions = any(n.startswith("actions.") and n.endswith(".rows") for n in numbers)
        missing[day] = [*names, *(["actions"] * (not has_actions))]
    return missing


def _missing_share(log: JudgedLog) -> float:
    missing = _missing(log)
    return sum(bool(names) for names in missing.values()) / len(missing)


def _day_table(log: JudgedLog) -> pd.DataFrame:
    missing = _missing(log)
    before = {day.day: day for day in log.accepted}
    rewritten = {day.day: len(changes(before[day.day], day)) for day in log.rewritten}
    return pd.DataFrame(
        {
            "partition": [f"{date_of(day)}" for day in missing],
            _PRESENT: [float(len(names)) for names in missing.values()],
            _REWRITTEN: [float(rewritten.get(day, 0)) for day in missing],
        }
    )


def _number_table(found: Sequence[Deviation], level: str, column: str) -> pd.DataFrame:
    rows = [(each.name, each.times_limit) for each in found if each.level == level]
    return pd.DataFrame(rows, columns=["partition", column])


def _risk_table(found: Sequence[Deviation]) -> pd.DataFrame:
    """Return how far each number is on its way to what harms a model; 0 where it is not sure."""
    rows = [
        (each.name, abs(each.effect) / each.kind.critical if each.times_limit > SURE else 0.0)
        for each in found
        if each.level == "run"
    ]
    return pd.DataFrame(rows, columns=["partition", _RISK])


def _phrases(log: JudgedLog, found: Sequence[Deviation]) -> Details:
    phrases: dict[tuple[str, str], str] = {}
    for each in found:
        columns = (_DAY,) if each.level == "day" else (_RUN, _RISK)
        phrases |= {(each.name, column): describe(each) for column in columns}
    for day, names in _missing(log).items():
        if names:
            phrases[f"{date_of(day)}", _PRESENT] = f"{date_of(day)} has no {' and no '.join(names)}"
    before = {day.day: day for day in log.accepted}
    for now in log.rewritten:
        changed = changes(before[now.day], now)
        name = f"{date_of(now.day)}"
        told = ", ".join(changed[:3]) + (" and others" if len(changed) > 3 else "")
        phrases[name, _REWRITTEN] = f"{name} was rewritten since it was accepted: {told} changed"
    return phrases


def _with_examples(phrases: Details, found: Sequence[Deviation], look: Look | None) -> Details:
    """Return the phrases with rows that show the most unusual numbers, of their worst days."""
    worst = sorted(found, key=lambda each: -each.times_limit)
    unusual = [each.name for each in worst if each.times_limit > 1 and can_show(each.name)]
    day_of = {each.name: each.day for each in found if each.level == "day"}
    by_day: dict[int, list[str]] = {}
    for name in list(dict.fromkeys(unusual))[:MOST_WITH_EXAMPLES]:
        if name in day_of:
            by_day.setdefault(day_of[name], []).append(name)
    added = dict(phrases)
    for day, names in by_day.items() if look else ():
        assert look is not None
        for name, rows in look(day, names).items():
            if rows:
                place = name, _gravest(name, found)
                added[place] += f" (for example on {date_of(day)}: {'; '.join(rows)})"
    return added


def _gravest(name: str, found: Sequence[Deviation]) -> str:
    """Return the column of the gravest check that tells of a number: rows are shown there alone."""
    of_name = [each for each in found if each.name == name]
    if any(each.is_harmful for each in of_name):
        return _RISK
    return _RUN if any(each.level == "run" and each.times_limit > 1 for each in of_name) else _DAY


def describe(each: Deviation) -> str:
    """Return a deviation as people read it, in the number's own unit."""
    when = f"on {date_of(each.day)}" if each.level == "day" else f"from {date_of(each.day)} on"
    if each.kind is DISTANCE:
        return (
            f"{each.name}: shares are {each.found:.2f} from the usual ones {when}, allowed "
            f"{each.limit:.2f}"
        )
    kind = each.kind
    found, usual, low, high = (
        _number(kind.natural(value))
        for value in (each.found, each.usual, each.usual - each.limit, each.usual + each.limit)
    )
    return f"{each.name}: {found} {when}, usual {usual}, allowed {low} to {high}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _subject(log: JudgedLog) -> Subject:
    days = log.history
    against = (
        f"{len(days)} days from {date_of(days[0].day)} to {date_of(days[-1].day)}, of "
        + ("accepted snapshots" if len(log.accepted) >= FEWEST_DAYS else "the log itself")
        if days
        else "nothing: the log has no earlier days"
    )
    facts = {
        "Event log": log.uri,
        "Days": f"{date_of(log.first_day)} to {date_of(log.end_day - 1)}, "
        f"{len(log.judged)} of them judged; what was accepted before is not judged again",
        "Held against": against,
    }
    if log.since_refused:
        facts[SINCE_REFUSED] = "; ".join(log.since_refused)
    return Subject(
        f"event log up to {log.as_of:%Y-%m-%d}",
        "no snapshot may be built of this event log",
        tuple(facts.items()),
        "Every row of every day was counted; none was drawn at random.",
    )
