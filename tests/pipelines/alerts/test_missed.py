"""What people are told about cycles that were due and did not run."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.alerts.missed import MissedCycles, compose_missed
from pipelines.alerts.rendering import render
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.judged.alert import AlertKind
from pipelines.settings import Settings
from support.commands import parse, split

DUE = datetime(2026, 2, 16, 6, tzinfo=UTC)
FORTNIGHT = timedelta(days=14)
SETTINGS = Settings(workspace="/a place", airflow_url="http://air:8080/")
REQUEST = RunRequest(
    recipe="smoke",
    as_of=DUE,
    now=DUE,
    may_promote=True,
    num_devices=2,
    trigger="scheduled__2026-02-16T06:00:00+00:00",
)


def missed(num_skipped: int, is_too_late: bool) -> MissedCycles:
    newest = DUE if is_too_late else DUE - FORTNIGHT
    return MissedCycles(
        skipped=tuple(newest - k * FORTNIGHT for k in reversed(range(num_skipped))),
        due=DUE,
        started_at=DUE + timedelta(days=8 if is_too_late else 3),
        is_too_late=is_too_late,
        max_lateness=FORTNIGHT / 2,
        next_due=DUE + FORTNIGHT,
    )


def test_a_run_that_skipped_itself_says_why_and_how_to_run_it():
    alert = compose_missed(missed(1, True), REQUEST, SETTINGS)
    assert alert.kind is AlertKind.MISSED_CYCLE
    assert alert.title == "Homefeed retrain 2026-02-16: the cycle was skipped"
    assert "No cycle ran for 2026-02-16 06:00 UTC." in alert.happened
    assert "at 2026-02-24 06:00 UTC, 8.0 days after its date" in alert.happened
    assert "up to 7.0 days late, so that run was skipped" in alert.happened
    assert (
        "Nothing was trained" in alert.done
        and "the next one is that of 2026-03-02 06:00" in alert.done
    )
    command = alert.next_step.commands[0][1]
    found = parse(command)
    assert (found.info_name, found.params["as_of"], found.params["devices"]) == (
        "retrain",
        "2026-02-16",
        2,
    )
    assert found.params["key"] == REQUEST.trigger
    assert split(command)[0]["HOMEFEED_WORKSPACE"] == "file:///a%20place"
    page = "http://air:8080/dags/homefeed_retrain/runs/scheduled__2026-02-16T06%3A00%3A00%2B00%3A00"
    assert alert.links[0] == ("Airflow run", page)


def test_a_short_time_is_told_in_hours():
    """With a period of a day, 13 hours and 12 hours must not both read as half a day."""
    found = replace(
        missed(1, True),
        started_at=DUE + timedelta(hours=13),
        max_lateness=timedelta(hours=12),
        next_due=DUE + timedelta(days=1),
    )
    happened = compose_missed(found, REQUEST, SETTINGS).happened
    assert "13.0 hours after its date" in happened and "up to 12.0 hours late" in happened


def test_a_late_run_names_the_older_ones_and_asks_for_no_other_run():
    alert = compose_missed(missed(2, False), REQUEST, SETTINGS)
    assert alert.title == "Homefeed retrain 2026-02-02: 2 cycles were skipped"
    assert "for 2026-01-19 06:00 UTC, 2026-02-02 06:00 UTC." in alert.happened
    assert "so that run was skipped" not in alert.happened
    assert "The cycle of 2026-02-16 06:00 UTC is running, as of its own date." in alert.done
    assert [parse(command).info_name for _, command in alert.next_step.commands] == ["serving"]


def test_an_old_run_after_a_long_outage_points_to_the_newest_cycle():
    newest = DUE + FORTNIGHT
    found = replace(missed(1, True), started_at=newest + timedelta(days=3), next_due=newest)
    alert = compose_missed(found, REQUEST, SETTINGS)
    assert "Nothing was trained" in alert.done
    assert "the next one is that of 2026-03-02 06:00 UTC" in alert.done
    assert [parse(command).info_name for _, command in alert.next_step.commands] == ["serving"]


@pytest.mark.parametrize(("num_skipped", "is_listed"), [(12, True), (13, False)])
def test_many_dates_are_counted_and_not_listed(num_skipped, is_listed):
    alert = compose_missed(missed(num_skipped, True), REQUEST, SETTINGS)
    first = DUE - (num_skipped - 1) * FORTNIGHT
    assert (f"{num_skipped} due dates, from {first:%Y-%m-%d}" in alert.happened) != is_listed
    assert alert.happened.splitlines()[0].count("UTC") == (num_skipped if is_listed else 2)


def test_the_same_finding_has_the_same_words():
    """The outbox knows an alert by its words; a retry must not tell it again."""
    once, again = (compose_missed(missed(2, True), REQUEST, SETTINGS) for _ in range(2))
    assert once.fingerprint() == again.fingerprint()
    assert "missed_cycle" in render(once).text
