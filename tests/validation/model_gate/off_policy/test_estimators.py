"""The estimators against `obp`, and against worlds whose answer is known."""

import numpy as np
import pytest
from obp.ope import (
    DoublyRobust,
    ReplayMethod,
    SelfNormalizedInverseProbabilityWeighting,
)

from validation.model_gate.off_policy import (
    Choice,
    Logged,
    Parts,
    doubly_robust,
    replay,
    slate_snips,
    slate_weights,
)

REQUESTS, CANDIDATES, TOP = 300, 8, 3
SHAPE = (REQUESTS, CANDIDATES)


def draw(seed: int) -> tuple[Logged, Choice, np.ndarray]:
    """Return random logs, a ranking that knows a little of the rewards, and predictions."""
    rng = np.random.default_rng(seed)
    request = np.repeat(np.arange(REQUESTS), CANDIDATES)
    quality = rng.normal(size=REQUESTS * CANDIDATES)
    reward = (rng.random(len(request)) < 1 / (1 + np.exp(1 - quality))).astype(float)
    score = (quality + rng.normal(size=len(request))).reshape(SHAPE)
    rank = np.argsort(np.argsort(-score, axis=1), axis=1).ravel()
    shown = np.argsort(rng.random(SHAPE), axis=1).ravel()
    logged = Logged(request, REQUESTS, shown == 0, reward)
    return logged, Choice(rank == 0, rank < TOP), rng.uniform(0, 1, len(request))


def first_places(logged: Logged, choice: Choice) -> dict[str, np.ndarray]:
    """The log as `obp` takes it: one action per request, which is what was shown first."""
    shown = logged.is_first.reshape(SHAPE).argmax(axis=1)
    best = choice.is_best.reshape(SHAPE).argmax(axis=1)
    return {
        "reward": logged.reward.reshape(SHAPE)[np.arange(REQUESTS), shown],
        "action": shown,
        "action_dist": np.eye(CANDIDATES)[best][:, :, None],
    }


@pytest.mark.parametrize("seed", range(3))
def test_replay_is_obps(seed: int) -> None:
    logged, choice, _ = draw(seed)
    expected = ReplayMethod().estimate_policy_value(**first_places(logged, choice))
    found = replay(logged, choice)
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.effective_size == (logged.is_first & choice.is_best).sum()


@pytest.mark.parametrize("seed", range(3))
def test_doubly_robust_is_obps(seed: int) -> None:
    logged, choice, predicted = draw(seed)
    expected = DoublyRobust().estimate_policy_value(
        **first_places(logged, choice),
        pscore=np.full(REQUESTS, 1 / CANDIDATES),
        estimated_rewards_by_reg_model=predicted.reshape(SHAPE)[:, :, None],
    )
    assert doubly_robust(logged, choice, predicted, 1e9).value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_slate_snips_is_obps(seed: int) -> None:
    logged, choice, _ = draw(seed)
    chance = np.random.default_rng(seed).uniform(0.02, 0.3, REQUESTS * CANDIDATES)
    slates = np.prod((chance / (1 - chance)).reshape(SHAPE), axis=1)
    volumes = (logged.reward * choice.is_top).reshape(SHAPE).sum(axis=1)
    expected = SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(
        reward=volumes,
        action=np.zeros(REQUESTS, dtype=int),
        pscore=slates,
        action_dist=np.ones((REQUESTS, 1, 1)),
    )
    found = slate_snips(logged, choice, slate_weights(logged, chance))
    assert found.value == pytest.approx(expected, abs=1e-9)


POOL, DRAWN = 40, 4
IS_FREQUENT = np.arange(POOL) < POOL // 2
CHANCE = np.where(IS_FREQUENT, 0.15, 0.05)
RATE = np.where(IS_FREQUENT, 0.1, 0.5)


def uneven_log(num_requests: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw slates of four pins with uneven chances; return pins, requests and rewards, flat."""
    rng = np.random.default_rng(seed)
    slates: list[np.ndarray] = []
    while len(slates) < num_requests:
        shown = rng.random((50_000, POOL)) < CHANCE
        slates += [np.flatnonzero(row) for row in shown[shown.sum(axis=1) == DRAWN]]
    pins = np.concatenate(slates[:num_requests])
    reward = (rng.random(len(pins)) < RATE[pins]).astype(float)
    return pins, np.repeat(np.arange(num_requests), DRAWN), reward


@pytest.mark.parametrize("prefers_frequent", [True, False])
def test_slate_weights_undo_what_the_log_preferred(prefers_frequent: bool) -> None:
    """The truth is what slates drawn evenly would bring; the plain mean is far from it."""
    num_requests = 20_000
    pins, request, reward = uneven_log(num_requests, 11)
    score = np.where(IS_FREQUENT[pins] == prefers_frequent, 1.0, 0.0) + 1e-3 * (pins / POOL)
    best = score.reshape(-1, DRAWN).argmax(axis=1)
    is_best = np.eye(DRAWN, dtype=bool)[best].ravel()
    logged = Logged(request, num_requests, np.zeros(len(pins), dtype=bool), reward)
    found = slate_snips(logged, Choice(is_best, is_best), slate_weights(logged, CHANCE[pins]))

    half = POOL // 2
    none = np.prod([(half - i) / (POOL - i) for i in range(DRAWN)])  # a slate without the preferred
    rates = (0.1, 0.5) if prefers_frequent else (0.5, 0.1)
    truth = (1 - none) * rates[0] + none * rates[1]
    assert found.value is not None
    error = np.sqrt(0.25 / found.effective_size)
    assert abs(found.value - truth) < 3 * error
    assert abs(reward[is_best].mean() - truth) > 1.5 * abs(found.value - truth)


def mean_of(estimates: list[Parts]) -> float:
    return float(np.mean([found.value for found in estimates]))


def test_doubly_robust_is_right_where_the_order_or_the_predictions_are() -> None:
    """The truth is the reward of the ranking's first candidate, of 8 in each request."""
    rng = np.random.default_rng(4)
    quality = rng.uniform(0.05, 0.6, SHAPE)
    best = (quality + rng.normal(0, 0.1, SHAPE)).argmax(axis=1)
    is_best = np.eye(CANDIDATES, dtype=bool)[best].ravel()
    truth = quality[np.arange(REQUESTS), best].mean()
    request = np.repeat(np.arange(REQUESTS), CANDIDATES)

    def logs(order: str, num: int = 300) -> list[Logged]:
        made = []
        for _ in range(num):
            reward = (rng.random(SHAPE) < quality).astype(float).ravel()
            chaos = rng.random(SHAPE) - (2 * quality if order == "by quality" else 0)
            is_first = np.argsort(np.argsort(chaos, axis=1), axis=1).ravel() == 0
            made.append(Logged(request, REQUESTS, is_first, reward))
        return made

    choice, wrong = Choice(is_best, is_best), np.full(quality.size, 0.9)
    random_order = [doubly_robust(log, choice, wrong, 1e9) for log in logs("random")]
    assert mean_of(random_order) == pytest.approx(truth, abs=0.02)
    right = [doubly_robust(log, choice, quality.ravel(), 1e9) for log in logs("by quality")]
    assert mean_of(right) == pytest.approx(truth, abs=0.02)
    neither = [doubly_robust(log, choice, wrong, 1e9) for log in logs("by quality")]
    assert abs(mean_of(neither) - truth) > 0.1
    # Cut weights leave a bias towards the predictions, and less variance.
    cut = [doubly_robust(log, choice, wrong, 2.0) for log in logs("random")]
    assert truth + 0.1 < mean_of(cut) < 0.9
    spread = [np.std([found.value for found in each]) for each in (cut, random_order)]
    assert spread[0] < spread[1]


def test_equal_chances_weigh_nothing_and_a_missing_one_leaves_its_request_out() -> None:
    logged = Logged(np.repeat([0, 1, 2], 2), 3, np.zeros(6, dtype=bool), np.zeros(6))
    assert slate_weights(logged, np.full(6, 0.1)).tolist() == [1, 1, 1]
    assert slate_weights(logged, np.array([0.1, 0.1, 0.1, 0, 0.1, 0.1])).tolist() == [1, 0, 1]
    weights = slate_weights(logged, np.array([0.1, 0.1, 0.1, 0.2, 1.0, 0.2]))
    assert weights[2] == 0
    assert weights[0] / weights[1] == pytest.approx((0.9 / 0.1) / (0.8 / 0.2))
    assert not slate_weights(logged, np.zeros(6)).any()
    tiny = slate_weights(logged, np.array([1e-300, 1e-300, 0.5, 0.5, 0.5, 0.5]))
    assert np.isfinite(tiny).all() and tiny[0] == 1


def test_with_equal_chances_snips_is_the_volume_in_the_top_whatever_the_length() -> None:
    request = np.array([0, 0, 0, 0, 1])
    reward = np.array([1.0, 1, 0, 1, 1])
    is_top = np.array([True, True, True, False, True])
    logged = Logged(request, 2, np.zeros(5, dtype=bool), reward)
    found = slate_snips(logged, Choice(is_top, is_top), np.ones(2))
    assert (found.value, found.effective_size) == (1.5, 2)


def test_a_log_that_never_agrees_has_no_replay() -> None:
    logged, choice, _ = draw(1)
    lost = Logged(logged.request, REQUESTS, np.zeros_like(logged.is_first), logged.reward)
    found = replay(lost, choice)
    assert (found.value, found.effective_size) == (None, 0)
