"""What is known of one metric, and of one baseline: levels, changes, intervals, why there is none.

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
    """Why a metric has no value, or no change. Only the first is the fault of a side's scores."""

    NOT_FINITE = "not_finite"
    EMPTY_SEGMENT = "empty_segment"
    NO_ACTION = "no_action"
    FEW_EXAMPLES = "few_examples"
    ONE_LABEL = "one_label"
    NOT_OF_BASELINE = "not_of_baseline"
    ZERO_BASELINE = "zero_baseline"


_WHY_ABSENT = {
    AbsenceKind.NOT_FINITE: "The {side}'s scores hold NaN or infinity.",
    AbsenceKind.EMPTY_SEGMENT: "The segment has no users in the holdout.",
    AbsenceKind.NO_ACTION: "No example has the action.",
    AbsenceKind.FEW_EXAMPLES: "There are fewer examples than the {num} bins.",
    AbsenceKind.ONE_LABEL: "All {num:,} examples have the same label, so no order of them is "
    "better.",
    AbsenceKind.NOT_OF_BASELINE: "The baseline has no such number.",
    AbsenceKind.ZERO_BASELINE: "The baseline's {metric} is zero in at least one resample of the "
    "users.",
}


class AbsentMetric(Frozen):
    """A number that could not be computed, and why."""

    metric: str
    segment: str = Field(description="'all', 'core', 'non_core' or 'exploration'.")
    side: Literal["challenger", "baseline"]
    kind: AbsenceKind
    num: int = Field(default=0, ge=0, description="Examples or bins that the kind speaks of.")

    @property
    def reason(self) -> str:
        """A sentence for people."""
        return _WHY_ABSENT[self.kind].format(side=self.side, num=self.num, metric=self.metric)


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


class BaselineKind(StrEnum):
    """What the challenger was compared with."""

    CHAMPION = "champion"
    ANCHOR = "anchor"  # The accepted recipe, trained in this cycle on the same rows.
    RANKING = "ranking"  # First cycle: the best baseline orders candidates by one number.
    REGRESSION = "regression"  # First cycle: the best baseline is a logistic regression.


class BaselineFacts(Frozen):
    """How a simple baseline does on the holdout by the target metric, over all users."""

    name: str = Field(description="As in 'popularity, 7 days'; see validation.model_gate.")
    kind: Literal["ranking", "regression"]
    description: str = Field(description="What it ranks by, a sentence for people.")
    level: Interval | None = Field(description="Its target metric; None: see `note`.")
    change: Interval | None = Field(
        description="Challenger against it, relative; None where that could not be resampled."
    )
    difference: Interval | None = Field(
        default=None, description="Challenger minus it; it is there where its target is 0 too."
    )
    against_random: Interval | None = Field(
        default=None, description="It against a random order, relative; None where not defined."
    )
    note: str = Field(default="", description="Why a number is missing.")

    @property
    def is_below_random(self) -> bool:
        """Whether it is surely worse than a random order."""
        return self.against_random is not None and self.against_random.high < 0
