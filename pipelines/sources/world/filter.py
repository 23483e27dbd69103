"""The best predictions that there are in the world: an exact filter for the hidden state.

A user's state is (intent, dislike). The intent is always one of the liked topics and the dislike
always one of the others, and the two change independently. A candidate's outcome depends on the
intent if its topic is liked and on the dislike if it is not, never on both. So the likelihood of a
request's outcomes is f(intent) g(dislike), and a posterior that starts as a product stays one: two
filters over K topics each are exact, where the pair would need one over K * K.

    predicted_n = stay_n posterior_{n-1} + (1 - stay_n) prior
    posterior_n ~ predicted_n exp(evidence_n),  evidence_n(k) = log P(o | k) - log P(o | none)

Not for drawing anything.

Letters: U users, R requests, C candidates, K topics, A outcomes.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from pipelines.event_log.event_index import place_in_run
from pipelines.sources.world.draws import (
    Floats,
    Ints,
    Requests,
    Shown,
    Users,
    chances,
    is_repin_A,
    true_chances,
)
from pipelines.sources.world.parameters import WorldParameters


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
    topic_RC = shown.topic_RC
    no_RC = np.zeros(topic_RC.shape, dtype=bool)
    # The chances where a candidate's topic is neither intended nor disliked, intended, disliked.
    by_state = [chances(world, shown, *state) for state in ((no_RC,) * 2, (~no_RC, no_RC))]
    by_state.append(chances(world, shown, no_RC, ~no_RC))
    log_RC = [log_likelihood(shown, chance_ARC, outcome_RC) for chance_ARC in by_state]
    priors = (users.taste_UK, users.dislike_prior_UK)
    predicted = []
    for logs_RC, prior_UK, stay_R in zip(
        log_RC[1:], priors, (requests.intent_stay_R, requests.dislike_stay_R), strict=True
    ):
        shape = (len(topic_RC), prior_UK.shape[1])
        key_RC = topic_RC + shape[1] * np.arange(shape[0])[:, None]
        surprise_RC = (logs_RC - log_RC[0]).ravel()
        sums = np.bincount(key_RC.ravel(), weights=surprise_RC, minlength=shape[0] * shape[1])
        evidence_RK = np.asarray(sums, dtype=np.float64).reshape(shape)
        predicted.append(forward_filter(prior_UK, requests.user_R, stay_R, evidence_RK))

    neither_RC, intended_RC, disliked_RC = (repin_chance(world, each) for each in by_state)

    def mixture(intent_RK: Floats, dislike_RK: Floats) -> Floats:
        """Return the expected chance of a repin; no topic is both intended and disliked."""
        intent_RC = np.take_along_axis(intent_RK, topic_RC, axis=1)
        dislike_RC = np.take_along_axis(dislike_RK, topic_RC, axis=1)
        return (
            neither_RC
            + intent_RC * (intended_RC - neither_RC)
            + dislike_RC * (disliked_RC - neither_RC)
        )

    return BestPredictions(
        oracle_RC=repin_chance(world, true_chances(world, shown, requests)),
        filtered_RC=mixture(*predicted),
        no_sequence_RC=mixture(*(prior_UK[requests.user_R] for prior_UK in priors)),
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


def repin_chance(world: WorldParameters, chance_ARC: Floats) -> Floats:
    """Return (R, C) the chance of a repin, of `chances` of the outcomes."""
    return np.asarray(chance_ARC[is_repin_A(world)].sum(axis=0))


def log_likelihood(shown: Shown, chance_ARC: Floats, outcome_RC: Ints) -> Floats:
    """Return (R, C) the logarithm of the outcomes' probability under these chances."""
    seen_ARC = chance_ARC * shown.examination_C
    none_1RC = 1.0 - seen_ARC.sum(axis=0, keepdims=True)
    by_outcome = np.concatenate([none_1RC, seen_ARC])
    return np.log(np.take_along_axis(by_outcome, outcome_RC[None], axis=0)[0])
