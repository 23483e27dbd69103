"""Accounts for every due date: what was skipped is told, once, when a scheduled run starts.

    <workspace>/schedule/record.json    a ScheduleRecord, written when people have been told

The account outlives Airflow's database and needs nothing of the scheduler. A transport that did not
take the alert is tried again from the outbox. Not for choosing the next date
(`pipelines.orchestration.timetable`).
"""

import logging
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException
from pydantic import AwareDatetime, Field

from pipelines import storage
from pipelines.alerts.compose import MissedCycles, compose_missed
from pipelines.alerts.transports import deliver
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import HomefeedError
from pipelines.orchestration.grid import Grid, grid_of, standard_utc
from pipelines.settings import Settings

log = logging.getLogger(__name__)
MAX_LATENESS_PERIODS = 0.5
"""How long after its date a missed cycle still runs, in periods of the schedule."""


class ScheduleRecord(Frozen):
    """Which due dates are accounted for: each of them was run, or is told as skipped."""

    accounted_until: AwareDatetime = Field(description="Newest due date that is accounted for.")
    start: AwareDatetime = Field(description="The schedule's start when this was written.")
    period_s: float = Field(gt=0, description="The schedule's period when this was written.")

    def has(self, date: datetime) -> bool:
        """Return whether a date is due by this schedule and not accounted for."""
        grid = Grid(self.start, timedelta(seconds=self.period_s))
        return date > self.accounted_until and grid.at_or_after(date) == date


def account_for(dag_run: Any, request: RunRequest, settings: Settings, catchup: bool) -> None:
    """Tell of the cycles that were skipped up to this scheduled run, each in one alert.

    Where the schedule has changed since the record was written, only dates of both schedules count:
    the others may not have been due at their time. Before the first run nothing is missed.

    Args:
        dag_run: the scheduled run that starts. A person who clears a run wants it, however late.
        request: what the run asks for.
        settings: the schedule, how late a cycle may start, and places.
        catchup: whether the DAG replays what was missed; then no run is too late.

    Raises:
        AirflowSkipException: the run started too late and is not to be run.
        HomefeedError: the record cannot be read or written; or the run is too late, and the alert
            that says so was not delivered.
    """
    grid, due = grid_of(settings), standard_utc(dag_run.data_interval_end)
    # Airflow sets start_date before a task of the run begins; its type allows for a run in waiting.
    started_at = standard_utc(dag_run.start_date or dag_run.run_after)
    max_lateness = MAX_LATENESS_PERIODS * grid.period
    is_too_late = not (catchup or dag_run.clear_number) and started_at - due > max_lateness
    workspace, uri = storage.to_uri(settings.workspace_location), record_uri(settings)
    record, found = None, (due,) if is_too_late else ()
    if storage.exists(uri):
        repair = "delete it and clear the task; what was skipped before is not told any more"
        record = storage.read_model(uri, ScheduleRecord, repair)
        dates = (*grid.between(record.accounted_until, due), *found)
        found = tuple(date for date in dates if record.has(date))
    # Of these days the workspace holds a cycle, whoever has begun it.
    on_record = {name[:10] for name in storage.list_names(storage.join(workspace, "runs"))}
    skipped = tuple(date for date in found if f"{date:%Y-%m-%d}" not in on_record)
    try:
        if skipped:
            next_due = max(grid.at_or_before(started_at), grid.after(due))
            missed = MissedCycles(skipped, due, started_at, is_too_late, max_lateness, next_due)
            deliver(compose_missed(missed, request, settings), settings)
    except HomefeedError as error:
        if is_too_late:
            raise
        # A cycle is not given up for a message, which waits in the outbox.
        log.warning("not everybody was told of skipped cycles: %s", error)
    now_accounted = ScheduleRecord(
        accounted_until=max(due, record.accounted_until) if record else due,
        start=grid.start,
        period_s=grid.period.total_seconds(),
    )
    storage.write_model(uri, now_accounted)
    if is_too_late:
        raise AirflowSkipException(
            f"this run is due at {due:%Y-%m-%d %H:%M} UTC and started at "
            f"{started_at:%Y-%m-%d %H:%M} UTC; expected at most {max_lateness} between them "
            f"(half a period); clear the run to run it all the same"
        )


def record_uri(settings: Settings) -> str:
    """Return where the account of due dates lies."""
    return storage.join(storage.to_uri(settings.workspace_location), "schedule", "record.json")
