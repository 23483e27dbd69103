"""What is drawn: topics and pins, when requests happen and what they show."""

import numpy as np
import pytest

from pipelines.contracts.schemas import EMBEDDING_DIM
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.sources.world import draws
from pipelines.sources.world.parameters import WorldParameters
from support.small_world import one


def test_exploration_is_uniform_and_says_so(sql) -> None:
    share, wrong, least, most = one(
        sql,
        "SELECT avg(is_exploration::INT), sum((is_exploration = (propensity IS NULL))::INT), "
        "min(propensity), max(propensity) FROM impressions",
    )
    assert 0.04 < share < 0.06
    assert wrong == 0
    assert least == most == pytest.approx(12 / 300)
    shown = np.zeros(300)
    for pin_id, count in sql.execute(
        "SELECT pin_id, count(*) FROM impressions WHERE is_exploration GROUP BY 1"
    ).fetchall():
        shown[pin_id] = count
    # chi-square with 299 degrees of freedom: mean 299, deviation 24.5 (less: without repeats)
    chi_square = ((shown - shown.mean()) ** 2 / shown.mean()).sum()
    assert chi_square < 299 + 5 * 24.5


def test_the_intent_stays_within_sessions_and_drifts_between_them() -> None:
    world = WorldParameters(num_users=300)
    rng = np.random.default_rng(5)
    catalogue = draws.draw_catalogue(rng, world)
    users = draws.draw_users(rng, world, range(300))
    requests = draws.draw_requests(rng, world, catalogue, users)
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


def test_appeal_halves_with_every_half_life() -> None:
    world = WorldParameters(num_pins=600, pin_lifetime_days=2.0)
    catalogue = draws.draw_catalogue(np.random.default_rng(1), world)
    times = catalogue.born_ms_P[5] + np.array([0, 2, 4]) * DAY_MS
    found = draws.appeal_at(world, catalogue, np.full((3, 1), 5), times)[:, 0]
    whole = 3.0 + catalogue.appeal_P[5]
    np.testing.assert_allclose(found, whole * np.array([1.0, 0.5, 0.25]))
