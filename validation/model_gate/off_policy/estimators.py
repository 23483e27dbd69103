"""Three estimators of a ranking's value from logged exploration, each as a ratio of sums.

Exploration requests show candidates that were drawn at random, in random order. Two values are
estimated: the actions that the ranking's first candidate would bring in the first place (`replay`,
`doubly_robust`), and the actions in its top k if candidates were drawn evenly (`slate_snips`). Each
estimator gives a numerator and a denominator per request, so that all of them are resampled by user
in the same way (`estimate`). Equal to the package `obp` (Saito et al. 2021) where the definitions
are, which the tests show.

Letters: R requests, N candidates of all of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Logged:
    """Exploration requests as they were logged."""

    request: NDArray[np.intp]  # (N,) 0 to R - 1
    num_requests: int
    is_first: Mask  # (N,) shown in the first place; a request whose first place is lost has none
    reward: FloatArray  # (N,) 1 where the target's action followed

    @property
    def num_candidates(self) -> FloatArray:
        """Candidates of each request, (R,)."""
        return np.bincount(self.request, minlength=self.num_requests).astype(np.float64)


@dataclass(frozen=True)
class Choice:
    """What one ranking would have put on top."""

    is_best: Mask  # (N,) its first candidate of each request
    is_top: Mask  # (N,) its top k


@dataclass(frozen=True)
class Parts:
    """An estimate is sum(numerator) / sum(denominator), (R,) each."""

    numerator: FloatArray
    denominator: FloatArray
    weights: FloatArray  # (R,) how much each request counts, for the effective size

    @property
    def value(self) -> float | None:
        """The estimate; None where nothing was logged that it could use."""
        total = float(self.denominator.sum())
        return float(self.numerator.sum()) / total if total > 0 else None

    @property
    def effective_size(self) -> float:
        """Kish's effective number of requests, (sum w)^2 / sum w^2; 0 without any."""
        squares = float(np.square(self.weights).sum())
        return float(self.weights.sum()) ** 2 / squares if squares > 0 else 0.0


def replay(logged: Logged, choice: Choice) -> Parts:
    """Return the mean reward of the ranking's first candidate where chance showed it first.

    Only requests count in which the log agrees with the ranking (Li, Chu, Langford and Wang 2011).

    Bias: none for the first place, if the order was random and all requests have as many
    candidates. Where they differ, a request with n of them agrees once in n times, so that short
    ones weigh more. Places two and three are not seen.
    """
    agrees = (logged.is_first & choice.is_best).astype(np.float64)
    counts = _sum(logged, agrees)
    return Parts(_sum(logged, agrees * logged.reward), counts, counts)


def doubly_robust(logged: Logged, choice: Choice, predicted: FloatArray, clip: float) -> Parts:
    """Return the predicted reward of the ranking's first candidate, corrected by what was seen.

    With n candidates the log agrees with the ranking once in n times, so where it does, the error
    of the prediction counts n times (Dudik, Langford and Li 2011).

    Bias: none for the first place where the order was random, or where the predictions are right.
    Weights above `clip` are cut to it; what that leaves is the predictions' mean error times the
    share that was cut. Requests whose first place is lost do not count.

    Args:
        logged: The log.
        choice: The ranking.
        predicted: (N,) expected reward of each candidate, the same for all rankings compared.
        clip: Largest weight.
    """
    weights = np.minimum(logged.num_candidates, clip)[logged.request]
    agrees = logged.is_first & choice.is_best
    error = np.where(agrees, weights * (logged.reward - predicted), 0.0)
    has_first = _sum(logged, logged.is_first.astype(np.float64))
    total = _sum(logged, np.where(choice.is_best, predicted, 0.0) + error) * has_first
    return Parts(total, has_first, _sum(logged, np.where(agrees, weights, 0.0)))


def slate_snips(logged: Logged, choice: Choice, weights: FloatArray) -> Parts:
    """Return the actions in the top k, each request weighted by how seldom its slate is drawn.

    The weights are normalised over all requests (Swaminathan and Joachims 2015).

    Bias: of order 1 / effective size, from the normalisation, if candidates are drawn one by one
    with their logged chances. An action counts wherever its candidate was shown, as if places did
    not matter. With equal weights it is the plain volume of the exploration segment.

    Args:
        logged: The log.
        choice: The ranking.
        weights: (R,) see `slate_weights`; 0 leaves a request out.
    """
    volume = _sum(logged, choice.is_top * logged.reward)
    return Parts(weights * volume, weights, weights)


def slate_weights(logged: Logged, propensity: FloatArray) -> FloatArray:
    """Return weights (R,) that make slates as likely as if all candidates were drawn evenly.

    A slate of candidates that are drawn independently with chances p, or that many of them, has a
    probability proportional to the product of p / (1 - p), so its weight is the inverse product.
    Each factor is divided by the geometric mean of all factors, so that long slates do not weigh
    more or less for their length, and equal chances give weights of exactly 1.

    Args:
        logged: The log.
        propensity: (N,) logged chance of each candidate; 0 where none was logged. A request with
            such a candidate, or with one that is always shown, gets the weight 0.
    """
    is_known = (propensity > 0) & (propensity < 1)
    is_complete = np.bincount(logged.request, ~is_known, minlength=logged.num_requests) == 0
    usable = is_complete[logged.request]
    if not usable.any():
        return np.zeros(logged.num_requests)
    chance = propensity[usable].astype(np.float64)
    if np.ptp(chance) == 0:
        return is_complete.astype(np.float64)
    factors = np.log((1 - chance) / chance)
    sums = np.bincount(
        logged.request[usable], factors - factors.mean(), minlength=logged.num_requests
    )
    # The largest exponent is taken out, which the normalisation undoes: no product overflows.
    exponents = sums - sums[is_complete].max()
    return np.where(is_complete, np.exp(exponents), 0.0)


def _sum(logged: Logged, values: FloatArray) -> FloatArray:
    """Return sums per request, (R,)."""
    sums = np.bincount(logged.request, values, minlength=logged.num_requests)
    return sums.astype(np.float64)
