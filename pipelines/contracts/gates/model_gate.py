"""What a challenger must show, as a recipe sets it; `validation.model_gate` judges by it.

Tested in tests/pipelines/contracts/test_config.py.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipelines.contracts.base import Frozen


class _Bounds(Frozen):
    """A metric with one or two bounds; every other field of a subclass is a bound."""

    metric: str = Field(description="Metric name as in MLflow, e.g. 'calibration_ratio.repin'.")

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        bounds = self.model_dump(exclude={"metric"})
        if set(bounds.values()) == {None}:
            raise ValueError(
                f"limit on {self.metric!r} has neither {' nor '.join(bounds)}; set one of them"
            )
        return self


class Limit(_Bounds):
    """A bound on one metric of the challenger on the holdout."""

    minimum: float | None = Field(default=None, description="Not promoted below.")
    maximum: float | None = Field(default=None, description="Not promoted above.")

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and low > high:
            raise ValueError(f"limit on {self.metric!r}: no value lies from {low} to {high}")
        return self


class RelativeLimit(_Bounds):
    """A bound on the relative change of one metric, challenger against champion."""

    max_increase: float | None = Field(default=None, ge=0, description="0.02 means +2 %.")
    max_decrease: float | None = Field(default=None, ge=0, description="0.02 means -2 %.")


class ModelGateConfig(Frozen):
    """What a challenger must show. The target metric is repin volume at 3 unless changed."""

    target_metric: str = Field(
        default="repin_volume_at_3", description="Decides; higher is better."
    )
    margin: float = Field(
        default=0.01, ge=0, lt=1, description="Relative loss that freshness is worth (0.01 = 1 %)."
    )
    recipe_margin: float = Field(
        default=0.01, ge=0, lt=1, description="Relative loss allowed against the fresh anchor."
    )
    seed_noise: float = Field(
        default=0.002, ge=0, lt=1, description="Standard deviation between seeds, relative change."
    )
    first_champion_beats: Literal["popularity", "every_baseline"] = Field(
        default="every_baseline",
        description="What the first champion must beat: every simple ranking, without being worse "
        "than the logistic regression by the margin, or the ranking by popularity over 28 days.",
    )
    max_unpromoted_cycles: int = Field(
        default=4, ge=1, description="Cycles without a promotion before a person is asked."
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Of the paired interval.")
    num_resamples: int = Field(default=2000, ge=200, description="Paired bootstrap over users.")
    bootstrap_seed: int = Field(default=11, ge=0, description="Seed of the resampling.")
    min_users: int = Field(default=50, ge=2, description="Fewer holdout users: not promoted.")
    floors: tuple[Limit, ...] = Field(
        min_length=1, description="Absolute bounds for the challenger, every cycle."
    )
    guardrails: tuple[RelativeLimit, ...] = Field(
        default=(), description="Relative bounds against the champion."
    )
    required_segments: tuple[str, ...] = Field(
        default=("core", "non_core"), description="Segments that must not be empty."
    )
    segment_margin: float = Field(
        default=0.05, ge=0, lt=1, description="Relative loss allowed in a required segment."
    )
    min_head_positives: int = Field(
        default=50, ge=1, description="Fewer holdout positives: the head is not judged."
    )
    min_head_calibration: float = Field(
        default=0.5, gt=0, le=1, description="Predicted / observed of every head, not below."
    )
    max_head_calibration: float = Field(
        default=2.0, ge=1, description="Predicted / observed of every head, not above."
    )

    @property
    def needs_popularity(self) -> bool:
        """Whether the first champion must beat popularity alone."""
        return self.first_champion_beats == "popularity"

    @model_validator(mode="after")
    def _segments_may_lose_more(self) -> Self:
        if self.segment_margin < self.margin:
            raise ValueError(
                f"model_gate.segment_margin {self.segment_margin} is below model_gate.margin "
                f"{self.margin}: a loss that is allowed over all users would break a segment"
            )
        return self
