"""The schedule: the instants at which cycles are due, and the account of those that were missed.

Due is `start + k * period`, computed exactly. The command line asks here, because Airflow takes
seconds to be imported; what Airflow is given is `pipelines.orchestration.timetable`.

    <workspace>/schedule/record.json    a ScheduleRecord, written when people have been told

The account outlives Airflow's database and needs nothing of the scheduler. A transport that did not
take the alert is tried again from the outbox.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import AwareDatetime

from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.settings import Settings

log = logging.getLogger(__name__)
TICK = timedelta(microseconds=1)
"""The smallest step of an instant: what is a tick later is after it."""
MAX_LATENESS_PERIODS = 0.5
"""How long after its date a missed cycle still runs, in periods of the schedule."""


@dataclass(frozen=True)
class Grid:
    """Due instants, before the start as well as after it; all instants are in UTC.

    Attributes:
        start: an aware instant in UTC at which a cycle is due.
        period: time between two cycles, above zero.
    """

    start: datetime
    period: timedelta

    def at_or_after(self, instant: datetime) -> datetime:
        """Return the first due instant that is not before the given one."""
        # timedelta's own floor division is exact; a float quotient would be off by one near a hit.
        return self.start - (self.start - instant) // self.period * self.period

    def after(self, instant: datetime) -> datetime:
        """Return the first due instant that is after the given one."""
        return self.at_or_after(instant + TICK)

    def at_or_before(self, instant: datetime) -> datetime:
        """Return the last due instant that is not after the given one."""
        return self.after(instant) - self.period

    def between(self, after: datetime, before: datetime) -> tuple[datetime, ...]:
        """Return the due instants between two others, which are left out, oldest first."""
        first = self.after(after)
        count = max(0, -((first - before) // self.period))
        return tuple(first + number * self.period for number in range(count))


def standard_utc(instant: datetime) -> datetime:
    """Return the instant as a standard datetime in UTC: pendulum's differences do not divide."""
    utc = instant.astimezone(UTC)
    return datetime(*utc.timetuple()[:6], utc.microsecond, UTC)


def grid_of(settings: Settings) -> Grid:
    """Return the due instants of a deployment.

    Raises:
        ConfigurationError: the start is no instant with a time zone.
    """
    try:
        start = datetime.fromisoformat(settings.schedule_start)
    except ValueError:
        start = None
    if start is None or start.tzinfo is None:
        raise ConfigurationError(
            f"HOMEFEED_SCHEDULE_START is {settings.schedule_start!r}; expected an instant with its "
            f"time zone, such as 2026-01-05T06:00:00+00:00; correct the environment"
        )
    return Grid(start.astimezone(UTC), timedelta(days=settings.cadence_days))


class ScheduleRecord(Frozen):
    """Which due dates are accounted for: each of them was run, or is told as skipped."""

    accounted_until: AwareDatetime  # Newest due date that is accounted for.


def account_for(dag_run: Any, request: RunRequest, settings: Settings) -> None:
    """Tell of the cycles that were skipped up to this scheduled run, all in one alert.

    Before the first run nothing is missed.

    Args:
        dag_run: the scheduled run that starts. A person who clears a run wants it, however late.
        request: what the run asks for.
        settings: the schedule, how late a cycle may start, and places.

    Raises:
        AirflowSkipException: the run started too late and is not to be run.
        HomefeedError: the record cannot be read or written; or the run is too late, and the alert
            that says so was not delivered.
    """
    from airflow.sdk.exceptions import AirflowSkipException

    from pipelines import storage
    from pipelines.alerts.compose import compose_missed
    from pipelines.alerts.transports import deliver

    grid, due = grid_of(settings), standard_utc(dag_run.data_interval_end)
    # Airflow sets start_date before a task of the run begins; its type allows for a run in waiting.
    started_at = standard_utc(dag_run.start_date or dag_run.run_after)
    max_lateness = MAX_LATENESS_PERIODS * grid.period
    is_too_late = not dag_run.clear_number and started_at - due > max_lateness
    workspace, until = settings.workspace_uri, due
    uri = storage.join(workspace, "schedule", "record.json")
    found: tuple[datetime, ...] = (due,) if is_too_late else ()
    repair = "delete it and clear the task; what was skipped before is not told any more"
    if record := storage.find_model(uri, ScheduleRecord, repair):
        until = record.accounted_until
        found = (*grid.between(until, due), *(date for date in found if date > until))
    # Of these days the workspace holds a cycle, whoever has begun it.
    on_record = {name[:10] for name in storage.list_names(storage.join(workspace, "runs"))}
    skipped = tuple(date for date in found if f"{date:%Y-%m-%d}" not in on_record)
    try:
        if skipped:
            is_newer = not is_too_late or grid.at_or_before(started_at) > due
            deliver(compose_missed(skipped, request, settings, is_newer), settings)
    except HomefeedError as error:
        if is_too_late:
            raise
        # A cycle is not given up for a message, which waits in the outbox.
        log.warning("not everybody was told of skipped cycles: %s", error)
    storage.write_model(uri, ScheduleRecord(accounted_until=max(due, until)))
    if is_too_late:
        raise AirflowSkipException(
            f"this run was due at {due:%Y-%m-%d %H:%M} UTC and started {started_at - due} later; "
            f"expected at most {max_lateness}; clear the run to run it all the same"
        )
