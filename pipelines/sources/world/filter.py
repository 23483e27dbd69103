"""The best predictions that there are in the world: an exact filter for the hidden state.

A user's state is (intent, dislike). The intent is always one of the liked topics and the dislike
always one of the others, and the two change independently. A candidate's outcome depends on the
intent if its topic is liked and on the dislike if it is not, never on both. So the likelihood of a
request's outcomes is f(intent) g(dislike), and a posterior that starts as a product stays one: two
filters over K topics each are exact, where the pair would need one over K * K.

    predicted_n = stay_n posterior_{n-1} + (1 - stay_n) prior
    posterior_n ~ predicted_n exp(evidence_n),  evidence_n(k) = log P(o | k) - log P(o | none)

Not for drawing anything.

Letters: U users, R requests, C candidates, K topics.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipelines.event_log.event_index import place_in_run
from pipelines.sources.world.actions import (
    Shown,
    chances,
    log_likelihood,
    repin_chance,
    true_chances,
)
from pipelines.sources.world.parameters import WorldParameters
from pipelines.sources.world.people import Floats, Ints, Users
from pipelines.sources.world.requests import Requests


class ByState(NamedTuple):
    """Chances of outcomes, or of a repin alone, for each state that a topic can be in."""

    neither: Floats
    intended: Floats
    disliked: Floats


@dataclass(frozen=True)
class BestPredictions:
    """The chance of a repin once a candidate is looked at, by what the ranker knows."""

    oracle_RC: Floats  # the hidden state too
    filtered_RC: Floats  # all that the user did and was shown before the request
    no_sequence_RC: Floats  # the user's taste, not what they did


def predict(
    world: WorldParameters, users: Users, requests: Requests, shown: Shown, outcome_RC: Ints
) -> BestPredictions:
    """Return the three predictions of every candidate."""
    by_state = _chances_by_state(world, shown)
    base_RC = log_likelihood(shown, by_state.neither, outcome_RC)
    predicted = []
    for chance, prior_UK, stay_R in (
        (by_state.intended, users.taste_UK, requests.intent_stay_R),
        (by_state.disliked, users.dislike_prior_UK, requests.dislike_stay_R),
    ):
        surprise_RC = log_likelihood(shown, chance, outcome_RC) - base_RC
        evidence_RK = _sum_by_topic(shown.topic_RC, surprise_RC, prior_UK.shape[1])
        predicted.append(forward_filter(prior_UK, requests.user_R, stay_R, evidence_RK))

    repins = ByState(*(repin_chance(world, chances_ARC) for chances_ARC in by_state))
    priors = (users.taste_UK[requests.user_R], users.dislike_prior_UK[requests.user_R])
    return BestPredictions(
        oracle_RC=repin_chance(world, true_chances(world, shown, requests)),
        filtered_RC=_mixture(shown.topic_RC, repins, predicted[0], predicted[1]),
        no_sequence_RC=_mixture(shown.topic_RC, repins, *priors),
    )


def forward_filter(prior_UK: Floats, user_R: Ints, stay_R: Floats, evidence_RK: Floats) -> Floats:
    """Return (R, K) the distribution of a chain's state before each request.

    Args:
        prior_UK: each user's distribution of new draws; the stationary one too.
        user_R: whose request it is; a user's requests stand together, by time.
        stay_R: chance that the state is the previous request's; anything at a user's first.
        evidence_RK: log-likelihood of the request's outcomes, up to a constant per request.
    """
    predicted_RK = np.empty_like(evidence_RK)
    number_R = place_in_run(user_R)
    by_number = np.argsort(number_R, kind="stable")  # first requests, then second ones, and so on
    ends = np.cumsum(np.bincount(number_R))
    posterior_UK = prior_UK.copy()
    for start, end in itertools.pairwise([0, *ends]):
        row = by_number[start:end]
        user, stay = user_R[row], stay_R[row][:, None]
        predicted = stay * posterior_UK[user] + (1.0 - stay) * prior_UK[user]
        predicted_RK[row] = predicted
        weight = evidence_RK[row] - evidence_RK[row].max(axis=1, keepdims=True)
        joint = predicted * np.exp(weight)
        posterior_UK[user] = joint / joint.sum(axis=1, keepdims=True)
    return predicted_RK


def _chances_by_state(world: WorldParameters, shown: Shown) -> ByState:
    """Return (A, R, C) the chance of each outcome, by the state of the candidate's topic."""
    no_RC = np.zeros(shown.topic_RC.shape, dtype=bool)
    return ByState(
        neither=chances(world, shown, no_RC, no_RC),
        intended=chances(world, shown, ~no_RC, no_RC),
        disliked=chances(world, shown, no_RC, ~no_RC),
    )


def _sum_by_topic(topic_RC: Ints, value_RC: Floats, num_topics: int) -> Floats:
    key_RC = topic_RC + num_topics * np.arange(len(topic_RC))[:, None]
    size = len(topic_RC) * num_topics
    sums = np.bincount(key_RC.ravel(), weights=value_RC.ravel(), minlength=size)
    return np.asarray(sums, dtype=np.float64).reshape(-1, num_topics)


def _mixture(topic_RC: Ints, repins: ByState, intent_RK: Floats, dislike_RK: Floats) -> Floats:
    """Return the expected chance of a repin; no topic can be both intended and disliked."""
    intent_RC = np.take_along_axis(intent_RK, topic_RC, axis=1)
    dislike_RC = np.take_along_axis(dislike_RK, topic_RC, axis=1)
    return (
        repins.neither
        + intent_RC * (repins.intended - repins.neither)
        + dislike_RC * (repins.disliked - repins.neither)
    )
