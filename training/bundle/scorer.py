"""The scorer: a bundle's model with its calibrators, the one way from a batch to probabilities.

Not for reading a snapshot (`training.bundle.split_scores`) nor for files (`training.bundle.files`).
"""

import numpy as np
import torch
from pydantic import AwareDatetime, Field

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.base import Frozen
from pipelines.contracts.config import FeatureConfig, ModelConfig
from pipelines.contracts.errors import DataContractError
from training.bundle.calibration import Calibrator, apply_calibrator, correct_downsampling
from training.data.batches import Batch, visible_actions
from training.model.ranker import Ranker

FORMAT_VERSION = 1


class BundleConfig(Frozen):
    """`bundle.json`: what scoring needs besides the weights, and where they come from."""

    format_version: int = Field(default=FORMAT_VERSION, description="Of the bundle's files.")
    features: FeatureConfig
    model: ModelConfig
    embedding_version: str = Field(description="The only basis whose embeddings it understands.")
    embedding_dim: int = Field(ge=1)
    negative_keep_fraction: float = Field(gt=0, le=1, description="As in training.")
    calibrators: tuple[Calibrator, ...] = Field(description="One per head, in order.")
    as_of: AwareDatetime = Field(description="as_of of the cycle that trained it (UTC).")
    snapshot_digest: str
    code_version: str
    seed: int


class Scorer:
    """A model ready to score; always in evaluation mode, without gradients."""

    def __init__(self, ranker: Ranker, config: BundleConfig) -> None:
        self.ranker = ranker.eval()
        self.config = config

    def logits(self, batch: Batch) -> np.ndarray:
        """Return float64 [C, H]: logits on the scale of all impressions, not calibrated."""
        with torch.inference_mode():
            is_visible_RS = visible_actions(batch, time_window_mask_hours=0)
            logits_CH = self.ranker(batch, is_visible_RS).double().cpu().numpy()
        return correct_downsampling(logits_CH, self.config.negative_keep_fraction)

    def probabilities(self, batch: Batch) -> np.ndarray:
        """Return float64 [C, H] in (0, 1), calibrated, heads in the order of the features."""
        logits_CH = self.logits(batch)
        columns = [
            apply_calibrator(calibrator, logits_CH[:, h])
            for h, calibrator in enumerate(self.config.calibrators)
        ]
        return np.stack(columns, axis=1)

    def uncalibrated(self, batch: Batch) -> np.ndarray:
        """Return float64 [C, H] in (0, 1): what the model says, before calibration."""
        return 0.5 * (1.0 + np.tanh(0.5 * self.logits(batch)))

    def check_fits(self, snapshot: Snapshot) -> None:
        """Refuse a snapshot whose codes and embeddings mean something else than in training.

        Numeric features may differ: a snapshot always has all of them.

        Raises:
            DataContractError: another embedding version, action vocabulary or categorical feature.
        """
        ours, theirs = self.config.features, snapshot.features
        pairs = {
            "embedding version": (self.config.embedding_version, snapshot.embedding_version),
            "action types": (ours.action_types, theirs.action_types),
            "categorical features": (ours.categorical, theirs.categorical),
        }
        for what, (needed, found) in pairs.items():
            if needed != found:
                raise DataContractError(
                    f"the bundle of {self.config.as_of:%Y-%m-%d} (snapshot "
                    f"{self.config.snapshot_digest[:12]}) needs {what} {needed}, but snapshot "
                    f"{snapshot.digest[:12]} has {found}; build the snapshot with the bundle's "
                    f"recipe, or train a first champion for the new one"
                )
