"""The fortnight as Airflow asks for it: next dates, and through Airflow's own serialisation.

Outages, pauses and changes of cadence over many looks are tested in test_schedule.py.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow import plugins_manager
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DataInterval, TimeRestriction

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


def next_of(
    now: datetime,
    last: datetime | None = None,
    days: float = 14,
    before: float | None = None,
    catchup: bool = False,
    bounds: tuple[Any, Any] = (BEGIN, None),
) -> Any:
    """Return when the next cycle runs; `last` is when the last one did, on a grid of `before`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timetable, "utc_now", lambda: now)
        period = timedelta(days=before or days)
        info = every(days).next_dagrun_info(
            last_automated_data_interval=last and DataInterval(last - period, last),
            restriction=TimeRestriction(*bounds, catchup=catchup),
        )
    if info is None:
        return None
    assert info.data_interval == DataInterval(info.run_after - days * DAY, info.run_after)
    assert info.logical_date == info.data_interval.start
    return info.run_after


def test_a_run_of_a_person_has_the_period_before_it() -> None:
    interval = every(14).infer_manual_data_interval(run_after=DUE + SECOND)
    assert interval == DataInterval(DUE + SECOND - FORTNIGHT, DUE + SECOND)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # After an outage the newest date that has come is next.
        ({"now": DUE + 13.9 * DAY, "last": DUE - FORTNIGHT}, DUE),
        ({"now": DUE + FORTNIGHT, "last": DUE - FORTNIGHT}, DUE + FORTNIGHT),
        ({"now": DUE + 7.1 * DAY, "last": DUE - 3.5 * DAY, "days": 3.5}, DUE + 7 * DAY),
        # After a late cycle the next one is on its own date; one that ran is not run again.
        ({"now": DUE + 1.2 * DAY, "last": DUE}, DUE + FORTNIGHT),
        ({"now": DUE + SECOND, "last": DUE, "days": 3.5}, DUE + 3.5 * DAY),
        # A change of cadence lands on the new grid.
        ({"now": DUE + SECOND, "last": DUE, "days": 3.5, "before": 14}, DUE + 3.5 * DAY),
        # A fresh installation waits for its next date; the first of all counts for an hour.
        ({"now": START + 177.1 * DAY}, START + 13 * FORTNIGHT),
        ({"now": START + 177.1 * DAY, "days": 3.5}, START + 178.5 * DAY),
        ({"now": START - 35 * DAY}, START),
        ({"now": DUE + 3600 * SECOND}, DUE),
        ({"now": DUE + 3601 * SECOND}, DUE + FORTNIGHT),
        # With catchup every cycle is next.
        ({"now": DUE + 99 * DAY, "catchup": True}, START),
        ({"now": DUE + 99 * DAY, "catchup": True, "last": DUE}, DUE + FORTNIGHT),
        # An interval may begin at the start and at the end date.
        ({"now": BEGIN, "bounds": (DUE, DUE)}, DUE + FORTNIGHT),
        ({"now": BEGIN, "bounds": (DUE, DUE - SECOND)}, None),
        ({"now": BEGIN, "bounds": (DUE + SECOND, None)}, DUE + 2 * FORTNIGHT),
    ],
)
def test_the_next_date(options: dict[str, Any], expected: datetime | None) -> None:
    assert next_of(**options) == expected


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
