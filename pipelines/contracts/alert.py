"""What people are told: the message, why it is sent, and what they can do.

Not for composing it: `pipelines.alerts`.
"""

from datetime import UTC, date, datetime
from enum import StrEnum

from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Artifact, Frozen, digest_of
from pipelines.contracts.config import RecipeRef


class AlertSeverity(StrEnum):
    """How soon somebody should look, in the words of the rules for metrics."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def meaning(self) -> str:
        """What it means, as an alert says it."""
        return {
            "info": "nothing has to be done",
            "warning": "somebody should look on this working day",
            "critical": "the cycle stands still until somebody acts",
        }[self]


class AlertKind(StrEnum):
    """Why somebody is told."""

    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    DATA_GATE_FAILED = "data_gate_failed"
    BROKEN_RUN = "broken_run"
    FORCED_PROMOTION = "forced_promotion"
    CHAMPION_MOVED = "champion_moved"
    MISSED_CYCLE = "missed_cycle"
    RECOVERED = "recovered"
    APPROVAL_WANTED = "approval_wanted"
    NOT_APPROVED = "not_approved"
    SERVING_FAULT = "serving_fault"
    MONITOR = "monitor"
    TEST = "test"

    @property
    def severity(self) -> AlertSeverity:
        """How soon people should look, usually."""
        if self in ("data_gate_failed", "broken_run"):
            return AlertSeverity.CRITICAL
        moved = ("forced_promotion", "champion_moved", "monitor")
        is_to_be_seen = self in ("regression", "approval_wanted", "serving_fault", *moved)
        return AlertSeverity.WARNING if is_to_be_seen else AlertSeverity.INFO


class Cycle(Frozen):
    """What all attempts at one cycle have alike, under whatever key they run."""

    day: date  # Its as_of.
    recipe: str  # Reference of its recipe.

    @property
    def label(self) -> str:
        """Return the cycle's name, the same in all that is told of it."""
        return f"{self.day:%Y-%m-%d}, recipe {self.recipe}"


class Cause(Frozen):
    """What has failed: two failures that break a cycle in the same way have the same fields."""

    stage: str  # The stage or other task of Airflow's that broke.
    error_class: str  # Of its error; Airflow's word where it left none.
    raised_by: str = ""  # Function of ours that raised it; '' unknown.
    about: tuple[str, ...] = ()  # What the error is about.


class NextStep(Frozen):
    """What happens now, and the commands for a person who wants something else."""

    sentence: str
    commands: tuple[tuple[str, str], ...]  # (what it is for, command) pairs.


class Unresolved(Frozen):
    """Why a cycle could not be resolved; for the alert and the note of a run without a folder."""

    message: str = "It did not end. Its log in Airflow says why."  # What the error said.
    next_step: NextStep = NextStep(
        sentence="Mend what is named, then clear the task in Airflow, or trigger the cycle anew.",
        commands=(),
    )  # How the cycle is begun after all.
    at: AwareDatetime  # Tells it from an earlier failure of the same run.
    cause: Cause = Field(default=Cause(stage="resolve_run", error_class=""))
    cycle: Cycle | None = None  # None: what is asked for is not known.


class Alert(Frozen):
    """The one message: what happened, how sure we are, what was done, what to run next."""

    kind: AlertKind
    run_id: str
    # What tells it apart from other alerts of its kind and run: digests, instants.
    about: tuple[str, ...] = ()
    recipe: RecipeRef | None = None  # The run's; None where no run was resolved.
    title: str  # One line.
    serves: str = ""  # Which model served when the alert was first told.
    changed: str = ""  # What is new against the champion; '' where that is not the question.
    happened: str
    certainty: str = (
        ""  # How sure we are: power, or which check failed; '' where the title says it.
    )
    done: str = ""  # What the pipeline did about it; '' where that is nothing.
    next_step: NextStep  # What to do now, and the commands for it.
    links: tuple[tuple[str, str], ...] = ()  # (label, URI) pairs.
    severity: AlertSeverity = AlertSeverity.WARNING
    # When it happened; else when it was composed.
    at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    cycle: Cycle | None = None  # By which it is known what a later one mends; None: not known.
    cause: Cause | None = None  # What has failed; None: no fault.
    # How often the cause was met, or the question put, by now.
    num_times: int = Field(default=1, ge=1)

    def identity(self) -> str:
        """Return the sha256 (hex) of the facts, no words, by which two attempts are one alert."""
        return digest_of([self.kind.value, self.run_id, *self.about])


class AlertReceipt(Artifact):
    """What `alert` publishes: the message, if one was due, and where it went."""

    alert: Alert | None
    delivered_to: tuple[str, ...]
    # Transports that failed and are tried again by a later task or run.
    waiting_for: tuple[str, ...] = ()
    # Whether it was only counted: its cause had been told a short while ago.
    is_counted: bool = False
