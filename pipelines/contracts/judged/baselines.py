"""What a challenger is compared with, and what was found of the simple baselines of every cycle.

Not for making a baseline's scores (`validation.model_gate.baselines`) nor for the rule on them
(`validation.model_gate.baselines.rule`).
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.judged.metrics import Interval


class BaselineKind(StrEnum):
    """What the challenger was compared with."""

    CHAMPION = "champion"
    ANCHOR = "anchor"  # The accepted recipe, trained in this cycle on the same rows.
    RANKING = "ranking"  # First cycle: the best baseline orders candidates by one number.
    REGRESSION = "regression"  # First cycle: the best baseline is a logistic regression.
    POPULARITY = "popularity"  # First cycles of older code: recent wanted actions.


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
