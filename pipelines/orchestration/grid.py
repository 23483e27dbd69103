"""The instants at which cycles are due: `start + k * period`, computed exactly and without Airflow.

What Airflow is given is `pipelines.orchestration.timetable`; the command line asks here, because
Airflow takes seconds to be imported.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings

TICK = timedelta(microseconds=1)
"""The smallest step of an instant: what is a tick later is after it."""


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
