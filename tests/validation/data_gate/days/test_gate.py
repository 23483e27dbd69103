"""The gate of an event log's days: what it refuses, what it warns of, and how it says so."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.contracts.artifacts import ExpectationOutcome, Severity
from pipelines.contracts.day_profile import DayProfile, Number
from support.log_days import FIRST_DAY, profiles
from validation.data_gate.days.gate import JudgedLog, changes, date_of, judge_log

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


def failed(outcomes: dict[str, ExpectationOutcome]) -> set[str]:
    return {name for name, outcome in outcomes.items() if not outcome.is_met}


def test_a_usual_fortnight_passes_and_its_page_reads(tmp_path: Path) -> None:
    outcomes = judged(log_of(days(14, FIRST)), tmp_path)
    assert failed(outcomes) == set()
    assert all(outcome.is_judged for outcome in outcomes.values())
    page = (tmp_path / "data_docs" / "index.html").read_text()
    assert "file:///log" in page and "56 days from" in page and "of accepted snapshots" in page


def test_what_harms_a_model_is_critical_and_says_what_was_usual(tmp_path: Path) -> None:
    outcomes = judged(log_of(days(14, FIRST, named__repin__known=0.5)), tmp_path)
    assert failed(outcomes) == {"log_days_as_usual", "log_as_usual", "log_harms_no_model"}
    outcome = outcomes["log_harms_no_model"]
    assert outcome.severity is Severity.CRITICAL
    assert outcome.partitions == ("named.repin.known",)
    assert f"0.5 from {date_of(FIRST)} on, usual 1, allowed 0.975 to 1.02" in outcome.observed


def test_a_small_change_is_a_warning(tmp_path: Path) -> None:
    outcomes = judged(log_of(days(14, FIRST, named__repin__known=0.95)), tmp_path)
    assert failed(outcomes) == {"log_as_usual"}


def test_one_odd_day_is_named(tmp_path: Path) -> None:
    odd = days(1, FIRST + 3, actions__repin__rows=90.0)
    usual = days(14, FIRST)
    usual[3:4] = odd
    outcomes = judged(log_of(usual), tmp_path)
    assert failed(outcomes) == {"log_days_as_usual"}
    assert f"90 on {date_of(FIRST + 3)}, usual 900" in outcomes["log_days_as_usual"].observed


@pytest.mark.parametrize(("num_missing", "names"), [
    (1, {"log_has_every_day"}), (3, {"log_has_every_day", "log_has_most_days"}),
])  # fmt: skip
def test_missing_days(tmp_path: Path, num_missing: int, names: set[str]) -> None:
    there = days(14 - num_missing, FIRST)
    outcomes = judged(log_of(there), tmp_path)
    assert failed(outcomes) == names
    missing = date_of(FIRST + 14 - num_missing)
    expected = f"{missing} has no impressions and no actions"
    assert expected in outcomes["log_has_every_day"].observed
    assert f"{missing}" in outcomes["log_has_every_day"].partitions


def test_a_day_without_actions_is_told_from_one_without_impressions(tmp_path: Path) -> None:
    no_actions = profiles(lambda place: {"impressions.rows": 10_000.0}, 1, FIRST + 2)
    usual = days(14, FIRST)
    usual[2:3] = no_actions
    observed = judged(log_of(usual), tmp_path)["log_has_every_day"].observed
    assert f"{date_of(FIRST + 2)} has no actions" in observed


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
    assert f"{date_of(FIRST)} was rewritten since it was accepted" in outcome.observed
    assert "named.repin.known changed" in outcome.observed


def test_rows_that_became_known_later_are_no_rewriting() -> None:
    before, now = days(1, FIRST), days(1, FIRST, impressions__rows=10_400.0)
    assert changes(before[0], now[0]) == ()
    assert changes(before[0], days(1, FIRST, impressions__rows=6_000.0)[0]) == ("impressions.rows",)


def test_the_latest_rows_come_last_and_a_single_action_is_chance() -> None:
    early, late = days(1, FIRST)[0], days(1, FIRST, impressions__known_after_a_day=0.2)[0]
    early.numbers["impressions.known_after_a_day"] = Number(value=0.0, num=10_000)
    late.numbers["actions.save.rows"] = Number(value=1.0, num=1)
    assert changes(early, late) == ()


def test_a_type_that_appears_or_goes_is_a_rewriting() -> None:
    before = days(1, FIRST)[0]
    more = days(1, FIRST, actions__save__rows=5.0)[0]
    assert changes(before, more) == changes(more, before) == ("actions.save.rows",)


def test_the_log_itself_stands_in_for_accepted_days(tmp_path: Path) -> None:
    log = log_of(days(14, FIRST, named__repin__known=0.5), [], days(56, FIRST_DAY))
    assert "log_harms_no_model" in failed(judged(log, tmp_path))
    page = (tmp_path / "data_docs" / "index.html").read_text()
    assert "of the log itself" in page


def test_a_log_that_begins_now_is_not_judged_and_says_so(tmp_path: Path) -> None:
    outcomes = judged(log_of(days(14, FIRST, named__repin__known=0.1), []), tmp_path)
    assert failed(outcomes) == set()
    observed = outcomes["log_as_usual"].observed
    assert (
        observed == "not judged: 0 earlier days are known, and 14 are needed to know what is usual"
    )
