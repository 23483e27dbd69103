"""Platt scaling per head: turns logits into probabilities that come true.

It is fitted on users whom the model was not trained on. Not for ranking: where one head alone
makes the ranking score, a positive scale does not change the order.
"""

import math

import numpy as np
from pydantic import Field

from pipelines.contracts.base import Frozen

_PRIOR_STRENGTH = 400.0
"""Pseudo-observations that pull scale and shift towards 1 and 0. There are many of them because the
examples of a user are not independent: the examples of a few users must change little."""
_NUM_ITERATIONS = 50
_MIN_SCALE = 0.1


class Calibrator(Frozen):
    """p = sigmoid(scale * (logit + log keep fraction) + shift + drift) of one head."""

    head: str
    scale: float = Field(gt=0, description="1 leaves the model's confidence as it is.")
    shift: float = Field(description="0 leaves the model's level as it is.")
    drift: float = Field(
        default=0.0, description="Added to the log-odds: the rate moved in the training window."
    )


def correct_downsampling(logits: np.ndarray, negative_keep_fraction: float) -> np.ndarray:
    """Return logits on the scale of all impressions, though training saw a share of the negatives.

    Keeping a share k of the negatives multiplies the odds by 1 / k, so log k is added. That is
    exact where every negative of a head could be left out. A head's negatives that are positives of
    another head were all kept; the calibrator takes out the difference that this makes.
    """
    return logits + math.log(negative_keep_fraction)


def fit_calibrator(head: str, logits: np.ndarray, labels: np.ndarray) -> Calibrator:
    """Fit scale and shift by penalised maximum likelihood (Newton's method).

    Args:
        head: The head's name.
        logits: Float [n], corrected for downsampling.
        labels: [n], 0 or 1.

    Returns:
        The calibrator, which is the identity where there are no rows. Where the scores do not rank
        the rows (the fitted scale is below 0.1), only the shift is fitted, so that the order is
        never reversed.
    """
    if len(labels) == 0:
        return Calibrator(head=head, scale=1.0, shift=0.0)
    scale, shift = _newton(logits.astype(np.float64), labels.astype(np.float64), is_scaled=True)
    if scale < _MIN_SCALE:
        scale, shift = _newton(
            logits.astype(np.float64), labels.astype(np.float64), is_scaled=False
        )
    return Calibrator(head=head, scale=scale, shift=shift)


def apply_calibrator(calibrator: Calibrator, logits: np.ndarray) -> np.ndarray:
    """Return probabilities, float64 in (0, 1)."""
    shift = calibrator.shift + calibrator.drift
    return sigmoid(calibrator.scale * logits.astype(np.float64) + shift)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-logit)), by a tanh that does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def _newton(logits: np.ndarray, labels: np.ndarray, *, is_scaled: bool) -> tuple[float, float]:
    """Return scale and shift where log loss plus prior is least; it is convex, so there is one."""
    design = np.stack([logits, np.ones_like(logits)], axis=1)[:, 0 if is_scaled else 1 :]
    offset = np.zeros_like(logits) if is_scaled else logits
    prior = np.array([1.0, 0.0])[0 if is_scaled else 1 :]
    # The prior's unit is one observation at p = 1/2, whose information is 1/4.
    strength = _PRIOR_STRENGTH / 4.0
    solution = prior.copy()

    def objective(point: np.ndarray) -> float:
        z = design @ point + offset
        penalty = 0.5 * strength * float(np.square(point - prior).sum())
        return float(np.sum(np.logaddexp(0.0, z) - labels * z)) + penalty

    for _ in range(_NUM_ITERATIONS):
        p = sigmoid(design @ solution + offset)
        gradient = design.T @ (p - labels) + strength * (solution - prior)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + strength * np.eye(len(prior))
        step = np.linalg.solve(hessian, gradient)
        size, before = 1.0, objective(solution)
        while objective(solution - size * step) > before and size > 1e-6:
            size /= 2  # far from the minimum a full step can overshoot
        solution = solution - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    return (float(solution[0]), float(solution[1])) if is_scaled else (1.0, float(solution[0]))
