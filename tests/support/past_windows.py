"""What the gate of days would have said of a log's past, each window by the days before it."""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import NamedTuple

from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.progress import tracked
from validation.data_gate.days.gate import date_of
from validation.data_gate.days.limits import deviations

CYCLE_DAYS = 14


class PastWindow(NamedTuple):
    """One window of the past, and what would have been said of it."""

    first: date
    worst: float  # The largest deviation, as a multiple of its limit.
    warnings: tuple[str, ...]
    is_critical: bool


def past_windows(
    days: Sequence[DayProfile], num_window_days: int, step_days: int = CYCLE_DAYS
) -> Iterator[PastWindow]:
    """Yield what would have been said of each window, the first one of which has a history.

    So many days of the whole log as a snapshot's windows have (`num_window_days`) are accepted
    before the first that is judged. From the beginning of one window to that of the next are
    `step_days`; windows that are nearer than CYCLE_DAYS share days.
    """
    first, end = days[0].day + num_window_days, days[-1].day + 1
    starts = range(first, end - CYCLE_DAYS + 1, step_days)
    for start in tracked(starts, "past windows"):
        before = [day for day in days if day.day < start]
        judged = [day for day in days if start <= day.day < start + CYCLE_DAYS]
        if found := deviations(before, judged):
            missing = {*range(start, start + CYCLE_DAYS)} - {day.day for day in judged}
            told = sorted({each.name for each in found if each.times_limit > 1})
            yield PastWindow(
                date_of(start),
                max(each.times_limit for each in found),
                (*(f"no rows on {date_of(day)}" for day in sorted(missing)), *told),
                any(each.is_harmful for each in found),
            )
