"""Estimates from exploration: the estimators against `obp`, and worlds whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from obp.ope import (
    DoublyRobust,
    ReplayMethod,
    SelfNormalizedInverseProbabilityWeighting,
)

from pipelines.contracts.config import Limit, ModelGateConfig
from support.holdouts import AGAINST_CHAMPION, DIGEST, HEADS, noisy_scores, planted_rows
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.comparison import compare
from validation.model_gate.off_policy import (
    Choice,
    Logged,
    Parts,
    doubly_robust,
    estimate,
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


CONFIG = ModelGateConfig(
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.5, maximum=2.0),), num_resamples=400
)
ROWS, TRUTH = planted_rows(num_users=800)
GOOD, POOR = noisy_scores(TRUTH, 0.2, 1), noisy_scores(TRUTH, 3.0, 2)


def exploring(share: float, chance: float = 0.02) -> ExampleRows:
    rng = np.random.default_rng(3)
    explores = rng.random(len(ROWS.user_id)) < share
    chances = np.where(explores[ROWS.request_index], chance, 0).astype(np.float32)
    return replace(ROWS, is_exploration=explores, propensity=chances)


def test_a_better_ranking_is_better_by_every_estimator() -> None:
    rows = exploring(0.5)
    found = estimate(rows, GOOD, POOR, HEADS, CONFIG)
    assert [row.estimator for row in found] == [
        "replay, first place",
        "doubly robust, first place",
        "slate SNIPS, top 3",
    ]
    for row in found:
        assert row.challenger is not None and row.baseline is not None
        assert row.challenger > row.baseline
        assert row.relative_change is not None
        assert row.relative_change.low < row.relative_change.value < row.relative_change.high
        assert row.num_requests == rows.is_exploration.sum()
    first, robust, slate = found
    assert robust.relative_change.low > 0 and slate.relative_change.low > 0
    assert first.effective_size < first.num_requests / 6  # the log seldom agrees
    assert slate.effective_size == pytest.approx(slate.num_requests)


def test_with_equal_chances_the_slate_estimate_is_the_segment_s_volume_and_says_so() -> None:
    rows = exploring(0.5)
    slate = estimate(rows, GOOD, POOR, HEADS, CONFIG)[2]
    segment = compare(rows, GOOD, POOR, AGAINST_CHAMPION, HEADS, CONFIG).find(
        "repin_volume_at_3", "exploration"
    )
    assert segment is not None
    assert (slate.challenger, slate.baseline) == pytest.approx(
        (segment.challenger, segment.baseline)
    )
    assert "this is the exploration segment's volume" in slate.note


def test_without_exploration_there_is_nothing_to_say() -> None:
    rows = exploring(0.0)
    assert estimate(rows, GOOD, POOR, HEADS, CONFIG) == ()
    found = compare(rows, GOOD, POOR, AGAINST_CHAMPION, HEADS, CONFIG)
    assert "exploration" not in found.segment_users


def test_without_logged_chances_the_first_place_is_estimated_all_the_same() -> None:
    first, robust, slate = estimate(exploring(0.5, chance=0.0), GOOD, POOR, HEADS, CONFIG)
    assert first.challenger is not None and robust.challenger is not None
    assert (slate.challenger, slate.relative_change) == (None, None)
    assert slate.note == "No request has a propensity for all candidates."


def test_one_lost_chance_costs_its_request_only() -> None:
    rows = exploring(0.5)
    chances = rows.propensity.copy()
    chances[np.flatnonzero(chances)[0]] = 0
    slate = estimate(replace(rows, propensity=chances), GOOD, POOR, HEADS, CONFIG)[2]
    assert slate.note.endswith("1 requests lack a propensity.")
    assert slate.effective_size == pytest.approx(slate.num_requests - 1)


@pytest.mark.parametrize("shift", [0, 1])
def test_a_first_place_that_was_not_logged_agrees_with_nobody(shift: int) -> None:
    """All positions 0, or the row of place 0 lost in half of the requests."""
    rows = exploring(0.5)
    position = np.zeros_like(rows.position)
    if shift:
        position = rows.position + (rows.request_index % 2)
    first = estimate(replace(rows, position=position), GOOD, POOR, HEADS, CONFIG)[0]
    whole = estimate(rows, GOOD, POOR, HEADS, CONFIG)[0]
    expected = whole.effective_size / 2 if shift else 0
    assert first.effective_size == pytest.approx(expected, rel=0.3)


def test_few_requests_give_no_interval_rather_than_a_wrong_one() -> None:
    first = estimate(exploring(0.002), GOOD, POOR, HEADS, CONFIG)[0]
    assert first.num_requests < 20
    assert first.relative_change is None


def test_sides_that_lack_a_head_or_an_order_stop_nothing() -> None:
    rows = exploring(0.5)
    popularity = SplitScores(POOR.ranking_score, {}, DIGEST)
    _, robust, _ = estimate(rows, GOOD, popularity, HEADS, CONFIG)
    assert robust.note == "Predictions are one side's own."
    _, robust, _ = estimate(rows, popularity, popularity, HEADS, CONFIG)
    assert (robust.challenger, robust.note) == (None, "No side gives probabilities of 'repin'.")
    broken = replace(POOR, ranking_score=POOR.ranking_score * np.nan)
    for found in estimate(rows, GOOD, broken, HEADS, CONFIG):
        assert (found.challenger, found.note) == (None, "A side's scores hold NaN or infinity.")
    silent = replace(POOR, probabilities={"repin": POOR.probabilities["repin"] * np.nan})
    assert estimate(rows, GOOD, silent, HEADS, CONFIG)[1].challenger is not None
