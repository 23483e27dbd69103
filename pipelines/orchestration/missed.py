"""Accounts for every due date: what was skipped is told, once, when a scheduled run starts.

The run tells of the cycles before it that did not run, and skips itself if it starts too late. The
account lies in the workspace: it outlives Airflow's database and needs nothing of the scheduler.
Not for choosing the next date: that is `pipelines.orchestration.timetable`.
"""

import logging
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException
from pydantic import AwareDatetime, Field

from pipelines import storage
from pipelines.alerts.compose import MissedCycles, compose_missed
from pipelines.alerts.transports import deliver
from pipelines.contracts.alert import Alert
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import HomefeedError
from pipelines.orchestration.grid import Grid, grid_of, standard_utc
from pipelines.places.conditional import Revision
from pipelines.settings import Settings

log = logging.getLogger(__name__)

MAX_LATENESS_PERIODS = 0.5
"""How long after its date a missed cycle still runs, in periods of the schedule."""
RECORD_WAIT_S = 120.0
"""How long a run waits for another one that writes the record, in seconds."""


class ScheduleRecord(Frozen):
    """Which due dates are accounted for: each of them was run, or is told as skipped.

    <workspace>/schedule/record.json    written before an alert is sent, and after
    """

    accounted_until: AwareDatetime = Field(description="Newest due date that is accounted for.")
    start: AwareDatetime = Field(description="The schedule's start when this was written.")
    period_s: float = Field(gt=0, description="The schedule's period when this was written.")
    untold: tuple[Alert, ...] = Field(
        default=(), description="Alerts about skipped cycles that a transport did not take yet."
    )


def account_for(dag_run: Any, request: RunRequest, settings: Settings, catchup: bool) -> None:
    """Tell of the cycles that were skipped up to this scheduled run, each in one alert.

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
    grid = grid_of(settings)
    due = standard_utc(dag_run.data_interval_end)
    # Airflow sets start_date before a task of the run begins; its type allows for a run in waiting.
    started_at = standard_utc(dag_run.start_date or dag_run.run_after)
    max_lateness = MAX_LATENESS_PERIODS * grid.period
    is_too_late = not (catchup or dag_run.clear_number) and started_at - due > max_lateness
    uri, runs_uri = record_uri(settings), storage.join(_workspace_of(settings), "runs")
    # Of these days the workspace holds a cycle, whoever has begun it.
    on_record = {name[:10] for name in storage.list_names(runs_uri)}
    with storage.exclusive_lock(uri, "the account of due dates", RECORD_WAIT_S):
        seen, record = storage.look(uri), None
        if storage.exists(uri):
            repair = "delete it and clear the task; what was skipped before is not told any more"
            record = storage.read_model(uri, ScheduleRecord, repair)
        found = find_skipped(record, grid, due, is_too_late)
        skipped = tuple(date for date in found if f"{date:%Y-%m-%d}" not in on_record)
        untold = record.untold if record else ()
        if skipped:
            next_due = max(grid.at_or_before(started_at), grid.after(due))
            missed = MissedCycles(skipped, due, started_at, is_too_late, max_lateness, next_due)
            untold = (*untold, compose_missed(missed, request, settings))
        record = ScheduleRecord(
            accounted_until=max(due, record.accounted_until) if record else due,
            start=grid.start,
            period_s=grid.period.total_seconds(),
            untold=untold,
        )
        seen = storage.write_over(uri, record, seen)
        _tell(uri, record, seen, settings, is_cycle_running=not is_too_late)
    if is_too_late:
        raise AirflowSkipException(
            f"this run is due at {due:%Y-%m-%d %H:%M} UTC and started at "
            f"{started_at:%Y-%m-%d %H:%M} UTC; expected at most {max_lateness} between them "
            f"(half a period); clear the run to run it all the same"
        )


def find_skipped(
    record: ScheduleRecord | None, grid: Grid, due: datetime, is_too_late: bool
) -> tuple[datetime, ...]:
    """Return the due dates that nobody has accounted for and that are not run, oldest first.

    Where the schedule has changed since the record was written, only dates of both schedules count:
    the others may not have been due at their time.

    Args:
        record: the account so far; None before the first scheduled run, which misses nothing.
        grid: the schedule.
        due: the date of the run that starts.
        is_too_late: whether that run is skipped.
    """
    its_own = (due,) if is_too_late else ()
    if record is None:
        return its_own
    before = Grid(record.start, timedelta(seconds=record.period_s))
    dates = (*grid.between(record.accounted_until, due), *its_own)
    return tuple(
        date for date in dates if date > record.accounted_until and before.at_or_after(date) == date
    )


def record_uri(settings: Settings) -> str:
    """Return where the account of due dates lies."""
    return storage.join(_workspace_of(settings), "schedule", "record.json")


def _workspace_of(settings: Settings) -> str:
    return storage.to_uri(settings.workspace_location)


def _tell(
    uri: str, record: ScheduleRecord, seen: Revision, settings: Settings, is_cycle_running: bool
) -> None:
    """Send what is untold, and note what was sent."""
    for alert in record.untold:
        try:
            deliver(alert, settings)
        except HomefeedError as error:
            if not is_cycle_running:
                raise
            # A cycle is not given up for a message, which the next scheduled run sends again.
            log.warning("skipped cycles are told when the next run starts: %s", error)
            return
        rest = tuple(other for other in record.untold if other != alert)
        record = record.model_copy(update={"untold": rest})
        seen = storage.write_over(uri, record, seen)
