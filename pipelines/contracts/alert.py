"""What people are told: the message, why it is sent, and what they can do.

Not for composing it: `pipelines.alerts`.
"""

from datetime import date
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
            AlertSeverity.INFO: "nothing has to be done",
            AlertSeverity.WARNING: "somebody should look on this working day",
            AlertSeverity.CRITICAL: "the cycle stands still until somebody acts",
        }[self]


class AlertKind(StrEnum):
    """Why somebody is told, and how soon they should look."""

    severity: AlertSeverity

    def __new__(cls, name: str, severity: AlertSeverity) -> "AlertKind":
        """Return a kind by its name, with its usual severity beside it."""
        kind = str.__new__(cls, name)
        kind._value_, kind.severity = name, severity
        return kind

    REGRESSION = "regression", AlertSeverity.WARNING
    INCONCLUSIVE = "inconclusive", AlertSeverity.INFO
    DATA_GATE_FAILED = "data_gate_failed", AlertSeverity.CRITICAL
    BROKEN_RUN = "broken_run", AlertSeverity.CRITICAL
    FORCED_PROMOTION = "forced_promotion", AlertSeverity.WARNING
    MISSED_CYCLE = "missed_cycle", AlertSeverity.INFO
    RECOVERED = "recovered", AlertSeverity.INFO
    APPROVAL_WANTED = "approval_wanted", AlertSeverity.WARNING
    NOT_APPROVED = "not_approved", AlertSeverity.INFO


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

    message: str  # What the error said; '' where only the failure is known.
    next_step: NextStep  # How the cycle is begun after all.
    at: AwareDatetime | None  # Tells it from an earlier failure of the same run; None: not known.
    cause: Cause = Field(default=Cause(stage="resolve_run", error_class=""))
    cycle: Cycle | None = None  # None: what is asked for is not known.
    lost_in: str = ""  # Run folder that another process resolves, which tells the end.


class Alert(Frozen):
    """The one message: what happened, how sure we are, what was done, what to run next."""

    kind: AlertKind
    run_id: str
    # What tells it apart from other alerts of its kind and run: digests, instants.
    about: tuple[str, ...] = ()
    recipe: RecipeRef | None = None  # The run's; None where no run was resolved.
    title: str  # One line.
    serves: str = ""  # Which model serves now; '' where the message is not about that.
    happened: str
    certainty: str  # How sure we are: interval, power, or which check failed.
    done: str  # What the pipeline did about it; which model serves now.
    next_step: NextStep  # What to do now, and the commands for it.
    links: tuple[tuple[str, str], ...] = ()  # (label, URI) pairs.
    severity: AlertSeverity = AlertSeverity.WARNING
    at: AwareDatetime | None = None  # When it happened; None: when it is first told.
    cycle: Cycle | None = None  # All alerts of a cycle are shown together; None: not known.
    cause: Cause | None = None  # What has failed; None: no fault.
    num_times: int = Field(default=1, ge=1)  # How often the cause was met by now.
    first_at: AwareDatetime | None = None  # When the cause was met first; None where that is now.

    def identity(self) -> str:
        """Return the sha256 (hex) of the facts by which two attempts to tell it are one alert.

        Its words are none of them: a sentence may be edited while an alert waits.
        """
        return digest_of([self.kind.value, self.run_id, *self.about])


class AlertReceipt(Artifact):
    """What `alert` publishes: the message, if one was due, and where it went."""

    alert: Alert | None
    delivered_to: tuple[str, ...]
    # Transports that failed and are tried again by a later task or run.
    waiting_for: tuple[str, ...] = ()
    # Whether it was only counted: its cause had been told a short while ago.
    is_counted: bool = False
