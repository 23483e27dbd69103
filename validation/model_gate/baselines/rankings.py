"""Rankings by one number that a snapshot always holds: the least that a model has to beat.

They were fixed before any model was tuned against them, and none of them learns. Ties are broken at
random (`validation.model_gate.ranking_metrics`), so that the order of constants is the random one.
Not for the regression, which learns (`regression`).

Letters: N examples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Numbers = Mapping[str, np.ndarray]
"""The numeric features of the holdout, by name, float32 (N,)."""

RANDOM = "a random order"
POPULARITY = "popularity, 28 days"


@dataclass(frozen=True)
class Ranking:
    """One way to order a request's candidates without a model."""

    name: str
    description: str
    needs: tuple[str, ...]  # names of numeric features
    score: Callable[[Numbers, int], FloatArray]  # (numbers, N) -> (N,), the highest goes first


def _by(feature: str, sign: float = 1.0) -> Callable[[Numbers, int], FloatArray]:
    """Return the score of a ranking by one feature, the largest first, or the smallest."""

    def score(numbers: Numbers, num_examples: int) -> FloatArray:
        return sign * np.asarray(numbers[feature], dtype=np.float64)

    return score


def _constant(numbers: Numbers, num_examples: int) -> FloatArray:
    return np.zeros(num_examples)


def _by_past_engagement(numbers: Numbers, num_examples: int) -> FloatArray:
    """Return the score of a ranking by past engagement, and by popularity where that is equal.

    The features are log(1 + count). The past counts as whole actions, and log(1 + popularity) is
    far below the factor, so that no popularity outweighs an action.
    """
    past = np.expm1(np.asarray(numbers["past_engagements"], dtype=np.float64)).round()
    return past * 1_000 + np.asarray(numbers["pin_popularity_28d"], dtype=np.float64)


def _popularity(days: int) -> Ranking:
    said = "the day" if days == 1 else f"the {days} days"
    return Ranking(
        f"popularity, {days} day{'s' * (days > 1)}",
        f"The pin's wanted actions in {said} before the request's day, most first.",
        (f"pin_popularity_{days}d",),
        _by(f"pin_popularity_{days}d"),
    )


RANKINGS = (
    Ranking(RANDOM, "A seeded hash of request and pin.", (), _constant),
    _popularity(1),
    _popularity(7),
    _popularity(28),
    Ranking(
        "newest first",
        "pin_age, least first: the time since the pin's first appearance of the last 28 days, or "
        "since the time in the column that the recipe names; a pin without one is newest.",
        ("pin_age",),
        _by("pin_age", -1.0),  # A pin whose age is missing has the age 0.
    ),
    Ranking(
        "past engagement",
        "The user's earlier actions on this very pin, most first; where equal, by popularity.",
        ("past_engagements", "pin_popularity_28d"),
        _by_past_engagement,
    ),
)
"""Where two are equally good, the one that stands first counts as the better one."""
