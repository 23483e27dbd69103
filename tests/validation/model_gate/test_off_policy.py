"""Estimates from exploration: the estimators against `obp`, and worlds whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from obp.ope import DoublyRobust, InverseProbabilityWeighting
from obp.ope import SelfNormalizedInverseProbabilityWeighting as SelfNormalized

from pipelines.contracts.config import Limit, ModelGateConfig
from pipelines.contracts.judgement import OffPolicyEstimate
from support.holdouts import AGAINST_CHAMPION, DIGEST, HEADS, noisy_scores, planted_rows
from training.bundle.score_split import SplitScores
from training.data.reader import ExampleRows
from validation.model_gate.comparison import Holdout, compare
from validation.model_gate.off_policy import (
    Logged,
    doubly_robust,
    estimate,
    first_chances,
    slate_snips,
    slate_weights,
    weighted,
)

REQUESTS, CANDIDATES, TOP = 300, 34, 3
SHAPE = (REQUESTS, CANDIDATES)


def draw(seed: int, is_even: bool) -> tuple[Logged, np.ndarray, np.ndarray, np.ndarray]:
    """Return random logs, a ranking that knows a little of the rewards, and predictions."""
    rng = np.random.default_rng(seed)
    request = np.repeat(np.arange(REQUESTS), CANDIDATES)
    quality = rng.normal(size=REQUESTS * CANDIDATES)
    reward = (rng.random(len(request)) < 1 / (1 + np.exp(1 - quality))).astype(float)
    score = (quality + rng.normal(size=len(request))).reshape(SHAPE)
    rank = np.argsort(np.argsort(-score, axis=1), axis=1).ravel()
    shown = np.argsort(rng.random(SHAPE), axis=1).ravel()
    # One of a request's candidates is put first with the chances that a log has of that.
    chances = rng.dirichlet(np.ones(CANDIDATES), REQUESTS)
    first = (rng.random(REQUESTS)[:, None] < chances.cumsum(axis=1)).argmax(axis=1)
    shown = np.where(is_even, shown, np.arange(CANDIDATES * REQUESTS) % CANDIDATES
                     != np.repeat(first, CANDIDATES))  # fmt: skip
    chance = first_chances(request, np.zeros(len(request)) if is_even else chances.ravel())
    logged = Logged(request, REQUESTS, shown == 0, chance, reward)
    return logged, rank == 0, rank < TOP, rng.uniform(0, 1, len(request))


@pytest.mark.parametrize("is_even", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_estimators_are_obps(seed: int, is_even: bool) -> None:
    logged, is_best, is_top, predicted = draw(seed, is_even)
    # As `obp` takes the log: one action per request, which is what was shown first.
    shown, best = (of.reshape(SHAPE).argmax(axis=1) for of in (logged.is_first, is_best))
    first = {
        "reward": logged.reward.reshape(SHAPE)[np.arange(REQUESTS), shown],
        "action": shown,
        "action_dist": np.eye(CANDIDATES)[best][:, :, None],
        "pscore": logged.first_chance.reshape(SHAPE)[np.arange(REQUESTS), shown],
    }
    for obp, is_normalised in ((InverseProbabilityWeighting(), False), (SelfNormalized(), True)):
        found = weighted(logged, is_best, is_normalised)
        assert found.value == pytest.approx(obp.estimate_policy_value(**first), abs=1e-9)
    robust = DoublyRobust().estimate_policy_value(
        **first, estimated_rewards_by_reg_model=predicted.reshape(SHAPE)[:, :, None]
    )
    assert doubly_robust(logged, is_best, predicted).value == pytest.approx(robust, abs=1e-9)
    chance = np.random.default_rng(seed).uniform(0.02, 0.3, REQUESTS * CANDIDATES)
    slate = SelfNormalized().estimate_policy_value(
        reward=(logged.reward * is_top).reshape(SHAPE).sum(axis=1),
        action=np.zeros(REQUESTS, dtype=int),
        pscore=np.prod((chance / (1 - chance)).reshape(SHAPE), axis=1),
        action_dist=np.ones((REQUESTS, 1, 1)),
    )
    snips = slate_snips(logged, is_top, slate_weights(logged, chance))
    assert snips.value == pytest.approx(slate, abs=1e-9)


def test_a_log_that_never_agrees_has_no_value_and_few_actions_give_no_number() -> None:
    logged, is_best, _, _ = draw(1, is_even=True)
    nobody = replace(logged, is_first=np.zeros_like(logged.is_first))
    never = weighted(nobody, is_best, is_normalised=True)
    assert (never.value, never.effective_size, never.num_actions) == (None, 0, 0)
    rows = exploring(0.5)
    seldom = {name: of * (np.arange(len(of)) % 97 == 0) for name, of in rows.labels.items()}
    for found in estimated(replace(rows, labels=seldom)):
        if found.estimator.startswith("slate"):  # sees all places
            continue
        assert (found.challenger, found.baseline, found.relative_change) == (None, None, None)
        assert found.note.startswith("Too few: it has seen ") and "of 10 at least" in found.note


@pytest.mark.parametrize(
    ("chances", "weights"),
    [
        ([0.1] * 6, [1, 1, 1]),
        ([0.1, 0.1, 0.1, 0, 0.1, 0.1], [1, 0, 1]),  # a missing one leaves its request out
        ([0.1, 0.1, 0.1, 0.2, 1.0, 0.2], [1, (0.8 / 0.2) / (0.9 / 0.1), 0]),
        ([0] * 6, [0, 0, 0]),
        ([1e-300, 1e-300, 0.5, 0.5, 0.5, 0.5], [1, 0, 0]),  # no product overflows
    ],
)
def test_equal_chances_weigh_nothing(chances: list[float], weights: list[float]) -> None:
    logged = Logged(np.repeat([0, 1, 2], 2), 3, np.zeros(6, dtype=bool), np.ones(6), np.zeros(6))
    assert slate_weights(logged, np.array(chances)) == pytest.approx(weights)


CONFIG = ModelGateConfig(
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.5, maximum=2.0),)
)
ROWS, TRUTH = planted_rows(num_users=800)
GOOD, POOR = noisy_scores(TRUTH, 0.2, 1), noisy_scores(TRUTH, 3.0, 2)


def exploring(share: float, chance: float = 0.02) -> ExampleRows:
    rng = np.random.default_rng(3)
    explores = rng.random(len(ROWS.user_id)) < share
    chances = np.where(explores[ROWS.request_index], chance, 0).astype(np.float32)
    return replace(ROWS, is_exploration=explores, propensity=chances)


def estimated(
    rows: ExampleRows, ours: SplitScores = GOOD, theirs: SplitScores = POOR
) -> tuple[OffPolicyEstimate, ...]:
    return estimate(Holdout(rows, HEADS, CONFIG), ours, theirs)


def test_a_better_ranking_is_better_by_every_estimator() -> None:
    assert estimated(exploring(0.0)) == ()
    rows = exploring(0.5)
    first, normalised, robust, slate = found = estimated(rows)
    assert [row.estimator for row in found] == [
        "IPS, first place", "SNIPS, first place", "doubly robust, first place",
        "slate SNIPS, top 3"]  # fmt: skip
    for row in found:
        assert row.challenger is not None and row.baseline is not None
        assert row.challenger > row.baseline
        assert row.relative_change is not None
        assert row.relative_change.low < row.relative_change.value < row.relative_change.high
        assert row.num_requests == rows.is_exploration.sum()
    assert robust.relative_change.low > 0 and slate.relative_change.low > 0
    assert first.effective_size < first.num_requests / 6  # the log seldom agrees
    # With equal chances the slate estimate is the segment's volume.
    assert slate.effective_size == pytest.approx(slate.num_requests)
    whole = compare(Holdout(rows, HEADS, CONFIG), GOOD, POOR, AGAINST_CHAMPION).comparison
    segment = whole.find("repin_volume_at_3", "exploration")
    assert segment is not None
    levels = segment.challenger, segment.baseline
    assert (slate.challenger, slate.baseline) == pytest.approx(levels)


def test_chances_that_were_not_logged_cost_the_slate_estimate_alone() -> None:
    first, _, robust, slate = estimated(exploring(0.5, chance=0.0))
    assert first.challenger is not None and robust.challenger is not None
    assert (slate.challenger, slate.relative_change) == (None, None)
    assert slate.note == "No request has a propensity for all candidates."


@pytest.mark.parametrize("shift", [0, 1])
def test_a_first_place_that_was_not_logged_agrees_with_nobody(shift: int) -> None:
    """All positions 0, or the row of place 0 lost in half of the requests."""
    rows = exploring(0.5)
    position = shift * (rows.position + rows.request_index % 2)
    first, whole = (estimated(each)[0] for each in (replace(rows, position=position), rows))
    expected = whole.effective_size / 2 if shift else 0
    assert first.effective_size == pytest.approx(expected, rel=0.3)


def test_sides_that_lack_a_head_or_an_order_stop_nothing() -> None:
    few = estimated(exploring(0.002))[0]  # few requests give no interval rather than a wrong one
    assert few.num_requests < 20 and few.relative_change is None
    rows, popularity = exploring(0.5), SplitScores(POOR.ranking_score, {}, DIGEST)
    robust = estimated(rows, popularity, popularity)[2]
    assert (robust.challenger, robust.note) == (None, "No side gives probabilities of 'repin'.")
    broken = replace(POOR, ranking_score=POOR.ranking_score * np.nan)
    for found in estimated(rows, GOOD, broken):
        assert (found.challenger, found.note) == (None, "A side's scores hold NaN or infinity.")
    silent = replace(POOR, probabilities={"repin": POOR.probabilities["repin"] * np.nan})
    assert estimated(rows, GOOD, silent)[2].challenger is not None
