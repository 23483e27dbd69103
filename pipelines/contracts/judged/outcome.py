"""What people are told about a cycle that was judged, once, for every place that tells it.

The alert, the verdict page, the log, the command line and MLflow show these sentences as they are.
Not for composing them: `pipelines.alerts.outcomes`.
"""

from typing import Literal

from pydantic import Field

from pipelines.contracts.base import Frozen
from pipelines.contracts.judged.alert import NextStep
from pipelines.contracts.judged.metrics import Interval

Direction = Literal["better", "worse", "cannot tell", "not compared"]


class Outcome(Frozen):
    """A cycle's outcome in the words that people read."""

    decision: Literal["PROMOTE", "REJECT", "INCONCLUSIVE"]
    title: str = Field(description="One line: what became of which model, and the number.")
    serves: str = Field(description="Which model serves once the pipeline has done its part.")
    metric: str = Field(description="Name of the target metric.")
    direction: Direction = Field(description="What the interval of its change says.")
    change: Interval | None = Field(description="Of the target metric, relative; None: not known.")
    number: str = Field(description="The change with its interval, sizes and power, in sentences.")
    why: str = Field(description="The reason that decided, one sentence.")
    reasons: tuple[str, ...] = Field(description="All reasons; the first is `why`.")
    most_hurt: str = Field(
        default="", description="The segment that loses most, with its interval; '' if none loses."
    )
    warnings: tuple[str, ...] = Field(
        default=(), description="What the data gate warned of in this cycle, a sentence each."
    )
    done: str = Field(description="What the pipeline does with the models.")
    next_step: NextStep
    links: tuple[tuple[str, str], ...] = Field(description="(label, URI) pairs.")

    def lines(self) -> tuple[str, ...]:
        """Return the whole outcome as lines of text, what serves first."""
        told = [self.serves, f"{self.decision}: {self.title}", self.number, *self.reasons]
        told += [self.most_hurt] if self.most_hurt else []
        told += [*self.warnings, self.done, self.next_step.sentence]
        for purpose, command in self.next_step.commands:
            told += [purpose, f"  {command}"]
        return (*told, *(f"{label}: {uri}" for label, uri in self.links))
