"""Three estimators of a ranking's value from logged exploration, each as a ratio of sums.

The value is the actions that a request would bring in the top k if the ranking were shown on
candidates that were drawn evenly from the pool. Each estimator gives a numerator and a denominator
per request, so that all of them are resampled by user in the same way (`estimate`). Equal to the
package `obp` (Saito et al. 2021) where the definitions are, which the tests show.

Letters: R requests, N candidates of all of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Logged:
    """Exploration requests as they were logged."""

    request: NDArray[np.intp]  # (N,) 0 to R - 1
    num_requests: int
    is_first: NDArray[np.bool_]  # (N,) shown in the request's first place
    reward: FloatArray  # (N,) 1 where the target's action followed
    weight: FloatArray | None  # (N,) evenness over logged chance; None where no chance was logged


@dataclass(frozen=True)
class Choice:
    """What one ranking would have put on top."""

    is_best: NDArray[np.bool_]  # (N,) its first candidate of each request
    is_top: NDArray[np.bool_]  # (N,) its top k
    predicted: FloatArray | None  # (N,) what a reward model expects; None where there is none


@dataclass(frozen=True)
class Parts:
    """An estimate is sum(numerator) / sum(denominator), (R,) each."""

    numerator: FloatArray
    denominator: FloatArray

    @property
    def value(self) -> float | None:
        """The estimate; None where nothing was logged that it could use."""
        total = float(self.denominator.sum())
        return float(self.numerator.sum()) / total if total > 0 else None


def even_weights(
    request: NDArray[np.intp], num_requests: int, propensity: FloatArray
) -> FloatArray | None:
    """Return weights (N,) that make each request's candidates as if drawn evenly from the pool.

    A candidate's weight is proportional to 1 / propensity, and its mean over a request is 1. Where
    all chances of a request are equal, all its weights are 1.

    Args:
        request: (N,) the request of each candidate.
        num_requests: R.
        propensity: (N,) logged chance of being among the candidates; 0 where none was logged.

    Returns:
        The weights, or None where a chance is missing: a request half weighted would be worse than
        none.
    """
    if not len(propensity) or (propensity <= 0).any():
        return None
    inverse = 1 / propensity
    totals = np.bincount(request, inverse, minlength=num_requests)
    counts = np.bincount(request, minlength=num_requests)
    return np.asarray(inverse * (counts / totals)[request], dtype=np.float64)


def replay(logged: Logged, choice: Choice) -> Parts:
    """Return the mean reward of the ranking's first candidate where chance showed it first.

    Only requests count in which the log agrees with the ranking (Li, Chu, Langford and Wang 2011).

    Bias: none for the reward of the first place, if the order on exploration requests was random;
    the value of places two and three is not seen. With 12 candidates it uses one request of 12.
    """
    agrees = logged.is_first & choice.is_best
    return Parts(_sum(logged, agrees * logged.reward), _sum(logged, agrees.astype(np.float64)))


def slate_snips(logged: Logged, choice: Choice, k: int) -> Parts | None:
    """Return the self-normalised importance-weighted actions in the top k (Swaminathan 2015).

    Bias: of order 1 / effective sample size, from the normalisation; and whatever a place does to
    an action, because an action counts wherever its candidate was shown. None where chances are
    not logged.
    """
    if logged.weight is None:
        return None
    weight = choice.is_top * logged.weight
    return Parts(k * _sum(logged, weight * logged.reward), _sum(logged, weight))


def doubly_robust(logged: Logged, choice: Choice, clip: float) -> Parts | None:
    """Return predicted actions in the top k, corrected by what was seen (Dudik et al. 2011).

    Bias: none where either the weights or the predictions are right. Weights above `clip` are cut
    to it, which leaves a bias of at most the predictions' error on those candidates, for less
    variance. Both sides are held to the same predictions. None where chances or predictions are
    missing.
    """
    if logged.weight is None or choice.predicted is None:
        return None
    weight = np.minimum(logged.weight, clip)
    corrected = choice.predicted + weight * (logged.reward - choice.predicted)
    return Parts(_sum(logged, choice.is_top * corrected), np.ones(logged.num_requests))


def effective_size(weights: FloatArray) -> float:
    """Return Kish's effective sample size, (sum w)^2 / sum w^2; 0 without any weight."""
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def _sum(logged: Logged, values: FloatArray) -> FloatArray:
    """Return sums per request, (R,)."""
    sums = np.bincount(logged.request, values, minlength=logged.num_requests)
    return sums.astype(np.float64)
