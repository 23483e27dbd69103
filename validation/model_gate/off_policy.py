"""What logged exploration says of a ranking that was never shown: four estimates, for both sides.

Ordinary requests show candidates that the serving model chose, so that a ranking which would have
chosen others is judged on the wrong list. Exploration requests show candidates that were drawn at
random, in random order. Two values are estimated: the actions that the ranking's first candidate
would bring in the first place (`weighted`, `doubly_robust`), and the actions in its top k if
candidates were drawn evenly (`slate_snips`). Each estimator gives a numerator and a denominator per
request, so that all of them get an interval in the same way. Equal to the package `obp`
(Saito et al. 2021) where the definitions are, which the tests show.

Not for the verdict, which does not use them: exploration is a few requests of a hundred, and the
intervals are wide.

Letters: R exploration requests, N candidates of all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.config import TOP_K
from pipelines.contracts.judgement import OffPolicyEstimate
from pipelines.contracts.reasons import Interval
from training.bundle.score_split import SplitScores
from validation.model_gate.comparison import Holdout, Mask
from validation.model_gate.intervals import Cells, FloatArray, Measured, user_groups
from validation.model_gate.ranking_metrics import is_in_top

FEWEST_ACTIONS = 10
"""With fewer actions that a ranking's estimate has seen, there is no number. From 3 on, intervals
of 95 % covered the truth in 95 % of 600 simulated logs; without any, only predictions speak."""
_NEAR_ONE = 1e-3
"""How near to 1 the chances of a request's candidates add up, as they were rounded in a log."""


@dataclass(frozen=True)
class Logged:
    """Exploration requests as they were logged."""

    request: NDArray[np.intp]  # (N,) 0 to R - 1
    num_requests: int
    is_first: Mask  # (N,) shown in the first place; a request whose first place is lost has none
    first_chance: FloatArray  # (N,) of being put there: `first_chances`
    reward: FloatArray  # (N,) 1 where the target's action followed

    def sum(self, values: NDArray[Any]) -> FloatArray:
        """Return sums of candidates' values (N,) per request, (R,)."""
        return np.bincount(self.request, values, minlength=self.num_requests).astype(np.float64)


@dataclass(frozen=True)
class Parts:
    """An estimate is sum(numerator) / sum(denominator), (R,) each."""

    numerator: FloatArray
    denominator: FloatArray
    weights: FloatArray  # (R,) how much each request counts, for the effective size
    num_actions: float  # that it has seen

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


def estimate(
    holdout: Holdout, challenger: SplitScores, baseline: SplitScores
) -> tuple[OffPolicyEstimate, ...]:
    """Return one estimate per estimator; nothing where the holdout has no exploration requests.

    A number that cannot be estimated is None with the reason, also where a side's scores are not
    finite: these estimates decide nothing, so they stop nothing.

    Raises:
        ConfigurationError: no head gives the target metric.
    """
    rows, head, sides = holdout.rows, holdout.target_head.name, (challenger, baseline)
    if not rows.is_exploration.any():
        return ()
    inside = np.asarray(rows.is_exploration[rows.request_index], dtype=bool)  # (all candidates,)
    propensity = rows.propensity[inside].astype(np.float64)
    logged = _logged(holdout, inside, propensity)
    tops: list[dict[int, Mask]] = []  # By k, what each ranking would have put among its first k.
    if all(np.isfinite(side.ranking_score).all() for side in sides):
        tops = [{k: is_in_top(rows, side.ranking_score, k)[inside] for k in (1, TOP_K)}
                for side in sides]  # fmt: skip
    weights = slate_weights(logged, propensity)
    # What is expected of each candidate is the same for both sides.
    given = [side.probabilities[head] for side in sides if head in side.probabilities]
    given = [values for values in given if np.isfinite(values).all()]
    predicted = np.mean(given, axis=0)[inside].astype(np.float64) if given else np.zeros(0)
    estimators: dict[str, tuple[str, Callable[[dict[int, Mask]], Parts]]] = {
        "IPS, first place": ("", lambda top: weighted(logged, top[1], is_normalised=False)),
        "SNIPS, first place": ("", lambda top: weighted(logged, top[1], is_normalised=True)),
        "doubly robust, first place": (
            "" if given else f"No side gives probabilities of '{head}'.",
            lambda top: doubly_robust(logged, top[1], predicted),
        ),
        f"slate SNIPS, top {TOP_K}": (
            "" if weights.any() else "No request has a propensity for all candidates.",
            lambda top: slate_snips(logged, top[TOP_K], weights),
        ),
    }
    found = []
    for name, (lack, parts_of) in estimators.items():
        lacking = lack if tops else "A side's scores hold NaN or infinity."
        mine, other = (None, None) if lacking else map(parts_of, tops)
        seen = min(mine.num_actions, other.num_actions) if mine and other else FEWEST_ACTIONS
        if seen < FEWEST_ACTIONS:
            lacking = f"Too few: it has seen {seen:.0f} actions, of {FEWEST_ACTIONS} at least."
            mine = other = None
        found.append(
            OffPolicyEstimate(
                estimator=name,
                challenger=mine and mine.value,
                baseline=other and other.value,
                relative_change=_change(holdout, mine, other) if mine and other else None,
                num_requests=logged.num_requests,
                effective_size=mine.effective_size if mine else 0,
                note=lacking,
            )
        )
    return tuple(found)


def _logged(holdout: Holdout, inside: Mask, propensity: FloatArray) -> Logged:
    """Return the exploration requests; `inside` says which candidates are of them."""
    rows = holdout.rows
    number = np.cumsum(rows.is_exploration) - 1  # of each request among the exploring ones
    request = number[rows.request_index[inside]]
    num_requests = int(rows.is_exploration.sum())
    position = rows.position[inside]
    in_front = position == position.min()
    # A first place that two candidates share was not logged, whatever the column says.
    is_single = np.bincount(request, in_front, minlength=num_requests) == 1
    return Logged(
        request=request,
        num_requests=num_requests,
        is_first=in_front & is_single[request],
        first_chance=first_chances(request, propensity),
        reward=rows.labels[holdout.target_head.name][inside].astype(np.float64),
    )


def _change(holdout: Holdout, mine: Parts, other: Parts) -> Interval | None:
    """Return the relative change with its interval over users and days; None without a value."""
    rows, explores = holdout.rows, holdout.rows.is_exploration
    if not mine.value or not other.value:
        return None
    cells = Cells.of(user_groups(rows.user_id[explores])[1], rows.day[explores])
    ratio = mine.value / other.value
    influences = ratio * (
        mine.numerator / mine.numerator.sum()
        - mine.denominator / mine.denominator.sum()
        - other.numerator / other.numerator.sum()
        + other.denominator / other.denominator.sum()
    )
    change = Measured.of(ratio - 1, cells.sums(influences), cells)
    return change.interval(holdout.config.confidence, lowest=-1.0)


def first_chances(request: NDArray[np.intp], propensity: FloatArray) -> FloatArray:
    """Return the chance (N,) with which each candidate was put in the first place of its request.

    Logged chances are of that where those of a request add up to 1, and where it has one candidate.
    Elsewhere the order was random, and each of n candidates was put there once in n times.

    Args:
        request: (N,) numbers of the candidates' requests.
        propensity: (N,) logged chances; 0 where none was logged.
    """
    count, total = np.bincount(request), np.bincount(request, propensity)
    is_whole = np.bincount(request, propensity <= 0) == 0
    is_logged = is_whole & ((count == 1) | (np.abs(total - 1) < _NEAR_ONE))
    return np.where(is_logged[request], propensity, 1 / count[request])


def weighted(logged: Logged, is_best: Mask, is_normalised: bool) -> Parts:
    """Return the reward of the ranking's first candidate where chance showed it first.

    Requests count in which the log agrees with the ranking, each as often as it is rare. IPS
    divides by the number of requests (Horvitz and Thompson 1952), SNIPS by the sum of the weights
    (Swaminathan and Joachims 2015), which is steadier.

    Bias: IPS has none for the first place, if every candidate could be put there; SNIPS one of
    order 1 / effective size. Places two and three are not seen.
    """
    agrees = logged.is_first & is_best
    weights = logged.sum(np.where(agrees, 1 / logged.first_chance, 0.0))
    rewards = weights * logged.sum(agrees * logged.reward)
    has_first = logged.sum(logged.is_first.astype(np.float64))
    seen = float(logged.reward[agrees].sum())
    return Parts(rewards, weights if is_normalised else has_first, weights, seen)


def doubly_robust(logged: Logged, is_best: Mask, predicted: FloatArray) -> Parts:
    """Return the predicted reward of the ranking's first candidate, corrected by what was seen.

    Where the log agrees with the ranking, the error of the prediction counts as often as that is
    rare (Dudik, Langford and Li 2011).

    Bias: none for the first place where the chances are right, or the predictions.
    Requests whose first place is lost do not count. No weight is cut.

    Args:
        logged: The log.
        is_best: (N,) the ranking's first candidate of each request.
        predicted: (N,) expected reward of each candidate, the same for all rankings compared.
    """
    agrees, weights = logged.is_first & is_best, 1 / logged.first_chance
    error = np.where(agrees, weights * (logged.reward - predicted), 0.0)
    has_first = logged.sum(logged.is_first.astype(np.float64))
    total = logged.sum(np.where(is_best, predicted, 0.0) + error) * has_first
    used = logged.sum(np.where(agrees, weights, 0.0))
    return Parts(total, has_first, used, logged.reward[agrees].sum())


def slate_snips(logged: Logged, is_top: Mask, weights: FloatArray) -> Parts:
    """Return the actions in the top k, each request weighted by how seldom its slate is drawn.

    The weights are normalised over all requests (Swaminathan and Joachims 2015).

    Bias: of order 1 / effective size, from the normalisation, if candidates are drawn one by one
    with their logged chances. An action counts wherever its candidate was shown, as if places did
    not matter. With equal weights it is the plain volume of the exploration segment.

    Args:
        logged: The log.
        is_top: (N,) the ranking's top k of each request.
        weights: (R,) see `slate_weights`; 0 leaves a request out.
    """
    volume = logged.sum(is_top * logged.reward)
    return Parts(weights * volume, weights, weights, volume[weights > 0].sum())


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
