"""Metrics of a ranking that only tests need."""

import numpy as np

from training.data.reader import ExampleRows
from validation.model_gate.ranking_metrics import top_k_hits


def volume_at_3(rows: ExampleRows, score: np.ndarray, label: np.ndarray) -> float:
    """Return the labels in the top 3, mean over requests."""
    return float(top_k_hits(rows, score, label).mean())


def calibration_ratio(probability: np.ndarray, label: np.ndarray) -> float:
    """Return mean predicted / mean observed; 1 is right."""
    return float(np.mean(probability, dtype=np.float64) / np.mean(label, dtype=np.float64))
