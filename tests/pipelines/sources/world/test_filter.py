"""The best predictions, against the outcomes and against the sum over all hidden paths."""

import itertools

import numpy as np
import pytest

from pipelines.sources.world import draws
from pipelines.sources.world.parameters import WorldParameters


def test_the_chances_are_those_of_the_outcomes(sql) -> None:
    """Expected repins and expected filtered repins both meet the count, in every tenth."""
    rows = sql.execute(
        "SELECT sum(is_repin::INT), sum(expected_repins), sum(filtered * seen), "
        "sum(expected_repins * (1 - expected_repins)), sum(filtered * seen * (1 - filtered * seen))"
        " FROM (SELECT *, expected_repins / oracle AS seen, ntile(10) OVER (ORDER BY filtered) AS n"
        " FROM truth) GROUP BY n"
    ).fetchall()
    assert len(rows) == 10
    for happened, expected, filtered, variance, filtered_variance in rows:
        assert abs(happened - expected) < 4.5 * variance**0.5
        # outcomes of a request share the hidden state, so the spread is wider than independent
        assert abs(happened - filtered) < 9 * filtered_variance**0.5


@pytest.mark.parametrize(
    "variant",
    [{}, {"like": "production"}, {"pin_lifetime_days": 40.0}],
    ids=["usual", "like production", "fading"],
)
def test_the_filter_equals_the_sum_over_all_hidden_paths(
    variant: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LATE_SHARE", 0.0), ("MIN_TASTES", 2), ("MAX_TASTES", 2)):
        monkeypatch.setattr(draws, name, value)
    world = WorldParameters.model_validate({"num_users": 1, "num_pins": 60} | variant)
    rng = np.random.default_rng(5)
    catalogue = draws.draw_catalogue(rng, world)
    users = draws.draw_users(rng, world, range(1))
    requests = draws.draw_requests(rng, world, catalogue, users)
    shown = draws.describe(world, catalogue, users, requests)
    truth = draws.true_chances(world, shown, requests)
    outcome_RC = draws.draw_outcomes(rng, shown, truth)
    found_RC = draws.predict(world, users, requests, shown, outcome_RC).filtered_RC

    states = list(itertools.product(range(draws.NUM_TOPICS), repeat=2))
    prior = np.array([users.taste_UK[0, i] * users.dislike_prior_UK[0, d] for i, d in states])
    repin_RXC, likelihood_RX = [], []
    for intent, dislike in states:
        flags = shown.topic_RC == intent, shown.topic_RC == dislike
        chance_ARC = draws.chances(world, shown, *flags)
        repin_RXC.append(draws.repin_chance(world, chance_ARC))
        logs = draws.log_likelihood(shown, chance_ARC, outcome_RC)
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
