"""The bundle as an MLflow model from code: tensors in, probabilities out, by name.

MLflow runs this file when it loads the model. Not for batch scoring: that is
`training.bundle.split_scores`.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext

from training.bundle.files import load_bundle
from training.bundle.scorer import Scorer
from training.data.batches import for_scoring
from training.data.input_checks import check_inputs


class HomefeedRanker(PythonModel):
    """Loads the bundle among its artifacts; refuses to load one that is damaged."""

    scorer: Scorer

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle and check its golden rows."""
        self.scorer = load_bundle(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: Any, params: Any = None) -> dict[str, np.ndarray]:
        """Return calibrated and uncalibrated probabilities, float64 [candidates, heads].

        Args:
            context: not used.
            model_input: the arrays of `training.data.batches.MODEL_INPUTS`, by name.
            params: not used.

        Raises:
            DataContractError: the inputs are not what the bundle was trained for.
        """
        tensors = {name: torch.from_numpy(np.array(a)) for name, a in model_input.items()}
        config = self.scorer.config
        check_inputs(tensors, config.features, config.model)
        heads = config.features.heads
        batch = for_scoring(tensors, len(heads))
        return {
            "probabilities": self.scorer.probabilities(batch),
            "uncalibrated_probabilities": self.scorer.uncalibrated(batch),
        }


mlflow.models.set_model(HomefeedRanker())
