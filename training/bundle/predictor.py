"""The predictor: a bundle's model and calibrators in memory, from a batch to probabilities.

Not for files (`training.bundle.files`) nor for whole splits (`training.bundle.score_split`).

Letters: C candidates, H heads.
"""

import numpy as np
import torch

from training.bundle.calibration import apply_calibrator, correct_downsampling
from training.bundle.configuration import BundleConfig
from training.data.batches import Batch, visible_actions
from training.model.ranker import Ranker


class Predictor:
    """A model in evaluation mode, without gradients, and what brings its logits to probabilities.

    Args:
        ranker: The model, on any device.
        config: The bundle's configuration.
    """

    def __init__(self, ranker: Ranker, config: BundleConfig) -> None:
        self.ranker = ranker.eval()
        self.config = config

    def logits(self, batch: Batch) -> np.ndarray:
        """Return float64 [C, H]: logits on the scale of all impressions, not calibrated."""
        with torch.inference_mode():
            is_visible_RS = visible_actions(batch, time_window_mask_hours=0)
            logits_CH = self.ranker(batch, is_visible_RS).double().cpu().numpy()
        return correct_downsampling(logits_CH, self.config.negative_keep_fraction)

    def calibrate(self, logits_CH: np.ndarray) -> np.ndarray:
        """Return float64 [C, H] in (0, 1): probabilities, heads in the order of the features."""
        columns = [
            apply_calibrator(calibrator, logits_CH[:, h])
            for h, calibrator in enumerate(self.config.calibrators)
        ]
        return np.stack(columns, axis=1)

    def probabilities(self, batch: Batch) -> np.ndarray:
        """Return float64 [C, H] in (0, 1): the calibrated probabilities of a batch."""
        return self.calibrate(self.logits(batch))
