"""The fortnight: due dates over a year, after outages and pauses, and through Airflow's own DAG."""

import json
from datetime import UTC, datetime, timedelta

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DataInterval, TimeRestriction

from pipelines.orchestration import timetable as module
from pipelines.orchestration.timetable import GridTimetable, HomefeedPlugin

START = datetime(2026, 1, 5, 6, tzinfo=UTC)  # a Monday
FORTNIGHT_S = 14 * 86400
DAY = timedelta(days=1)
BEGIN = START - 14 * DAY
"""The DAG's start_date: where the interval of the cycle of START begins."""


def at(*parts: int) -> pendulum.DateTime:
    return pendulum.datetime(*parts, tz="UTC")


def restriction(earliest=None, latest=None, catchup=False) -> TimeRestriction:
    return TimeRestriction(earliest=earliest, latest=latest, catchup=catchup)


@pytest.fixture
def clock(monkeypatch):
    """Set the time that the timetable sees."""

    def set_to(instant: datetime) -> None:
        monkeypatch.setattr(module, "utc_now", lambda: instant)

    return set_to


def follow(timetable, now_of_run, num_runs, catchup=False, last=None):
    """Return the due instants when the scheduler looks at the times that `now_of_run` gives."""
    found = []
    for _ in range(num_runs):
        now_of_run(last)
        info = timetable.next_dagrun_info(
            last_automated_data_interval=last, restriction=restriction(BEGIN, None, catchup)
        )
        assert info.data_interval.end == info.run_after
        last = info.data_interval
        found.append(info.run_after)
    return found


def test_a_year_of_cycles_is_every_second_monday(clock):
    clock(START)
    timetable = GridTimetable(START, FORTNIGHT_S)
    dates = follow(
        timetable, lambda last: clock((last.end if last else START) + timedelta(seconds=2)), 27
    )
    assert dates[0] == START
    assert dates[-1] == at(2027, 1, 4, 6)
    gaps_s = {(b - a).total_seconds() for a, b in zip(dates, dates[1:], strict=False)}
    assert gaps_s == {FORTNIGHT_S}
    assert {(d.weekday(), d.hour) for d in dates} == {(0, 6)}  # no drift over summer time


def test_the_interval_is_the_fortnight_before(clock):
    clock(START)
    info = GridTimetable(START, FORTNIGHT_S).next_dagrun_info(
        last_automated_data_interval=None, restriction=restriction()
    )
    assert info.data_interval == DataInterval(at(2025, 12, 22, 6), at(2026, 1, 5, 6))
    assert info.logical_date == at(2025, 12, 22, 6)


FORTNIGHTLY, TWICE_A_WEEK = 14, 3.5
MOMENTS = [0.02, 0.5, 2, 72, 6.9 * 24, 7.1 * 24, 14 * 24, 20 * 24]
"""Hours from the date of 2 February, 06:00, to the moment when the scheduler looks again."""


@pytest.mark.parametrize(
    ("days", "newest"),
    [
        (FORTNIGHTLY, [*6 * ["02-02 06"], *2 * ["02-16 06"]]),
        (
            TWICE_A_WEEK,
            [*4 * ["02-02 06"], "02-05 18", "02-09 06", "02-16 06", "02-19 18"],
        ),
    ],
)
def test_after_an_outage_the_newest_date_that_has_come_is_next(clock, days, newest):
    timetable = GridTimetable(START, days * 86400)
    due = at(2026, 2, 2, 6)
    last = DataInterval(due - 2 * days * DAY, due - days * DAY)
    found = []
    for hours in MOMENTS:
        clock(due + timedelta(hours=hours))
        info = timetable.next_dagrun_info(
            last_automated_data_interval=last, restriction=restriction(BEGIN)
        )
        assert info.data_interval == DataInterval(info.run_after - days * DAY, info.run_after)
        found.append(f"{info.run_after:%m-%d %H}")
    assert found == newest


@pytest.mark.parametrize("days", [FORTNIGHTLY, TWICE_A_WEEK])
def test_after_a_late_cycle_the_next_one_is_on_its_own_date(clock, days):
    due = at(2026, 2, 2, 6)
    clock(due + timedelta(hours=30))
    info = GridTimetable(START, days * 86400).next_dagrun_info(
        last_automated_data_interval=DataInterval(due - days * DAY, due),
        restriction=restriction(BEGIN),
    )
    assert info.run_after == due + days * DAY


@pytest.mark.parametrize(
    ("days", "now", "expected"),
    [
        (FORTNIGHTLY, (2026, 7, 1, 9, 30), (2026, 7, 6, 6)),
        (FORTNIGHTLY, (2026, 6, 23, 9, 30), (2026, 7, 6, 6)),
        (TWICE_A_WEEK, (2026, 7, 1, 9, 30), (2026, 7, 2, 18)),
        (FORTNIGHTLY, (2025, 12, 1), (2026, 1, 5, 6)),
    ],
)
def test_a_fresh_installation_waits_for_its_next_date(clock, days, now, expected):
    clock(at(*now))
    info = GridTimetable(START, days * 86400).next_dagrun_info(
        last_automated_data_interval=None, restriction=restriction(BEGIN)
    )
    assert info.run_after == at(*expected)


@pytest.mark.parametrize("late_s, expected_day", [(0, 19), (1, 19), (3600, 19), (3601, 2)])
def test_the_first_date_of_all_counts_for_an_hour(clock, late_s, expected_day):
    clock(at(2026, 1, 19, 6) + timedelta(seconds=late_s))
    info = GridTimetable(START, FORTNIGHT_S).next_dagrun_info(
        last_automated_data_interval=None, restriction=restriction(BEGIN)
    )
    assert info.run_after.day == expected_day


def test_catchup_runs_every_missed_cycle_in_order(clock):
    clock(at(2026, 3, 1))
    timetable = GridTimetable(START, FORTNIGHT_S)
    dates = follow(timetable, lambda last: None, 4, catchup=True)
    assert dates == [at(2026, 1, 5, 6), at(2026, 1, 19, 6), at(2026, 2, 2, 6), at(2026, 2, 16, 6)]


def test_a_cycle_that_ran_is_not_run_again_a_second_later(clock):
    clock(at(2026, 1, 19, 6, 0, 1))
    info = GridTimetable(START, FORTNIGHT_S).next_dagrun_info(
        last_automated_data_interval=DataInterval(at(2026, 1, 5, 6), at(2026, 1, 19, 6)),
        restriction=restriction(BEGIN),
    )
    assert info.run_after == at(2026, 2, 2, 6)


def test_a_change_of_cadence_lands_on_the_new_grid(clock):
    clock(at(2026, 1, 19, 7))
    info = GridTimetable(START, 3.5 * 86400).next_dagrun_info(
        last_automated_data_interval=DataInterval(at(2026, 1, 5, 6), at(2026, 1, 19, 6)),
        restriction=restriction(BEGIN),
    )
    assert info.run_after == at(2026, 1, 22, 18)


def test_an_interval_may_begin_at_the_start_and_at_the_end_date(clock):
    clock(at(2025, 1, 1))
    timetable = GridTimetable(START, FORTNIGHT_S)
    begin = at(2026, 1, 19, 6)
    second = timedelta(seconds=1)

    def due(earliest, latest=None):
        info = timetable.next_dagrun_info(
            last_automated_data_interval=None, restriction=restriction(earliest, latest)
        )
        return info and info.run_after

    assert due(begin, begin) == begin + 14 * DAY
    assert due(begin, begin - second) is None
    assert due(begin + second) == begin + 28 * DAY


def test_a_backfill_takes_the_cycles_whose_logical_date_is_in_its_range():
    with DAG("range", schedule=GridTimetable(START, FORTNIGHT_S), start_date=BEGIN) as dag:
        pass
    found = DagSerialization.from_dict(DagSerialization.to_dict(dag)).iter_dagrun_infos_between(
        at(2026, 1, 19, 6), at(2026, 2, 16, 5)
    )
    assert [info.logical_date for info in found] == [at(2026, 1, 19, 6), at(2026, 2, 2, 6)]


def test_a_manual_run_gets_the_fortnight_that_ends_at_its_own_time():
    moment = at(2026, 3, 4, 15, 20)
    interval = GridTimetable(START, FORTNIGHT_S).infer_manual_data_interval(run_after=moment)
    assert interval == DataInterval(at(2026, 2, 18, 15, 20), moment)


def test_it_survives_airflows_own_dag_serialisation(clock):
    with DAG("round_trip", schedule=GridTimetable(START, 3.5 * 86400), start_date=BEGIN) as dag:
        pass
    stored_dag = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    found = DagSerialization.from_dict(stored_dag).timetable
    assert isinstance(found, GridTimetable)
    assert (found.start, found.period) == (START, 3.5 * DAY)
    assert found.summary == "every 3.5 days from 2026-01-05 06:00"
    assert "3.5 days" in found.description
    clock(at(2026, 1, 6))
    info = DagSerialization.from_dict(stored_dag).next_dagrun_info(last_automated_run_info=None)
    assert info.run_after == at(2026, 1, 8, 18)


def test_the_plugin_registers_it_with_airflow():
    from airflow import plugins_manager

    assert GridTimetable in HomefeedPlugin.timetables
    assert (
        "pipelines.orchestration.timetable.GridTimetable"
        in plugins_manager.get_timetables_plugins()
    )


@pytest.mark.parametrize(
    ("start", "period_s", "said"),
    [
        *((START, period_s, "period_s") for period_s in (0, -5, float("inf"), float("nan"))),
        (datetime(2026, 1, 5), FORTNIGHT_S, "time zone"),
    ],
)
def test_a_schedule_that_is_none_is_refused(start, period_s, said):
    with pytest.raises(ValueError, match=said):
        GridTimetable(start, period_s)
