"""The gate of an event log's days: what it refuses, what it warns of, and how it says so."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.contracts.artifacts import ExpectationOutcome, Severity
from pipelines.contracts.day_profile import DayProfile, Number
from support.data_gate import failed
from support.log_days import FIRST_DAY, profiles
from validation.data_gate.days.gate import JudgedLog, allowed, changes, date_of, judge_log, lines_of
from validation.data_gate.days.limits import Deviation, deviations, kind_of

USUAL = {"impressions.rows": 10_000.0, "actions.repin.rows": 900.0, "named.repin.known": 1.0}
FIRST = FIRST_DAY + 56
AS_OF = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=FIRST + 15)


def days(num_days: int, first: int, **changed: float) -> list[DayProfile]:
    named = {name.replace("__", "."): value for name, value in changed.items()}
    return profiles(lambda place: USUAL | named, num_days, first)


def log_of(
    judged: list[DayProfile],
    accepted: list[DayProfile] | None = None,
    earlier: list[DayProfile] | None = None,
) -> JudgedLog:
    return JudgedLog(
        as_of=AS_OF,
        uri="file:///log",
        days=tuple(judged),
        first_day=FIRST,
        end_day=FIRST + 14,
        accepted=tuple(days(56, FIRST_DAY) if accepted is None else accepted),
        earlier=tuple(earlier or ()),
    )


def judged(log: JudgedLog, tmp_path: Path) -> dict[str, ExpectationOutcome]:
    return {outcome.name: outcome for outcome in judge_log(log, tmp_path / "data_docs")}


def with_day(place: int, day: list[DayProfile]) -> list[DayProfile]:
    usual = days(14, FIRST)
    return [*usual[:place], *day, *usual[place + 1 :]]


NO_ACTIONS = profiles(lambda place: {"impressions.rows": 10_000.0}, 1, FIRST + 2)
CASES = [
    ("usual", days(14, FIRST), set(), "", ""),
    ("harm", days(14, FIRST, named__repin__known=0.5),
     {"log_days_as_usual", "log_as_usual", "log_harms_no_model"}, "log_harms_no_model",
     f"0.5 from {date_of(FIRST)} on, usual 1, allowed 0.975 to 1"),
    ("small", days(14, FIRST, named__repin__known=0.95), {"log_as_usual"}, "", ""),
    ("odd_day", with_day(3, days(1, FIRST + 3, actions__repin__rows=90.0)), {"log_days_as_usual"},
     "log_days_as_usual", f"90 on {date_of(FIRST + 3)}, usual 900"),
    ("missing", days(13, FIRST), {"log_has_every_day"}, "log_has_every_day",
     f"{date_of(FIRST + 13)} has no impressions"),
    ("three_missing", days(11, FIRST), {"log_has_every_day", "log_has_most_days"}, "", ""),
    ("no_actions", with_day(2, NO_ACTIONS), {"log_has_every_day", "log_days_as_usual",
     "log_as_usual"}, "log_has_every_day", f"{date_of(FIRST + 2)} has no actions"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("now", "unmet", "name", "observed"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_what_is_told_of_a_fortnight(
    tmp_path: Path, now: list[DayProfile], unmet: set[str], name: str, observed: str
) -> None:
    outcomes = judged(log_of(now), tmp_path)
    assert failed(outcomes) == unmet
    assert all(outcome.is_judged for outcome in outcomes.values())
    if name:
        assert observed in outcomes[name].observed
    assert outcomes["log_harms_no_model"].severity is Severity.CRITICAL
    told = (tmp_path / "data_docs" / "index.html").read_text()
    assert "file:///log" in told and "56 earlier days, 56 of them accepted" in told


def test_days_that_were_accepted_are_not_judged_again(tmp_path: Path) -> None:
    accepted = [*days(56, FIRST_DAY), *days(7, FIRST, named__repin__known=0.5)]
    now = [*days(7, FIRST, named__repin__known=0.5), *days(7, FIRST + 7)]
    log = log_of(now, accepted)
    assert [day.day for day in log.judged] == list(range(FIRST + 7, FIRST + 14))
    assert "log_harms_no_model" not in failed(judged(log, tmp_path))


def test_an_accepted_day_that_was_rewritten_is_told_and_judged(tmp_path: Path) -> None:
    accepted = [*days(56, FIRST_DAY), *days(7, FIRST)]
    now = [*days(1, FIRST, named__repin__known=0.1), *days(13, FIRST + 1)]
    log = log_of(now, accepted)
    assert list(log.rewritten) == [FIRST]
    assert FIRST in [day.day for day in log.judged]
    assert FIRST not in [day.day for day in log.history]
    outcome = judged(log, tmp_path)["log_days_as_accepted"]
    assert not outcome.is_met and outcome.severity is Severity.WARNING
    told = f"{date_of(FIRST)} was rewritten since it was accepted: named.repin.known changed"
    assert told in outcome.observed


def test_what_is_a_rewriting() -> None:
    (before,), (more,) = days(1, FIRST), days(1, FIRST, actions__save__rows=5.0)
    late, few = (days(1, FIRST, impressions__rows=rows)[0] for rows in (10_400.0, 6_000.0))
    assert changes(before, late) == (), "rows that became known later are none"
    assert changes(before, few) == ("impressions.rows",)
    assert changes(before, more) == changes(more, before) == ("actions.save.rows",)
    late.numbers["impressions.known_after_a_day"] = Number(value=0.2, num=10_000)
    late.numbers["actions.save.rows"] = Number(value=1.0, num=1)
    assert changes(before, late) == (), "nor are the latest rows or a single action"


def test_the_cause_comes_first_within_what_can_be(tmp_path: Path) -> None:
    """Lost rows are named before what follows from them, however far that is."""
    now = days(14, FIRST, impressions__rows=4_000.0, named__repin__known=0.1)
    told = judged(log_of(now), tmp_path)["log_as_usual"].observed
    assert told.index("impressions.rows: 4,000") < told.index("named.repin.known: 0.1")
    assert "allowed 0.975 to 1" in told


@pytest.mark.parametrize(
    ("name", "usual", "expected"),
    [
        ("joint.actions.named.mean", 0.99, [0.49, 1.0]),
        ("joint.impressions.cosine.mean", -0.98, [-1.0, -0.48]),
        ("joint.impressions.position~size", 0.99, [0.49, 1.0]),
        ("joint.users.requests.mean", 0.01, [0.0, 0.51]),
        ("joint.users.requests.deviation", -4.6, [0.0, 0.0066]),
        ("joint.actions.delay.mean", 0.01, [-0.49, 0.51]),
        ("actions.repin.lag_median_s", 0.01, [0.0, 0.665]),
        ("named.repin.delay_median_s", -3.0, [-32.1, -11.2]),
        ("users.state.new.of_all", -0.01, [0.6, 1.0]),
    ],
)
def test_what_is_allowed_is_what_a_number_can_be(
    name: str, usual: float, expected: list[float]
) -> None:
    found = allowed(Deviation(name, "run", kind_of(name), FIRST, usual, usual, 0.5))
    assert found == pytest.approx(expected, rel=0.01)
    unlimited = Deviation("named.repin.shown", "day", kind_of("x"), FIRST, 0.5, 0.5, math.inf)
    assert allowed(unlimited) == [0.0, 1.0]


def test_each_number_is_drawn_with_the_band_that_it_is_held_to() -> None:
    log = log_of(days(14, FIRST, impressions__rows=4_000.0))
    lines = {line.name: line for line in lines_of(deviations(log.history, log.judged))}
    assert set(lines) == set(USUAL) and lines["impressions.rows"].times_limit > 1
    drawn = lines["impressions.rows"].drawn
    assert drawn is not None and drawn.label == "impressions.rows by day"
    own, first = drawn.series["ours"], date_of(FIRST).toordinal()
    assert [value for _, value in own] == pytest.approx([10_000] * 28 + [4_000] * 14)
    (start, low), _, (end, high), _ = drawn.series["band"]
    assert (start, end) == (first - 0.5, first + 13.5) and 4_000 < low < 10_000 < high
    assert drawn.series["guide"] == [(start, pytest.approx(4_000)), (end, pytest.approx(4_000))]
    odd = log_of(with_day(3, days(1, FIRST + 3, actions__repin__rows=90.0)))
    line = max(lines_of(deviations(odd.history, odd.judged)), key=lambda each: each.times_limit)
    assert line.told.startswith(f"90 on {date_of(FIRST + 3)}") and line.drawn is not None
    assert [day for day, _ in line.drawn.series["band"]][:2] == [first + 2.5, first + 3.5]


def test_the_log_itself_stands_in_for_accepted_days(tmp_path: Path) -> None:
    log = log_of(days(14, FIRST, named__repin__known=0.5), [], days(56, FIRST_DAY))
    assert "log_harms_no_model" in failed(judged(log, tmp_path))
    assert (
        "56 earlier days, 0 of them accepted" in (tmp_path / "data_docs" / "index.html").read_text()
    )


def test_a_log_that_begins_now_is_not_judged_and_says_so(tmp_path: Path) -> None:
    outcomes = judged(log_of(days(14, FIRST, named__repin__known=0.1), []), tmp_path)
    assert failed(outcomes) == set()
    said = "not judged: 0 earlier days are known, and 14 are needed to know what is usual"
    assert outcomes["log_as_usual"].observed == said
