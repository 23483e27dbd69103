"""Each ranking orders by the number that its name says, and a random order knows nothing."""

import numpy as np
import pytest

from validation.model_gate.baselines import RANDOM, RANKINGS

NUMBERS = {
    "pin_popularity_1d": np.array([0.0, 3.0, 1.0], np.float32),
    "pin_popularity_7d": np.array([1.0, 3.0, 2.0], np.float32),
    "pin_popularity_28d": np.array([4.0, 3.0, 2.0], np.float32),
    "pin_age": np.array([5.0, 0.0, 9.0], np.float32),
    "past_engagements": np.array([0.0, 0.0, 1.0], np.float32),
}


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("popularity, 1 day", 1),
        ("popularity, 7 days", 1),
        ("popularity, 28 days", 0),
        ("newest first", 1),
        ("past engagement", 2),
    ],
)
def test_a_ranking_puts_the_right_candidate_first(name: str, first: int) -> None:
    ranking = next(found for found in RANKINGS if found.name == name)
    score = ranking.score(NUMBERS, 3)
    assert score.dtype == np.float64
    assert int(np.argmax(score)) == first
    assert set(ranking.needs) <= set(NUMBERS)


def test_a_random_order_has_no_preference_and_needs_nothing() -> None:
    ranking = next(found for found in RANKINGS if found.name == RANDOM)
    assert ranking.needs == ()
    assert np.ptp(ranking.score({}, 4)) == 0


def test_past_engagement_comes_before_popularity_which_breaks_ties() -> None:
    ranking = next(found for found in RANKINGS if found.name == "past engagement")
    past = np.log1p([100.0, 101.0, 0.0, 0.0]).astype(np.float32)
    popularity = np.log1p([1e6, 0.0, 5.0, 6.0]).astype(np.float32)
    score = ranking.score({"past_engagements": past, "pin_popularity_28d": popularity}, 4)
    assert list(np.argsort(-score)) == [1, 0, 3, 2]
