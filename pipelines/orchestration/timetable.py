"""The schedule "every so many days, counted from one fixed instant", as an Airflow timetable.

Cron cannot say "every 14 days", and Airflow's own delta timetables snap to the epoch or drift after
an outage. Not for a cycle that starts too late (`pipelines.orchestration.schedule`).
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from pendulum import DateTime
from pendulum import instance as to_pendulum

from pipelines.alerts.links import PREFIX
from pipelines.orchestration.pages import serve
from pipelines.orchestration.run_note import RunNotes
from pipelines.orchestration.schedule import TICK, Grid, standard_utc

FIRST_LATENESS = timedelta(hours=1)
"""How long after its instant the very first cycle still counts as due.

Before the first cycle nothing can have been missed, so that a fresh installation waits for its
next date. Without the hour, a scheduler that looks a second late would lose the first date.
"""


def utc_now() -> datetime:
    """Return this instant; tests replace it."""
    return datetime.now(UTC)


class GridTimetable(Timetable):
    """A cycle at every `start + k * period`, whatever outages and pauses lie between.

    The cycle due at `t` has the data interval `[t - period, t)` and runs at `t`; its logical date
    is the interval's start. Without catchup the next cycle is the newest instant that has come, if
    no cycle has been created for it yet, and else the first one to come. With catchup every instant
    since the last cycle, or since a period after the DAG's start_date, is run in order.

    After an outage the scheduler may create the oldest cycle that was missed as well, because it
    goes by the date that was stored before the outage. The cycle's first task skips it.

    Args:
        grid: the instants at which a cycle is due.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid, self.period = grid, grid.period

    @property
    def summary(self) -> str:
        """Return what the UI shows as the schedule, e.g. 'every 14 days from 2026-01-05 06:00'."""
        return (
            f"every {self.period / timedelta(days=1):g} days from {self.grid.start:%Y-%m-%d %H:%M}"
        )

    def serialize(self) -> dict[str, Any]:
        """Return the JSON form that the DAG's serialisation keeps."""
        return {"start": self.grid.start.isoformat(), "period_s": self.period.total_seconds()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> "GridTimetable":
        """Return the timetable that `serialize` described."""
        start, period = datetime.fromisoformat(data["start"]), timedelta(seconds=data["period_s"])
        return cls(Grid(start, period))

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """Return the period that ends at an instant; of a run that a person triggers, with now."""
        end = standard_utc(run_after)
        return DataInterval(*(to_pendulum(each, tz="UTC") for each in (end - self.period, end)))

    def next_dagrun_info(
        self,
        *,
        last_automated_data_interval: DataInterval | None,
        restriction: TimeRestriction,
    ) -> DagRunInfo | None:
        """Return the next cycle, or None when the DAG's end_date comes first.

        Args:
            last_automated_data_interval: of the last scheduled cycle, whatever schedule it had.
            restriction: catchup of the DAG, and where an interval may begin at the earliest and at
                the latest: the DAG's start_date and end_date, or the range of a backfill.
        """
        grid, now, not_before = self.grid, standard_utc(utc_now()), list[datetime]()
        if restriction.earliest is not None:
            # Airflow makes no task for a run whose logical date, the interval's start, is earlier
            # than the DAG's start_date: that run would be empty and green.
            not_before.append(standard_utc(restriction.earliest) + self.period)
        if last_automated_data_interval is not None:
            # A tick later: the instant that has been run is not run again.
            not_before.append(standard_utc(last_automated_data_interval.end) + TICK)
        if not restriction.catchup:
            is_first = last_automated_data_interval is None
            not_before.append(now - FIRST_LATENESS if is_first else grid.at_or_before(now))
        due = grid.at_or_after(max(not_before, default=grid.start))
        interval = self.infer_manual_data_interval(run_after=to_pendulum(due))
        if restriction.latest is not None and interval.start > restriction.latest:
            return None
        return DagRunInfo.interval(*interval)


class HomefeedPlugin(AirflowPlugin):
    """Tells Airflow of the timetable, so that a serialised DAG can name it, listener and pages."""

    name = "homefeed_timetable"
    timetables = [GridTimetable]
    listeners = [RunNotes()]
    fastapi_apps = [{"name": "homefeed", "app": serve, "url_prefix": PREFIX}]
    external_views = [{"name": "Homefeed", "href": f"{PREFIX}/", "destination": "nav"}]
