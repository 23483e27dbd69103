"""The fortnight as Airflow asks for it: next dates, and through Airflow's own serialisation.

Outages, pauses and changes of cadence over many looks are tested in test_schedule.py.
"""

import json
from datetime import UTC, datetime, timedelta

import pytest
from airflow import plugins_manager
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction

from pipelines.orchestration import timetable
from pipelines.orchestration.run_note import RunNotes
from pipelines.orchestration.schedule import Grid
from pipelines.orchestration.timetable import GridTimetable, HomefeedPlugin

START = datetime(2026, 1, 5, 6, tzinfo=UTC)  # a Monday
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
FORTNIGHT = 14 * DAY
BEGIN = START - FORTNIGHT
"""The DAG's start_date: where the interval of the cycle of START begins."""
DUE = START + 2 * FORTNIGHT


def every(days: float) -> GridTimetable:
    return GridTimetable(Grid(START, timedelta(days=days)))


def test_a_run_of_a_person_has_the_period_before_it() -> None:
    interval = every(14).infer_manual_data_interval(run_after=DUE + SECOND)
    assert interval == DataInterval(DUE + SECOND - FORTNIGHT, DUE + SECOND)


@pytest.mark.parametrize(
    ("now", "last", "catchup", "bounds", "expected"),
    [
        # A fresh installation waits for its next date; the first of all counts for an hour.
        (START - 35 * DAY, None, False, (BEGIN, None), START),
        (DUE + 3600 * SECOND, None, False, (BEGIN, None), DUE),
        (DUE + 3601 * SECOND, None, False, (BEGIN, None), DUE + FORTNIGHT),
        # One that ran is not run again.
        (DUE + SECOND, DUE, False, (BEGIN, None), DUE + FORTNIGHT),
        # With catchup every cycle is next.
        (DUE + 99 * DAY, None, True, (BEGIN, None), START),
        (DUE + 99 * DAY, DUE, True, (BEGIN, None), DUE + FORTNIGHT),
        # An interval may begin at the start and at the end date.
        (BEGIN, None, False, (DUE, DUE), DUE + FORTNIGHT),
        (BEGIN, None, False, (DUE, DUE - SECOND), None),
        (BEGIN, None, False, (DUE + SECOND, None), DUE + 2 * FORTNIGHT),
    ],
)
def test_the_next_date(monkeypatch, now, last, catchup, bounds, expected) -> None:
    monkeypatch.setattr(timetable, "utc_now", lambda: now)
    info = every(14).next_dagrun_info(
        last_automated_data_interval=last and DataInterval(last - FORTNIGHT, last),
        restriction=TimeRestriction(*bounds, catchup=catchup),
    )
    interval = expected and DataInterval(expected - FORTNIGHT, expected)
    assert info == (interval and DagRunInfo.interval(*interval))


def test_it_survives_airflows_own_dag_serialisation_and_a_backfill_takes_its_range() -> None:
    with DAG("round_trip", schedule=every(3.5), start_date=BEGIN) as dag:
        pass
    stored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    found = stored.timetable
    assert isinstance(found, GridTimetable) and found.grid == every(3.5).grid
    assert found.summary == "every 3.5 days from 2026-01-05 06:00"
    taken = stored.iter_dagrun_infos_between(DUE, DUE + 7 * DAY - SECOND)
    assert [info.logical_date for info in taken] == [DUE, DUE + 3.5 * DAY]


def test_the_plugin_registers_it_and_the_listener_with_airflow() -> None:
    name = "pipelines.orchestration.timetable.GridTimetable"
    assert name in plugins_manager.get_timetables_plugins()
    assert any(isinstance(each, RunNotes) for each in HomefeedPlugin.listeners)
