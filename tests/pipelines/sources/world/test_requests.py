"""When requests happen and what they show."""

import numpy as np
import pytest

from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.sources.world import people as world_people
from pipelines.sources.world import requests as world_requests
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
    catalogue = world_people.draw_catalogue(rng, world)
    users = world_people.draw_users(rng, world, range(300))
    requests = world_requests.draw_requests(rng, world, catalogue, users)
    is_same_user = np.diff(requests.user_R) == 0
    gap_ms = np.diff(requests.impressed_at_R)
    is_same = np.diff(requests.intent_R) == 0
    within = is_same[is_same_user & (gap_ms <= world.max_pause_ms)].mean()
    day_later = is_same[is_same_user & (gap_ms > 12 * HOUR_MS) & (gap_ms < DAY_MS)].mean()
    weeks_later = is_same[is_same_user & (gap_ms > 14 * DAY_MS)].mean()
    assert within > 0.95  # stays with chance 0.95, or is drawn again and may be the same
    assert within > day_later + 0.1 > weeks_later + 0.2
    assert (users.taste_UK[requests.user_R, requests.intent_R] > 0).all()
    assert (users.taste_UK[requests.user_R, requests.disliked_R] == 0).all()
