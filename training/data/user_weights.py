"""How much a user's requests weigh in the loss: w_u, a product over the user's features.

TransAct (Xia et al., 2023, section 3.4) has w_u = w_state x w_location x w_gender. Not for the
weights of labels: those are `training.model.loss`.
"""

import numpy as np

from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.schemas import categorical_column
from training.data.reader import RequestIndex, SnapshotReader


def user_weights(
    reader: SnapshotReader, index: RequestIndex, features: FeatureConfig
) -> np.ndarray:
    """Return w_u of each request's user, float64 [R]; 1 where no weight is configured."""
    weights_R = np.ones(len(index))
    for feature in features.categorical_of("users"):
        by_code = np.ones(len(feature.values) + 1)  # code 0 is any other value
        for entry in features.user_weights:
            if entry.feature == feature.name:
                by_code[feature.values.index(entry.value) + 1] = entry.weight
        codes_R = reader.user_column(index, categorical_column(feature.name))
        weights_R *= by_code[codes_R]
    return weights_R
