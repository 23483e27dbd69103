"""What people are told: the message, why it is sent, and what they can do.

Not for composing it: `pipelines.alerts`.
"""

from enum import StrEnum

from pydantic import Field

from pipelines.contracts.base import Artifact, Frozen
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


class AlertReceipt(Artifact):
    """What `alert` publishes: the message, if one was due, and where it went."""

    alert: Alert | None
    delivered_to: tuple[str, ...]
    waiting_for: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda names: not names,  # so the digests of older receipts still fit
        description="Transports that failed and are tried again by a later task or run.",
    )
