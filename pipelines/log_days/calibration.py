"""Holds an event log's own past against the gate's limits.

Every window of the past that would have been judged with enough history counts, one each cycle, by
the days before it alone. The days that one adds are judged as they would have been. A gate that
warns of what was right is not read, so the share of windows with a warning is held against the
budget. Where it is above, limits that are wider by a factor would have kept to it: the factor is
the quantile of the windows' largest deviations that conformal prediction takes (Vovk et al.,
Algorithmic Learning in a Random World, 2005), for which 1 / budget - 1 windows are needed.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from pipelines import storage
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.progress import tracked
from pipelines.contracts.time import DAY_MS, parse_instant
from pipelines.event_log.log_files import EPOCH, open_event_log
from pipelines.log_days.reading import measure_log
from pipelines.recipes import make_recipe
from pipelines.settings import Settings
from pipelines.snapshot.plan import plan_of

BUDGET = 0.05
"""The share of windows that may bring a warning though nothing is wrong."""
CYCLE_DAYS = 14


class PastWindow(NamedTuple):
    """One window of the past, and what would have been said of it."""

    first: date
    worst: float  # The largest deviation, as a multiple of its limit.
    warnings: tuple[str, ...]
    is_critical: bool


class Calibration(NamedTuple):
    """What the limits would have said of the past."""

    windows: tuple[PastWindow, ...]

    @property
    def alarm_share(self) -> float:
        """The share of windows with a warning."""
        return sum(bool(window.warnings) for window in self.windows) / len(self.windows)

    @property
    def factor(self) -> float | None:
        """The factor by which limits would be wider to keep to the budget; None: too few windows.

        It is never below 1, because the floors say what matters.
        """
        num = len(self.windows)
        rank = math.ceil((num + 1) * (1 - BUDGET))
        if rank > num:
            return None
        return max(1.0, sorted(window.worst for window in self.windows)[rank - 1])


def calibrate_limits(settings: Settings, recipe: str, as_of: str) -> Calibration:
    """Return what the gate would have said of a log's past windows up to a day, YYYY-MM-DD.

    No `as_of` takes the day after the log's last.

    Raises:
        ConfigurationError: as_of is no day.
        DataContractError: the log is missing, breaks its contract, or is too short.
    """
    event_log = open_event_log(storage.to_uri(settings.event_log_location))
    first, last = event_log.span("impressions")
    day = parse_instant(as_of or f"{last + timedelta(days=1)}", "--as-of")
    plan = plan_of(make_recipe(recipe), day)
    start, end = (first - EPOCH).days, -(-plan.holdout.end_ms // DAY_MS)
    length = end - plan.training.start_ms // DAY_MS
    with tempfile.TemporaryDirectory(prefix="homefeed-gate-") as scratch:
        days = measure_log(event_log, plan, range(start, end), Path(scratch))
    if windows := tuple(past_windows(days, length)):
        return Calibration(windows)
    raise DataContractError(
        f"the event log at {event_log.uri} has {len(days)} days up to as_of; expected the {length} "
        f"days of a snapshot and {CYCLE_DAYS} more, to hold the past against itself; choose a "
        f"later --as-of or wait"
    )


def past_windows(
    days: Sequence[DayProfile], num_window_days: int, step_days: int = CYCLE_DAYS
) -> Iterator[PastWindow]:
    """Yield what would have been said of each window, the first one of which has a history.

    So many days of the whole log as a snapshot's windows have (`num_window_days`) are accepted
    before the first that is judged. From the beginning of one window to that of the next are
    `step_days`; windows that are nearer than CYCLE_DAYS share days.
    """
    from validation.data_gate.days.gate import date_of
    from validation.data_gate.days.limits import deviations

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


def calibration_lines(found: Calibration) -> Iterator[str]:
    """Yield the result as lines for people."""
    for first, worst, warnings, is_critical in found.windows:
        warned = f"; warns of {', '.join(warnings)}" if warnings else ""
        critical = "; critical" if is_critical else ""
        yield f"{first}  largest deviation {worst:.2f} times its limit{warned}{critical}"
    yield (
        f"{found.alarm_share:.0%} of {len(found.windows)} past windows would have brought a "
        f"warning; the budget is {BUDGET:.0%}"
    )
    if found.factor is None:
        needed = math.ceil(1 / BUDGET) - 1
        yield f"{needed} windows are needed to say how much wider limits would have to be"
    elif found.alarm_share <= BUDGET or found.factor == 1:
        yield "the limits keep to it; nothing has to be set"
    else:
        wide = f"limits {found.factor:.2f} times as wide would have kept to it"
        yield f"{wide}; set data_gate.limit_factor so in the recipe"
