"""What is known of decay: what a model loses, the longer ago it was trained.

Two models of one recipe are compared on the same requests: one that was trained some days earlier,
and one that was trained for that very day. The *lag* is the number of days between the two, and so
the age of the older one in service, where a model serves from its as_of on.
"""

from typing import Literal

from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Artifact, Frozen
from pipelines.contracts.reasons import Interval


class DecayPoint(Frozen):
    """What models of one lag lose, over all windows that have such a pair."""

    lag_days: int = Field(ge=1)
    num_pairs: int = Field(ge=1)
    change: Interval  # Relative change of the metric, negative where it is lost; pointwise.
    error: float = Field(ge=0)  # Its standard error.


class DecayCurve(Frozen):
    """The change of one metric by lag, and the band that holds all of it at once."""

    metric: str
    segment: str = "all"
    # Stale weights with fresh actions; fresh weights with stale actions.
    stale: Literal["weights", "actions"] = "weights"
    confidence: float
    critical: float = Field(ge=0)  # The band reaches so many standard errors.
    points: tuple[DecayPoint, ...]  # By lag.

    def expected(self, lag_days: float) -> Interval:
        """Return the change that a lag lets expect, with its band: lines between the points.

        At lag 0 it is 0. Beyond the last point that one holds on, for which nothing was measured.

        Raises:
            ValueError: the curve has no point.
        """
        known = [(0.0, 0.0, 0.0), *((p.lag_days, p.change.value, p.error) for p in self.points)]
        if len(known) == 1 or lag_days < 0:
            raise ValueError(f"lag {lag_days}: a curve of {len(self.points)} points says nothing")
        for (begin, first, sure), (end, last, unsure) in zip(known, known[1:], strict=False):
            if lag_days <= end:
                break
        share = min((lag_days - begin) / (end - begin), 1.0)
        value = first + share * (last - first)
        half = self.critical * (sure + share * (unsure - sure))
        low, high = value - half, value + half
        return Interval(value=value, low=low, high=high, confidence=self.confidence)


class Decay(Artifact):
    """What `homefeed decay` found: `<workspace>/decay/<recipe digest>/decay.json`."""

    recipe: str  # Its reference.
    recipe_digest: str
    code_digest: str
    target_metric: str
    measured_at: AwareDatetime
    as_of: tuple[AwareDatetime, ...]  # Of the models, one for each window.
    curves: tuple[DecayCurve, ...]  # That of the target metric over everybody first.
    core_hours: float = Field(ge=0)  # Processor time of one snapshot and training, mean.
