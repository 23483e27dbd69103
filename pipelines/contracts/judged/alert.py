"""What people are told: the message, why it is sent, and what they can do.

Not for composing it: `pipelines.alerts`.
"""

from datetime import date
from enum import StrEnum

from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Artifact, Frozen, digest_of
from pipelines.contracts.config import RecipeRef


class AlertKind(StrEnum):
    """Why somebody is told."""

    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    DATA_GATE_FAILED = "data_gate_failed"
    BROKEN_RUN = "broken_run"
    FORCED_PROMOTION = "forced_promotion"
    MISSED_CYCLE = "missed_cycle"
    APPROVAL_WANTED = "approval_wanted"
    NOT_APPROVED = "not_approved"
    RECOVERED = "recovered"


class AlertSeverity(StrEnum):
    """How soon somebody should look; `pipelines.alerts.severity` decides it and says why."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Cycle(Frozen):
    """What all attempts at one cycle have alike, under whatever key they run."""

    day: date = Field(description="Its as_of.")
    recipe: str = Field(description="Reference of its recipe.")

    @property
    def label(self) -> str:
        """Return the cycle's name, the same in all that is told of it."""
        return f"{self.day:%Y-%m-%d}, recipe {self.recipe}"


class NextStep(Frozen):
    """What happens now, and the commands for a person who wants something else."""

    sentence: str
    commands: tuple[tuple[str, str], ...] = Field(description="(what it is for, command) pairs.")


class Alert(Frozen):
    """The one message: what happened, how sure we are, what was done, what to run next."""

    kind: AlertKind
    run_id: str
    recipe: RecipeRef | None = Field(
        default=None,
        exclude_if=lambda recipe: recipe is None,
        description="The run's; None where no run was resolved.",
    )
    title: str = Field(description="One line.")
    serves: str = Field(
        default="",
        exclude_if=lambda text: not text,  # so the digests of older alerts still fit
        description="Which model serves now; '' where the message is not about that.",
    )
    happened: str
    certainty: str = Field(description="How sure we are: interval, power, or which check failed.")
    done: str = Field(description="What the pipeline did about it; which model serves now.")
    next_step: NextStep = Field(description="What to do now, and the commands for it.")
    links: tuple[tuple[str, str], ...] = Field(default=(), description="(label, URI) pairs.")
    severity: AlertSeverity = AlertSeverity.WARNING
    at: AwareDatetime | None = Field(
        default=None, description="When it happened; None: when it is first told."
    )
    cycle: Cycle | None = Field(
        default=None, description="All alerts of a cycle are shown together; None: not known."
    )
    mended_cycles: tuple[Cycle, ...] = Field(
        default=(), description="Of a recovery: the cycles that had broken."
    )
    cause: str = Field(
        default="", description="What has failed, alike for each failure of the kind; '': no fault."
    )
    num_times: int = Field(default=1, ge=1, description="How often the cause was met by now.")
    first_at: AwareDatetime | None = Field(
        default=None, description="When the cause was met first; None where that is now."
    )

    def identity(self) -> str:
        """Return the sha256 (hex) of its words: an alert with the same words is the same one.

        When it is told and how it is counted differ between two attempts to tell it.
        """
        return digest_of(self.model_dump(mode="json", exclude=set(_NO_WORDS)))


_NO_WORDS = ("severity", "at", "cycle", "mended_cycles", "cause", "num_times", "first_at")


class AlertReceipt(Artifact):
    """What `alert` publishes: the message, if one was due, and where it went."""

    alert: Alert | None
    delivered_to: tuple[str, ...]
    waiting_for: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda names: not names,  # so the digests of older receipts still fit
        description="Transports that failed and are tried again by a later task or run.",
    )
    is_counted: bool = Field(
        default=False,
        exclude_if=lambda is_counted: not is_counted,
        description="Whether it was only counted: its cause had been told a short while ago.",
    )
