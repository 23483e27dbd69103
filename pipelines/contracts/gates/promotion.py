"""Options of a promotion beyond the verdict: whether a person has to approve it."""

from pydantic import Field

from pipelines.contracts.base import Frozen


class ApprovalConfig(Frozen):
    """A promotion waits for a person, who is asked in Airflow."""

    by: tuple[str, ...] = Field(
        default=(),
        description="Ids of the Airflow users who may answer; () for whoever may edit the run.",
    )
    within_hours: float = Field(
        default=24.0,
        gt=0,
        le=72,
        description="Hours in which an answer counts, shorter where the run or the next cycle "
        "leaves less; then the champion stays.",
    )


class PromotionConfig(Frozen):
    """What a promotion needs besides a verdict that permits it."""

    approval: ApprovalConfig | None = Field(
        default=None, description="Whom to ask, and for how long; None: nobody is asked."
    )
