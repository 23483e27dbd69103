"""Time as tables hold it: whole milliseconds since the epoch, UTC.

Not for calendars or schedules: `pipelines.orchestration.timetable` has the cadence.
"""

from datetime import datetime

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def to_ms(instant: datetime) -> int:
    """Return an aware instant in milliseconds since the epoch, without rounding through a float."""
    whole = int(instant.timestamp())
    return whole * 1000 + instant.microsecond // 1000
