"""What people are told about cycles that were due and did not run.

Not for finding such cycles: that is `pipelines.orchestration.missed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelines.alerts.incidents import cycle_of
from pipelines.alerts.links import airflow_link, runbook_links
from pipelines.alerts.next_step import after_missed
from pipelines.alerts.severity import severity_of
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.judged.alert import Alert, AlertKind
from pipelines.settings import Settings

MAX_LISTED = 12
"""How many dates a message names one by one; of more, it names the first and the last."""


@dataclass(frozen=True)
class MissedCycles:
    """Cycles that did not run, as a scheduled run found them when it started.

    Attributes:
        skipped: due instants of the cycles, oldest first, at least one.
        due: the due instant of the run that found them.
        started_at: when that run started.
        is_too_late: whether that run is skipped too, because it started too late.
        max_lateness: how long after its due instant a cycle may start.
        next_due: due instant of the cycle that follows, or of the newest one that has come since.
    """

    skipped: tuple[datetime, ...]
    due: datetime
    started_at: datetime
    is_too_late: bool
    max_lateness: timedelta
    next_due: datetime

    @property
    def is_newer_under_way(self) -> bool:
        """Whether a newer cycle than the skipped ones runs now, or has come and is next."""
        return not self.is_too_late or self.next_due <= self.started_at


def compose_missed(missed: MissedCycles, request: RunRequest, settings: Settings) -> Alert:
    """Return the alert about cycles that were skipped.

    Args:
        missed: what was found; the words depend on nothing else, so that a retry says the same.
        request: what the run that found them asked for.
        settings: addresses for commands and links.
    """
    newest = missed.skipped[-1]
    skipped = request.model_copy(update={"as_of": newest})
    title = f"Homefeed retrain {newest:%Y-%m-%d}: the cycle was skipped"
    if len(missed.skipped) > 1:
        title = f"Homefeed retrain {newest:%Y-%m-%d}: {len(missed.skipped)} cycles were skipped"
    late = f"{_span(missed.started_at - missed.due)} after its date"
    happened = (
        f"No cycle ran for {_listed(missed.skipped)}.\n"
        f"This was seen when Airflow started the run of {_instant(missed.due)} at "
        f"{_instant(missed.started_at)}, {late}."
    )
    done = f"The cycle of {_instant(missed.due)} is running, as of its own date."
    if missed.is_too_late:
        happened = (
            f"{happened} A cycle may start up to {_span(missed.max_lateness)} late, "
            f"so that run was skipped."
        )
        done = "Nothing was trained, and the champion is what it was."
    return Alert(
        kind=AlertKind.MISSED_CYCLE,
        run_id=request.trigger,
        title=title,
        happened=happened,
        certainty=(
            "Certain: the schedule names these dates, and the workspace holds no cycle of those "
            "days. The cause is not on record: Airflow was down, the DAG was paused, or an earlier "
            "run took too long."
        ),
        done=f"{done} Skipped cycles are not replayed; the next one is that of "
        f"{_instant(missed.next_due)}.",
        next_step=after_missed(skipped, settings, missed.is_newer_under_way),
        links=(
            ("Airflow run", airflow_link(request.trigger, settings)),
            *runbook_links(AlertKind.MISSED_CYCLE, settings),
        ),
        severity=severity_of(AlertKind.MISSED_CYCLE, not missed.is_newer_under_way),
        at=missed.started_at,
        cycle=cycle_of(skipped),
    )


def _listed(instants: Sequence[datetime]) -> str:
    if len(instants) > MAX_LISTED:
        first, last = _instant(instants[0]), _instant(instants[-1])
        return f"{len(instants)} due dates, from {first} to {last}"
    return ", ".join(_instant(instant) for instant in instants)


def _instant(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _span(duration: timedelta) -> str:
    if duration < timedelta(days=2):
        return f"{duration / timedelta(hours=1):.1f} hours"
    return f"{duration / timedelta(days=1):.1f} days"
