"""The scales of a training's rows as a value, which the model takes in.

Not for measuring them (`training.data.statistics`): a served model has this class and reads no
snapshot. Tested in tests/training/data/test_statistics.py.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FeatureStatistics:
    """Scales of the training rows. N numeric inputs (features and flags), H heads."""

    numeric_mean_N: np.ndarray
    numeric_scale_N: np.ndarray  # standard deviations, 1 where an input is constant
    pin_scale: float  # 1 / root mean square of an embedding's components
    user_scale: float
    head_rates_H: np.ndarray  # share of positives, in (0, 1)
