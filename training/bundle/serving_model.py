"""The bundle as an MLflow model from code: tensors in, probabilities out, by name.

MLflow runs this file when it loads the model. Not for whole snapshots: that is
`training.bundle.score_split`. Tested in tests/training/bundle/test_mlflow_model.py and
test_clean_environment.py.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext

from training.bundle.calibration import sigmoid
from training.bundle.files import Predictor, load_bundle
from training.data.batches import for_scoring
from training.data.input_checks import check_inputs


class HomefeedRanker(PythonModel):
    """Loads the bundle among its artifacts; refuses to load one that is damaged."""

    predictor: Predictor

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle and check its golden rows."""
        self.predictor = load_bundle(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: Any, params: Any = None) -> dict[str, np.ndarray]:
        """Return calibrated and uncalibrated probabilities, float64 [candidates, heads].

        Args:
            context: Not used.
            model_input: The arrays of `training.data.batches.MODEL_INPUTS`, by name.
            params: Not used.

        Raises:
            DataContractError: the inputs are not what the bundle was trained for.
        """
        tensors = {name: torch.from_numpy(np.array(a)) for name, a in model_input.items()}
        config = self.predictor.config
        check_inputs(tensors, config.features, config.model)
        logits_CH = self.predictor.logits(for_scoring(tensors, len(config.features.heads)))
        return {
            "probabilities": self.predictor.calibrate(logits_CH),
            "uncalibrated_probabilities": sigmoid(logits_CH),
        }


mlflow.models.set_model(HomefeedRanker())
