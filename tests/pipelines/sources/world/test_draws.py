"""What is drawn, and the best predictions against the sum over all hidden paths."""

import itertools

import numpy as np
import pytest

from pipelines.contracts.schemas import EMBEDDING_DIM
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.sources.world import draws
from pipelines.sources.world.parameters import WorldParameters
from support.world_adapter import predict


def test_the_intent_stays_within_sessions_and_drifts_between_them() -> None:
    world = WorldParameters(num_users=300)
    rng = np.random.default_rng(5)
    catalogue = draws.draw_catalogue(rng, world)
    users = draws.draw_users(rng, world, range(300))
    requests = draws.draw_requests(rng, catalogue, users)
    is_same_user = np.diff(requests.user_R) == 0
    gap_ms = np.diff(requests.impressed_at_R)
    is_same = np.diff(requests.intent_R) == 0
    within = is_same[is_same_user & (gap_ms <= draws.MAX_PAUSE_MS)].mean()
    day_later = is_same[is_same_user & (gap_ms > 12 * HOUR_MS) & (gap_ms < DAY_MS)].mean()
    weeks_later = is_same[is_same_user & (gap_ms > 14 * DAY_MS)].mean()
    assert within > 0.95  # stays with chance 0.95, or is drawn again and may be the same
    assert within > day_later + 0.1 > weeks_later + 0.2
    assert (users.taste_UK[requests.user_R, requests.intent_R] > 0).all()
    assert (users.taste_UK[requests.user_R, requests.disliked_R] == 0).all()


def test_embeddings_are_unit_vectors_that_tell_topics_apart() -> None:
    catalogue = draws.draw_catalogue(np.random.default_rng(7), WorldParameters(num_pins=300))
    vectors, topic = catalogue.embedding_PE, catalogue.topic_P
    assert vectors.shape == (300, EMBEDDING_DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = vectors @ vectors.T
    is_same = topic[:, None] == topic[None, :]
    assert cosines[is_same].mean() > 0.5
    assert abs(cosines[~is_same].mean()) < 0.2


@pytest.mark.parametrize("variant", [{}, {"like": "production"}, {"pin_lifetime_days": 60.0}])
def test_the_filter_equals_the_sum_over_all_hidden_paths(
    variant: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LATE_SHARE", 0.0), ("MIN_TASTES", 2), ("MAX_TASTES", 2)):
        monkeypatch.setattr(draws, name, value)
    world = WorldParameters.model_validate({"num_users": 1, "num_pins": 80} | variant)
    rng = np.random.default_rng(5)
    catalogue = draws.draw_catalogue(rng, world)
    users = draws.draw_users(rng, world, range(1))
    requests = draws.draw_requests(rng, catalogue, users)
    shown = draws.describe(catalogue, requests)
    outcome_RC = draws.draw_outcomes(rng.random(shown.topic_RC.shape), shown)
    _, found_RC, _ = predict(shown, outcome_RC)

    states = list(itertools.product(range(draws.NUM_TOPICS), repeat=2))
    prior = np.array([users.taste_UK[0, i] * users.dislike_prior_UK[0, d] for i, d in states])
    repin_RXC, likelihood_RX = [], []
    for intent, dislike in states:
        flags = shown.topic_RC == intent, shown.topic_RC == dislike
        chance_ARC = draws.chances(shown, *flags)
        repin_RXC.append(draws.repin_chance(shown, chance_ARC))
        logs = draws.log_likelihood(chance_ARC, outcome_RC)
        likelihood_RX.append(np.exp(logs.sum(axis=1)))
    likelihood_RX, repin_RXC = np.stack(likelihood_RX, axis=1), np.stack(repin_RXC, axis=1)

    posterior = prior
    for number in range(4):  # the first is predicted from the taste alone
        if number:
            move = np.ones((len(states), len(states)))
            for part, stay, of_state in (
                (users.taste_UK[0], requests.intent_stay_R[number], 0),
                (users.dislike_prior_UK[0], requests.dislike_stay_R[number], 1),
            ):
                for a, b in itertools.product(range(len(states)), repeat=2):
                    old, new = states[a][of_state], states[b][of_state]
                    move[a, b] *= stay * (old == new) + (1 - stay) * part[new]
            posterior = posterior @ move
        expected_C = posterior @ repin_RXC[number]
        np.testing.assert_allclose(found_RC[number], expected_C, rtol=1e-10)
        posterior = posterior * likelihood_RX[number]
        posterior /= posterior.sum()
    assert outcome_RC[:3].any()  # else there would be nothing to infer from
    assert np.abs(found_RC[3] - prior @ repin_RXC[3]).max() > 0.01
