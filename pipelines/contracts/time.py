"""Time as tables hold it, whole milliseconds since the epoch in UTC, and as people write it.

Not for calendars or schedules: `pipelines.orchestration.timetable` has the cadence.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
EARLIEST_MS, LATEST_MS = 946_684_800_000, 4_102_444_800_000
"""2000-01-01 and 2100-01-01: a time outside is none in milliseconds. Seconds fall into 1970."""


def to_ms(instant: datetime) -> int:
    """Return an aware instant in milliseconds since the epoch, without rounding through a float."""
    whole = int(instant.timestamp())
    return whole * 1000 + instant.microsecond // 1000


def with_utc(time_ms: int) -> str:
    """Return milliseconds since the epoch for a message, and beside them the second in UTC."""
    try:
        instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    except OverflowError:  # no year that a calendar has
        return str(time_ms)
    return f"{time_ms} ({instant:%Y-%m-%d %H:%M:%S} UTC)"


def for_readers(instant: datetime, zone: str = "UTC") -> str:
    """Return an aware instant as people read it: in UTC, and in their own zone beside it.

    For example '2026-11-28 03:12 UTC (04:12 CET, Europe/Berlin)', with the day where it is another
    one there. The zone is an IANA name; where it is UTC, UTC stands alone.
    """
    in_utc = instant.astimezone(UTC)
    told = f"{in_utc:%Y-%m-%d %H:%M} UTC"
    if zone == "UTC":
        return told
    there = instant.astimezone(ZoneInfo(zone))
    day = "" if there.date() == in_utc.date() else f"{there:%Y-%m-%d} "
    return f"{told} ({day}{there:%H:%M %Z}, {zone})"


def floor_to_day(instant: datetime) -> datetime:
    """Return midnight of an aware instant's day in UTC."""
    return instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def parse_instant(text: str, option: str) -> datetime:
    """Return the day or instant in ISO 8601 that an option holds; without a zone it is in UTC.

    Raises:
        ConfigurationError: the text is neither a day nor an instant.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} is {text!r}; expected a day such as 2017-06-12; correct it"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class Window(Frozen):
    """A half-open interval of time [start, end)."""

    start: AwareDatetime
    end: AwareDatetime

    def overlaps(self, other: "Window") -> bool:
        """Return whether the two share an instant."""
        return self.start < other.end and other.start < self.end

    @property
    def start_ms(self) -> int:
        """Start in milliseconds since the epoch."""
        return to_ms(self.start)

    @property
    def end_ms(self) -> int:
        """End in milliseconds since the epoch."""
        return to_ms(self.end)
