"""The estimators against `obp`, against hand counts, and against a world whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from obp.ope import (
    DoublyRobust,
    ReplayMethod,
    SelfNormalizedInverseProbabilityWeighting,
)

from validation.model_gate.off_policy.estimators import (
    Choice,
    Logged,
    doubly_robust,
    effective_size,
    even_weights,
    replay,
    slate_snips,
)

REQUESTS, CANDIDATES, TOP = 300, 8, 3


def draw(rng: np.random.Generator, is_even: bool = False) -> tuple[Logged, Choice]:
    """Return random logs, and a ranking that knows a little of the rewards."""
    request = np.repeat(np.arange(REQUESTS), CANDIDATES)
    chance = rng.uniform(0.02, 0.3, REQUESTS * CANDIDATES)
    if is_even:
        chance = np.full(REQUESTS * CANDIDATES, 0.1)
    quality = rng.normal(size=REQUESTS * CANDIDATES)
    reward = (rng.random(len(request)) < 1 / (1 + np.exp(1 - quality))).astype(float)
    score = (quality + rng.normal(size=len(request))).reshape(REQUESTS, CANDIDATES)
    rank = np.argsort(np.argsort(-score, axis=1), axis=1).ravel()
    shown = np.argsort(rng.random((REQUESTS, CANDIDATES)), axis=1).ravel()
    weights = even_weights(request, REQUESTS, chance)
    logged = Logged(request, REQUESTS, shown == 0, reward, weights)
    return logged, Choice(rank == 0, rank < TOP, rng.uniform(0, 1, len(request)))


@pytest.fixture(params=range(3))
def drawn(request: pytest.FixtureRequest) -> tuple[Logged, Choice]:
    return draw(np.random.default_rng(request.param))


def one_hot(chosen: np.ndarray, num_actions: int) -> np.ndarray:
    return np.eye(num_actions)[chosen][:, :, None]


def test_replay_is_obps(drawn: tuple[Logged, Choice]) -> None:
    logged, choice = drawn
    shape = (REQUESTS, CANDIDATES)
    shown = logged.is_first.reshape(shape).argmax(axis=1)
    best = choice.is_best.reshape(shape).argmax(axis=1)
    expected = ReplayMethod().estimate_policy_value(
        reward=logged.reward.reshape(shape)[np.arange(REQUESTS), shown],
        action=shown,
        action_dist=one_hot(best, CANDIDATES),
    )
    assert replay(logged, choice).value == pytest.approx(expected, abs=1e-9)


def as_rounds(logged: Logged, choice: Choice) -> dict[str, np.ndarray]:
    """Every shown candidate is a round, in which the ranking shows it on top or does not."""
    on_top = choice.is_top.astype(float)
    return {
        "reward": logged.reward,
        "action": np.ones(len(logged.reward), dtype=int),
        "pscore": 1 / logged.weight,
        "action_dist": np.stack([1 - on_top, on_top], axis=1)[:, :, None],
    }


def test_slate_snips_is_obps(drawn: tuple[Logged, Choice]) -> None:
    logged, choice = drawn
    expected = SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(
        **as_rounds(logged, choice)
    )
    found = slate_snips(logged, choice, TOP)
    assert found is not None
    assert found.value == pytest.approx(TOP * expected, abs=1e-9)


@pytest.mark.parametrize("clip", [0.8, 1.5, 1e9])
def test_doubly_robust_is_obps(drawn: tuple[Logged, Choice], clip: float) -> None:
    logged, choice = drawn
    predicted = np.stack([np.zeros_like(choice.predicted), choice.predicted], axis=1)[:, :, None]
    # This version of `obp` does not clip, so it is told chances whose weights are clipped.
    clipped = replace(logged, weight=np.minimum(logged.weight, clip))
    expected = DoublyRobust().estimate_policy_value(
        **as_rounds(clipped, choice), estimated_rewards_by_reg_model=predicted
    )
    found = doubly_robust(logged, choice, clip)
    assert found is not None
    assert found.value == pytest.approx(CANDIDATES * expected, abs=1e-9)


def test_even_chances_weigh_nothing_and_a_missing_one_gives_no_weights() -> None:
    request = np.repeat([0, 1], 3)
    weights = even_weights(request, 2, np.array([0.1, 0.1, 0.1, 0.2, 0.2, 0.2]))
    assert weights is not None and weights == pytest.approx(np.ones(6))
    weights = even_weights(request, 2, np.array([0.1, 0.1, 0.1, 0.1, 0.2, 0.4]))
    assert weights is not None
    assert weights[3:] == pytest.approx(np.array([4, 2, 1]) * 3 / 7)
    assert even_weights(request, 2, np.array([0.1, 0.1, 0.1, 0.1, 0.0, 0.4])) is None


def test_with_even_chances_snips_is_the_volume_in_the_top() -> None:
    logged, choice = draw(np.random.default_rng(7), is_even=True)
    found = slate_snips(logged, choice, TOP)
    assert found is not None
    on_top = (logged.reward * choice.is_top).reshape(REQUESTS, CANDIDATES).sum(axis=1)
    assert found.value == pytest.approx(on_top.mean())


def test_weights_undo_what_the_log_preferred() -> None:
    """Pins that are shown more often are worse here; the truth is what even draws would bring."""
    rng = np.random.default_rng(11)
    pool, requests, top = 40, 20_000, 1
    chance = np.where(
        np.arange(pool) < 20, 0.30, 0.10
    )  # the first twenty are shown thrice as often
    reward_rate = np.where(np.arange(pool) < 20, 0.1, 0.5)
    picks = np.argsort(rng.random((requests, pool)) ** (1 / chance), axis=1)[:, -4:].ravel()
    request = np.repeat(np.arange(requests), 4)
    reward = (rng.random(len(picks)) < reward_rate[picks]).astype(float)
    # The ranking knows nothing: it takes any candidate.
    best = np.tile([True, False, False, False], requests)
    logged = Logged(request, requests, best, reward, even_weights(request, requests, chance[picks]))
    found = slate_snips(logged, Choice(best, best, None), top)
    assert found is not None and found.value is not None
    naive = reward[best].mean()
    assert abs(found.value - 0.3) < abs(naive - 0.3) / 2


def test_without_chances_or_predictions_nothing_is_made_up() -> None:
    logged, choice = draw(np.random.default_rng(1))
    blind = Logged(logged.request, REQUESTS, logged.is_first, logged.reward, None)
    assert slate_snips(blind, choice, TOP) is None
    assert doubly_robust(blind, choice, 10.0) is None
    unpredicted = Choice(choice.is_best, choice.is_top, None)
    assert doubly_robust(logged, unpredicted, 10.0) is None
    nothing = Logged(logged.request, REQUESTS, np.zeros_like(logged.is_first), logged.reward, None)
    assert replay(nothing, choice).value is None  # the log never agrees


def test_the_effective_size_is_the_number_of_even_weights() -> None:
    assert effective_size(np.full(50, 3.0)) == pytest.approx(50)
    assert effective_size(np.array([1.0, 0, 0, 0])) == 1
    assert effective_size(np.zeros(4)) == 0
