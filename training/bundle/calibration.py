"""Platt scaling per head: brings scores back to probabilities, on users that were not trained on.

Not for ranking: with one head in the ranking score, a positive scale leaves the order alone.
"""

import math

import numpy as np
from pydantic import Field

from pipelines.contracts.base import Frozen

_PRIOR_STRENGTH = 400.0
"""Pseudo-observations that pull (scale, shift) towards (1, 0). Many, because the examples of a user
are not independent: a slice of a few users must change little."""
_NUM_ITERATIONS = 50
_MIN_SCALE = 0.1


class Calibrator(Frozen):
    """p = sigmoid(scale * (logit + log keep fraction) + shift) of one head."""

    head: str
    scale: float = Field(gt=0, description="1 leaves the model's confidence as it is.")
    shift: float = Field(description="0 leaves the model's level as it is.")


def correct_downsampling(logits: np.ndarray, negative_keep_fraction: float) -> np.ndarray:
    """Return logits on the scale of all impressions; the model saw a share of the negatives.

    Keeping a share k of the negatives multiplies the odds by 1 / k, so log k is added. This is
    exact where every negative of a head was subject to downsampling; a head's negatives that are
    another head's positives were all kept, and what that leaves over is the calibrator's to take
    out.
    """
    return logits + math.log(negative_keep_fraction)


def fit_calibrator(head: str, logits: np.ndarray, labels: np.ndarray) -> Calibrator:
    """Fit scale and shift by penalised maximum likelihood (Newton's method).

    Args:
        head: the head's name.
        logits: float [n], corrected for downsampling.
        labels: [n], 0 or 1.

    Returns:
        The calibrator; the identity where there are no rows. If the scores do not rank the rows at
        all (a scale below 0.1), only the shift is fitted, so that no order is ever turned around.
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
    scaled = calibrator.scale * logits.astype(np.float64) + calibrator.shift
    return 0.5 * (1.0 + np.tanh(0.5 * scaled))


def _newton(logits: np.ndarray, labels: np.ndarray, *, is_scaled: bool) -> tuple[float, float]:
    """Return the minimiser of the log loss plus the prior; convex, so it is the only one."""
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
        p = 0.5 * (1.0 + np.tanh(0.5 * (design @ solution + offset)))
        gradient = design.T @ (p - labels) + strength * (solution - prior)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + strength * np.eye(len(prior))
        step = np.linalg.solve(hessian, gradient)
        size, before = 1.0, objective(solution)
        while objective(solution - size * step) > before and size > 1e-6:
            size /= 2  # far from the solution a full step can overshoot
        solution = solution - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    return (float(solution[0]), float(solution[1])) if is_scaled else (1.0, float(solution[0]))
