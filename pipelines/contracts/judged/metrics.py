"""What is known of one metric: levels, changes, intervals, and why there is none.

Not for what follows from all of them (`pipelines.contracts.judgement`, which is the door to these).
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from pipelines.contracts.base import Frozen


class Interval(Frozen):
    """An estimate with its interval."""

    value: float
    low: float
    high: float
    confidence: float = Field(gt=0, lt=1)


class MetricComparison(Frozen):
    """One metric in one segment, both sides, on the same rows."""

    metric: str
    segment: str = Field(description="'all', 'core', 'non_core' or 'exploration'.")
    challenger: float
    baseline: float | None = Field(
        description="None where the baseline has no such number: popularity has no probabilities."
    )
    relative_change: Interval | None = Field(
        description="(challenger - baseline) / baseline; None where the baseline is 0 or absent, "
        "or where the metric has no interval (auc, ece)."
    )
    difference: Interval | None = Field(
        default=None, description="challenger - baseline; it is there where the baseline is 0 too."
    )
    challenger_interval: Interval | None = Field(default=None, description="Of the level itself.")
    baseline_interval: Interval | None = Field(default=None, description="Of the level itself.")


class AbsenceKind(StrEnum):
    """Why a metric has no value."""

    NOT_FINITE = "not_finite"  # The side's own scores are NaN or infinite.
    UNDEFINED = "undefined"  # These rows give the metric no value, whatever the scores are.


class AbsentMetric(Frozen):
    """A number that could not be computed, and why."""

    metric: str
    segment: str = Field(description="'all', 'core', 'non_core' or 'exploration'.")
    side: Literal["challenger", "baseline"]
    kind: AbsenceKind
    reason: str = Field(description="A sentence for people.")


class HeadFacts(Frozen):
    """What is known of one head's probabilities on the challenger's side."""

    head: str
    num_positives: int = Field(ge=0, description="Holdout examples with the action.")
    spread: float | None = Field(
        description="Largest minus smallest probability; None where one is not finite."
    )


class ReliabilityBin(Frozen):
    """One point of a calibration plot: what was predicted and what happened, all segments."""

    side: Literal["challenger", "baseline"]
    head: str
    num_examples: int = Field(ge=1)
    mean_predicted: float = Field(description="Mean predicted probability of the bin.")
    mean_observed: float = Field(description="Share of the bin's examples that had the action.")


class PooledChange(Frozen):
    """A relative change with its standard errors, alone and with earlier cycles of the pair."""

    metric: str
    segment: str
    value: float = Field(description="On this cycle's holdout.")
    error: float = Field(ge=0, description="Standard error of `value`.")
    pooled_value: float = Field(description="Mean over the cycles, by inverse variance.")
    pooled_error: float = Field(ge=0, description="Standard error of `pooled_value`.")
    num_cycles: int = Field(ge=1, description="Cycles that are pooled, this one included.")
