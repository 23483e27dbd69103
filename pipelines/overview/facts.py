"""What `homefeed status` tells, as values: champion, cycles, alerts, schedule, addresses.

Not for reading them (`pipelines.overview.status`) nor for their words (`pipelines.overview.text`).
"""

from typing import Literal

from pydantic import AwareDatetime, Field

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.base import Frozen
from pipelines.contracts.judged.outcome import Outcome
from pipelines.contracts.run_layout import StageFailure


class Champion(Frozen):
    """The model that serves, as far as that can be found out."""

    model: ModelRef | None = Field(default=None, description="None: there is none, or not known.")
    age_days: float | None = Field(default=None, description="Days since its as_of.")
    since: AwareDatetime | None = Field(default=None, description="When it began to serve.")
    is_confirmed: bool = Field(
        default=False, description="The registry was asked; otherwise the history alone says so."
    )
    problem: str = Field(default="", description="What is wrong with the answer; '' if nothing.")


class Cycle(Frozen):
    """What became of one cycle so far."""

    run_id: str
    run_uri: str
    as_of: AwareDatetime | None = Field(default=None, description="None: its record is not read.")
    resolved_at: AwareDatetime | None = Field(default=None, description="When the cycle began.")
    state: Literal["judged", "broken", "not ended", "not readable"]
    outcome: Outcome | None = Field(default=None, description="What people are told of a verdict.")
    promoted: str = Field(default="", description="What the cycle promoted; '' before that.")
    failure: StageFailure | None = Field(default=None, description="Why the cycle broke.")
    next_stage: str = Field(default="", description="First stage that has not ended; '' if none.")
    problem: str = Field(default="", description="Why a record of the cycle cannot be read.")


class OutboxAlert(Frozen):
    """An alert that lies in the outbox."""

    written_at: AwareDatetime
    kind: str
    title: str
    delivered_to: tuple[str, ...]
    not_delivered_to: tuple[str, ...] = Field(description="Transports of today that lack it.")
    text_uri: str = Field(description="The alert as people read it.")


class Status(Frozen):
    """How a deployment is doing."""

    told_at: AwareDatetime
    workspace_uri: str
    has_workspace: bool | None = Field(
        description="False: no cycle has begun there yet. None: it could not be looked at."
    )
    champion: Champion
    cycles: tuple[Cycle, ...] = Field(description="The newest, newest first.")
    num_cycles: int = Field(ge=0, description="All that the workspace holds.")
    alerts: tuple[OutboxAlert, ...] = Field(description="The newest, newest first.")
    num_alerts: int = Field(ge=0, description="All that the outbox holds.")
    broken: tuple[str, ...] = Field(
        description="What has broken cycles and is not seen mended, the oldest first."
    )
    next_due: AwareDatetime | None = Field(description="Next date of the schedule.")
    period_days: float | None = Field(description="Days between two dates of the schedule.")
    addresses: tuple[tuple[str, str], ...] = Field(description="(label, address) pairs.")
    problems: tuple[str, ...] = Field(description="What could not be found out, and why.")
