"""What is known of whole cycles: when, what each stage used, what came of it, what served.

For the verdict page and the index of all cycles. Not for reading it (`pipelines.cycle_index`).
"""

from datetime import timedelta
from typing import Literal

from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.judged.metrics import Interval
from pipelines.contracts.run_layout import StageUsage

CycleState = Literal["judged", "data gate failed", "broken", "not ended", "not readable"]


class StageCost(Frozen):
    """What the attempt of a stage used that published it."""

    stage: str
    wall_s: float = Field(ge=0)
    finished_at: AwareDatetime
    usage: StageUsage | None = Field(default=None, description="None: not measured then.")


class CycleCosts(Frozen):
    """What the stages of one cycle used, as far as they have ended."""

    run_id: str
    stages: tuple[StageCost, ...] = ()

    @property
    def began_at(self) -> AwareDatetime | None:
        """When the cycle was resolved; None where that is not known."""
        resolved = self.of("resolve_run")
        return resolved.finished_at if resolved else None

    def of(self, stage: str) -> StageCost | None:
        """Return what a stage used, or None where it has not ended."""
        return next((each for each in self.stages if each.stage == stage), None)


class CycleRecord(Frozen):
    """What a verdict page says of its cycle beside the verdict."""

    began_at: AwareDatetime | None = Field(default=None, description="When it was resolved.")
    trained_at: AwareDatetime | None = Field(
        default=None, description="When all was trained that is judged."
    )
    costs: CycleCosts = CycleCosts(run_id="")
    earlier: tuple[CycleCosts, ...] = Field(
        default=(), description="Of the last judged cycles, the newest first."
    )
    is_void: bool = Field(default=False, description="The comparison counts for nothing.")
    index_href: str = Field(default="", description="Index of all cycles, from the page; ''.")


class CycleLine(Frozen):
    """One cycle in the index."""

    run_id: str
    as_of: AwareDatetime | None = Field(default=None, description="None: its record is not read.")
    began_at: AwareDatetime | None = None
    broke_at: AwareDatetime | None = Field(
        default=None, description="When `resolve_run` broke; None where it did not."
    )
    state: CycleState
    decision: str = Field(default="", description="'PROMOTE', ...; '' where none was judged.")
    happened: str = Field(description="What came of it, a sentence or two for people.")
    metric: str = Field(default="", description="Name of the target metric.")
    change: Interval | None = Field(default=None, description="Of the target metric, relative.")
    is_void: bool = Field(default=False, description="The comparison counts for nothing.")
    promoted: str = Field(default="", description="Label of the model that it promoted; '' none.")
    links: tuple[tuple[str, str], ...] = Field(default=(), description="(label, address) pairs.")
    costs: CycleCosts


class ServingSpan(Frozen):
    """A model's time as champion."""

    model: str
    as_of: AwareDatetime
    since: AwareDatetime
    until: AwareDatetime | None = Field(default=None, description="None: it serves.")
    kind: str = Field(description="'promotion', 'rollback', 'forced' or 'outside'.")
    reason: str

    @property
    def served(self) -> timedelta | None:
        """How long it was champion; None where it still is."""
        return self.until - self.since if self.until else None


class CyclesFacts(Frozen):
    """All that the index of a workspace tells."""

    registered_model: str
    cycles: tuple[CycleLine, ...] = Field(description="The newest first.")
    num_cycles: int = Field(ge=0, description="All that the workspace holds.")
    champions: tuple[ServingSpan, ...] = Field(description="The newest first.")
    problem: str = Field(default="", description="What of the history cannot be read; ''.")
