"""The log of a recipe as its gate sees it: which days a cycle would judge, and which come before.

For trying the gate's limits, by planted defects (`selftest`) or on the past (`calibration`). Not
for a cycle (`judging`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines import storage
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import EventLog, open_event_log
from pipelines.log_days.reading import DayRange, day_at
from pipelines.recipes import make_recipe
from pipelines.settings import Settings
from pipelines.snapshot.plan import SnapshotPlan, plan_of


@dataclass(frozen=True)
class LogWindow:
    """What a cycle of a recipe as of a day would judge."""

    recipe: RunConfig
    event_log: EventLog
    plan: SnapshotPlan

    @property
    def judged(self) -> DayRange:
        """The days of both windows."""
        first = self.plan.training.start_ms // DAY_MS
        return DayRange(first, -(-self.plan.holdout.end_ms // DAY_MS))

    @property
    def holdout_day(self) -> int:
        """The first day of the holdout."""
        return self.plan.holdout.start_ms // DAY_MS

    @property
    def first_logged_day(self) -> int:
        """The first day of the log's impressions."""
        first, _ = self.event_log.span("impressions")
        return day_at(datetime(first.year, first.month, first.day, tzinfo=UTC))


def open_window(settings: Settings, recipe: str, as_of: str) -> LogWindow:
    """Return what a cycle would judge.

    Args:
        settings: Where the log is.
        recipe: Its reference.
        as_of: YYYY-MM-DD; nothing takes the day after the log's last.

    Raises:
        ConfigurationError: the day is none.
        DataContractError: there is no such log.
    """
    event_log = open_event_log(storage.to_uri(settings.event_log_location))
    _, last = event_log.span("impressions")
    try:
        day = datetime.fromisoformat(as_of or last.isoformat()).replace(tzinfo=UTC)
    except ValueError:
        raise ConfigurationError(
            f"as_of is {as_of!r}; expected a day such as 2017-06-12; correct --as-of"
        ) from None
    config = make_recipe(recipe)
    until = day if as_of else day + timedelta(days=1)
    return LogWindow(config, event_log, plan_of(config, until))
