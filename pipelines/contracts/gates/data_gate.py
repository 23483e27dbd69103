"""Thresholds of the data gate, as a recipe sets them; `validation.data_gate` judges by them."""

from pydantic import Field

from pipelines.contracts.base import Frozen


class DataGateConfig(Frozen):
    """Thresholds of the data gate; shares are in [0, 1]."""

    min_training_requests: int = Field(default=100, ge=1, description="Fewer is critical.")
    min_holdout_requests: int = Field(default=50, ge=1, description="Fewer is critical.")
    min_positive_share: float = Field(default=0.001, gt=0, description="Target label rate, lowest.")
    max_positive_share: float = Field(default=0.6, le=1, description="Target label rate, highest.")
    min_sequence_share: float = Field(
        default=0.5, ge=0, le=1, description="Requests with at least one earlier action."
    )
    max_unknown_category_share: float = Field(
        default=0.2, ge=0, le=1, description="Code 0 in a categorical feature; a warning above."
    )
    max_zero_embedding_share: float = Field(
        default=0.01, ge=0, le=1, description="Referenced pins whose embedding is all zero."
    )
    max_row_count_change: float = Field(
        default=0.5, gt=0, description="Relative change of the rows against the last snapshot."
    )
    max_label_rate_change: float = Field(
        default=0.3, gt=0, description="Relative change of a label rate against the last snapshot."
    )
    max_population_stability_index: float = Field(
        default=0.25, gt=0, description="PSI of a feature against the last snapshot; warning above."
    )
    min_rows_for_shift: int = Field(default=1000, ge=1, description="Below, shift is not judged.")
    limit_factor: float = Field(
        default=1.0,
        ge=1.0,
        description="Limits that come from earlier days and snapshots are so many times as wide; "
        "`homefeed gate calibrate` says which factor keeps to the budget of false alarms.",
    )
