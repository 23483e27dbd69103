"""The schedule "every so many days, counted from one fixed instant", as an Airflow timetable.

Cron cannot say "every 14 days", and Airflow's own delta timetables snap to the epoch or drift after
an outage. Here a cycle is due at `start + k * period` and at no other instant. Not for deciding a
cycle's as_of: the DAG's first task does that from the interval given here.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from pendulum import DateTime
from pendulum import instance as to_pendulum

from pipelines.contracts.time import DAY_MS

LATENESS_S = 3600.0
"""How long after its instant a cycle still counts as on time, in seconds.

Without it a scheduler that looks a second after the DAG processor refreshed the next date would
find the following one there, and lose a fortnight; a restart at the wrong minute would do the same.
"""


class MissedCycleError(RuntimeError):
    """A cycle is overdue and is not replayed; the next date has been put in its place."""


def utc_now() -> datetime:
    """Return this instant; tests replace it."""
    return datetime.now(UTC)


class GridTimetable(Timetable):
    """A cycle at every `start + k * period`, whatever outages and pauses lie between.

    The cycle due at `t` has the data interval `[t - period, t)` and runs at `t`; its logical date
    is the interval's start. Without catchup the next cycle is the first instant that is not
    already past (by more than `LATENESS_S`); cycles missed meanwhile are not run. With catchup
    every instant since the last cycle, or since the DAG's start_date, is run in order.

    Args:
        start: an aware instant at which a cycle is due; cycles before it are due as well.
        period_s: seconds between two cycles, whole or not, above zero.
        catchup: must equal the DAG's `catchup`; the scheduler does not pass it on everywhere.

    Raises:
        ValueError: the start has no time zone or the period is not above zero.
    """

    def __init__(self, start: datetime, period_s: float, catchup: bool = False) -> None:
        if start.tzinfo is None:
            raise ValueError(
                f"start {start.isoformat()} has no time zone; write it as "
                f"{start.isoformat()}+00:00 (HOMEFEED_SCHEDULE_START)"
            )
        if not 0 < period_s < float("inf"):
            raise ValueError(f"period_s is {period_s}; expected a number above 0 seconds")
        self.start = start.astimezone(UTC)
        self.period = timedelta(seconds=period_s)
        self.catchup = catchup
        self.description = (
            f"Every {_days(self.period)}, counted from {self.start:%Y-%m-%d %H:%M} UTC"
        )

    @property
    def summary(self) -> str:
        """Return what the UI shows as the schedule, e.g. 'every 14 days from 2026-01-05 06:00'."""
        return f"every {_days(self.period)} from {self.start:%Y-%m-%d %H:%M}"

    def serialize(self) -> dict[str, Any]:
        """Return the JSON form that the DAG's serialisation keeps."""
        return {
            "start": self.start.isoformat(),
            "period_s": self.period.total_seconds(),
            "catchup": self.catchup,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> "GridTimetable":
        """Return the timetable that `serialize` described."""
        return cls(datetime.fromisoformat(data["start"]), data["period_s"], data["catchup"])

    def due_at_or_after(self, instant: datetime) -> DateTime:
        """Return the first due instant that is not before the given one."""
        # timedelta's own floor division is exact; a float quotient would be off by one near a hit.
        elapsed = _plain(instant) - self.start
        return self._due(-(-elapsed // self.period))

    def _due(self, number: int) -> DateTime:
        return to_pendulum(self.start + number * self.period, tz="UTC")

    def _interval_before(self, due: DateTime) -> DataInterval:
        return DataInterval(to_pendulum(_plain(due) - self.period, tz="UTC"), due)

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """Return the period that ends when a person triggers: their run wants what is newest."""
        return self._interval_before(to_pendulum(_plain(run_after), tz="UTC"))

    def next_dagrun_info(
        self,
        *,
        last_automated_data_interval: DataInterval | None,
        restriction: TimeRestriction,
    ) -> DagRunInfo | None:
        """Return the next cycle, or None when the DAG's end_date comes first.

        Args:
            last_automated_data_interval: of the last scheduled cycle, whatever schedule it had.
            restriction: start_date, end_date and catchup of the DAG.
        """
        last = last_automated_data_interval
        not_before = (
            restriction.earliest,
            # One microsecond later: the instant that has been run is not run again.
            last and last.end + timedelta(microseconds=1),
            None if restriction.catchup else utc_now() - timedelta(seconds=LATENESS_S),
        )
        known = [instant for instant in not_before if instant is not None]
        due = self.due_at_or_after(max(known, default=self.start))
        if restriction.latest is not None and due > restriction.latest:
            return None
        return DagRunInfo.interval(*self._interval_before(due))

    def next_run_info_from_dag_model(self, *, dag_model: Any) -> DagRunInfo | None:
        """Return the cycle that the scheduler is about to create from the date it has stored.

        After an outage the stored date is the first one missed, and a scheduler that is up before
        the DAG processor would create it, weeks late. The stored date is moved on instead.

        Raises:
            MissedCycleError: nothing is to be created now; the scheduler logs it and goes on.
        """
        info = super().next_run_info_from_dag_model(dag_model=dag_model)
        oldest_on_time = utc_now() - timedelta(seconds=LATENESS_S)
        if info is None or self.catchup or info.run_after >= oldest_on_time:
            return info
        due = self.due_at_or_after(oldest_on_time)
        interval = self._interval_before(due)
        dag_model.next_dagrun = interval.start
        dag_model.next_dagrun_data_interval = interval
        dag_model.next_dagrun_create_after = due
        raise MissedCycleError(
            f"the cycle of {info.run_after.isoformat()} was missed and is not replayed "
            f"(catchup is off); the next one is due at {due.isoformat()}; to run a missed one, "
            f"trigger the DAG with as_of={info.run_after:%Y-%m-%d}"
        )


def _plain(instant: datetime) -> datetime:
    """Return the instant as a standard datetime in UTC: pendulum's differences do not divide."""
    utc = instant.astimezone(UTC)
    return datetime(*utc.timetuple()[:6], utc.microsecond, UTC)


def _days(period: timedelta) -> str:
    """Return '14 days' or '3.5 days'."""
    days = 1000 * period.total_seconds() / DAY_MS
    return f"{days:g} day" if days == 1 else f"{days:g} days"


class HomefeedPlugin(AirflowPlugin):
    """Tells Airflow of the timetable, so that a serialised DAG can name it."""

    name = "homefeed_timetable"
    timetables = [GridTimetable]
