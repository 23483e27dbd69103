"""Metrics of a ranking against labels, over whole arrays.

Scores are finite, and there is one of them and one label for each row: whoever calls asks first
(`validation.model_gate.comparison`), and tells people why a metric is missing. All of them judge a
model on candidates that another model chose to show; what this model would have shown has no label.
Not for intervals (`validation.model_gate.intervals`).

The AUC is not scikit-learn's, which the tests compare it with: on a million examples scikit-learn's
takes 1.0 s, ours 0.4 s, and the gate takes it for every head, segment and side. It also gives the
variance over users, which scikit-learn's does not.

Letters: N examples, M requests.
"""

from typing import TYPE_CHECKING

import numpy as np

from pipelines.contracts.hashing import mix

if TYPE_CHECKING:
    from training.data.reader import ExampleRows

_TIE_SALT = 301


def is_in_top(rows: "ExampleRows", score: np.ndarray, k: int) -> np.ndarray:
    """Return which candidates are among the k best-scored of their request; bool (N,).

    Ties are broken by a seeded hash of request and pin, which knows neither position nor label, so
    that a constant score is worth as much as a random order. Of a request with fewer than k
    candidates all are.

    Args:
        rows: The rows that the score belongs to.
        score: (N,) finite, the highest goes first.
        k: How many candidates of a request are looked at.
    """
    everything = slice(len(rows.pin_row))
    order = np.lexsort((_ties(rows, everything), -np.asarray(score), rows.request_index))
    # Rows are sorted by request first, so the rank is the distance to the request's first row.
    rank = np.arange(len(order)) - rows.first_example[rows.request_index[order]]
    is_top = np.empty(len(order), dtype=bool)
    is_top[order] = rank < k
    return is_top


def places_in(rows: "ExampleRows", score: np.ndarray, request: int) -> np.ndarray:
    """Return the places of a request's candidates, of the best-scored 1, ties as in `is_in_top`."""
    own = slice(*rows.first_example[request : request + 2])
    return 1 + np.argsort(np.lexsort((_ties(rows, own), -np.asarray(score[own]))))


def _ties(rows: "ExampleRows", of: slice) -> np.ndarray:
    return mix(mix(rows.pin_row[of], _TIE_SALT) ^ mix(rows.request_index[of], _TIE_SALT))


def expected_calibration_error(
    probability: np.ndarray, label: np.ndarray, num_bins: int = 10
) -> float:
    """Return the mean |predicted - observed| over bins of equally many rows; lower is better.

    Chance in small bins makes it too large: on few rows even a perfect model does not reach 0.

    Args:
        probability: (N,) in [0, 1]; at least as many as bins.
        label: (N,) 0 or 1.
        num_bins: How many bins there are.
    """
    p = np.asarray(probability, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    bin_of = np.arange(len(p)) * num_bins // len(p)
    gaps = np.bincount(bin_of, weights=p[order] - np.asarray(label, dtype=np.float64)[order])
    return float(np.abs(gaps).sum() / len(p))


def area_under_curve(score: np.ndarray, label: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the chance that a positive scores above a negative, and each row's influence on it.

    Ties count half; higher is better. It is taken over all rows at once, so it also rewards a model
    for telling active users from others, which orders nothing within a request.

    The influences, float64 (N,), sum to zero. Summed per user and squared, they estimate the
    variance of the area over draws of users: that of DeLong, DeLong and Clarke-Pearson (Biometrics
    44, 1988), for clustered rows as in Obuchowski (Biometrics 53, 1997).

    Args:
        score: (N,) finite, the highest for what is most likely.
        label: (N,) 0 or 1; both occur.
    """
    is_positive = np.asarray(label) > 0
    num_positive = int(is_positive.sum())
    num_negative = len(label) - num_positive
    # Rows of an equal score are one place, in ascending order; scores that are sorted cost little.
    order = np.argsort(score, kind="stable")
    place = np.empty(len(order), dtype=np.intp)
    place[order] = np.cumsum(np.diff(np.asarray(score)[order], prepend=score[order[0]]) > 0)
    positives = np.bincount(place, weights=is_positive)
    negatives = np.bincount(place) - positives
    # The chance that a negative is below a positive of this place, and a positive above a negative.
    below = (np.cumsum(negatives) - negatives / 2) / num_negative
    above = (num_positive - np.cumsum(positives) + positives / 2) / num_positive
    area = float(positives @ below) / num_positive
    influence = np.where(
        is_positive, (below[place] - area) / num_positive, (above[place] - area) / num_negative
    )
    return area, influence
