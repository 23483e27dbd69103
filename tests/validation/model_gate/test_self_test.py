from dataclasses import replace

import numpy as np
import pytest

from pipelines.contracts.config import Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Decision, Reason, Verdict
from support.holdouts import (
    AGAINST_CHAMPION,
    AGAINST_POPULARITY,
    DIGEST,
    judged,
    noisy_scores,
    planted_rows,
    popularity_scores,
    scaled,
)
from support.judgements import ruled
from training.bundle.score_split import SplitScores
from validation.model_gate import self_test
from validation.model_gate.self_test import shuffle_within_requests

CONFIG = ModelGateConfig(
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.8, maximum=1.25),),
    guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.5),),
    num_resamples=400,
)
ROWS, TRUTH = planted_rows(num_users=600)
GOOD, FAIR, POOR = (
    noisy_scores(TRUTH, noise, seed) for noise, seed in ((0.3, 1), (0.9, 2), (2, 3))
)


def verdict_on(challenger: SplitScores, champion: SplitScores) -> Verdict:
    return judged(ROWS, challenger, champion, AGAINST_CHAMPION, CONFIG).verdict


def test_a_better_challenger_is_promoted_and_a_worse_one_rejected() -> None:
    assert verdict_on(GOOD, FAIR).decision is Decision.PROMOTE
    rejected = verdict_on(FAIR, GOOD)
    assert rejected.decision is Decision.REJECT
    assert "wholly below -1.00 %" in rejected.reasons[0]


def test_a_fault_of_calibration_alone_is_rejected() -> None:
    rejected = verdict_on(scaled(GOOD, 0.5), FAIR)
    assert rejected.decision is Decision.REJECT
    assert "calibration_ratio.repin" in rejected.reasons[0]


def test_the_same_scores_on_both_sides_are_not_promoted() -> None:
    assert verdict_on(GOOD, GOOD).decision is Decision.INCONCLUSIVE


def test_the_first_cycle_is_judged_against_popularity() -> None:
    popularity = popularity_scores(ROWS)
    good = judged(ROWS, GOOD, popularity, AGAINST_POPULARITY, CONFIG)
    assert good.verdict.decision is Decision.PROMOTE
    assert good.comparison.baseline_model is None

    poor = judged(ROWS, scaled(POOR, 0.55), popularity, AGAINST_POPULARITY, CONFIG)
    assert poor.verdict.decision is Decision.REJECT


def test_the_self_test_is_recorded() -> None:
    found = judged(ROWS, GOOD, FAIR, AGAINST_CHAMPION, CONFIG).self_test

    assert found.doubts == ()
    expected = (
        "against itself: no difference",
        "A bias of 1% in the challenger moved the change by exactly that",
        "standard error is",
        "200 comparisons without a difference",
        "worst possible ranking: REJECT (-100.0% to -100.0%)",
        "The probabilities of 'repin' times 2: REJECT (calibration_ratio.repin",
        "Segment core 30% worse: REJECT (repin_volume_at_3 -3",
        "Segment non_core 30% worse: REJECT (repin_volume_at_3 -3",
        "Candidates that will get a 'hide' first: REJECT",
        "Scores rounded to tenths of their range: ",
        "Labels shuffled within requests: no lead is left",
        "The challenger's scores, shuffled within requests: REJECT",
    )
    for finding, words in zip(found.findings, expected, strict=True):
        assert words in finding.sentence


def test_a_challenger_that_is_chance_is_never_promoted() -> None:
    noise = np.random.default_rng(4).random(len(ROWS.request_index))
    chance = replace(GOOD, ranking_score=noise)
    worse = replace(GOOD, ranking_score=-GOOD.ranking_score)  # so that chance looks like progress
    found = judged(ROWS, chance, worse, AGAINST_CHAMPION, CONFIG)

    target = found.comparison.target
    assert target is not None and target.relative_change is not None
    assert target.relative_change.low > 0
    assert found.verdict.decision is Decision.INCONCLUSIVE
    assert "cannot be told from chance" in found.verdict.reasons[0]


def test_a_gate_that_calls_everything_fine_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lenient = ruled(Decision.PROMOTE, "Fine.")
    monkeypatch.setattr(self_test, "decide_on_comparison", lambda *_: lenient)

    with pytest.raises(HomefeedError, match="worst possible ranking got PROMOTE"):
        verdict_on(GOOD, FAIR)


def test_a_gate_that_rejects_for_another_reason_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one would whose rule on segments is gone: the loss over all users still rejects."""
    rejects = ruled(Decision.REJECT, "repin_volume_at_3 is low.")
    genuine = self_test.decide_on_comparison

    def blind(comparison, config, heads):  # noqa: ANN001, ANN202
        found = genuine(comparison, config, heads)
        is_of_segment = any("In segment" in reason for reason in found.reasons)
        return rejects if is_of_segment else found

    monkeypatch.setattr(self_test, "decide_on_comparison", blind)
    with pytest.raises(HomefeedError, match="Expected REJECT because of segment_broken"):
        judged(ROWS, GOOD, FAIR, AGAINST_CHAMPION, CONFIG)


def test_a_gate_that_sees_differences_where_none_are_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    genuine = self_test.compare

    def skewed(rows, challenger, *rest):  # type: ignore[no-untyped-def]
        nudged = replace(challenger, ranking_score=challenger.ranking_score[::-1].copy())
        return genuine(rows, nudged, *rest)

    monkeypatch.setattr(self_test, "compare", skewed)
    with pytest.raises(HomefeedError, match="challenger against itself differs in"):
        verdict_on(GOOD, FAIR)


def test_requests_without_a_choice_cannot_test_the_gate() -> None:
    # With three candidates everything is in the top 3, whatever the ranking.
    rows, truth = planted_rows(num_users=100, candidates=3)
    with pytest.raises(HomefeedError, match="too few candidates"):
        judged(
            rows, noisy_scores(truth, 0.3, 1), noisy_scores(truth, 1, 2), AGAINST_CHAMPION, CONFIG
        )


def test_nan_scores_are_rejected_without_a_self_test() -> None:
    broken = SplitScores(GOOD.ranking_score * np.nan, GOOD.probabilities, DIGEST)
    found = judged(ROWS, broken, FAIR, AGAINST_CHAMPION, CONFIG)

    assert found.verdict.decision is Decision.REJECT
    assert "was not computed" in found.verdict.reasons[0]
    assert found.self_test.findings == ()
    assert found.self_test.doubts == (Reason.of("test_not_finite"),)


def test_a_shuffle_keeps_each_request_s_scores_and_changes_their_order() -> None:
    shuffled = shuffle_within_requests(ROWS, GOOD.ranking_score, seed=5)

    by_request = GOOD.ranking_score.reshape(-1, 12)
    assert np.array_equal(np.sort(shuffled.reshape(-1, 12)), np.sort(by_request))
    assert not np.array_equal(shuffled, GOOD.ranking_score)
    assert np.array_equal(shuffled, shuffle_within_requests(ROWS, GOOD.ranking_score, seed=5))
    moved = (shuffled.reshape(-1, 12) != by_request).mean()
    assert moved == pytest.approx(11 / 12, abs=0.02)  # one in twelve stays by chance


def test_requests_with_one_candidate_each_tell_no_ranking_from_another() -> None:
    rows, truth = planted_rows(num_users=300, candidates=1)
    good, fair = noisy_scores(truth, 0.3, 1), noisy_scores(truth, 0.9, 2)
    with pytest.raises(HomefeedError, match="too few candidates to tell any ranking from another"):
        judged(rows, good, fair, AGAINST_CHAMPION, CONFIG)


def test_scores_that_are_all_tied_are_worth_a_random_order() -> None:
    tied = replace(GOOD, ranking_score=np.ones_like(GOOD.ranking_score))
    found = judged(ROWS, tied, GOOD, AGAINST_CHAMPION, CONFIG)
    assert found.verdict.decision is Decision.REJECT
    shuffled = replace(GOOD, ranking_score=np.random.default_rng(2).random(len(GOOD.ranking_score)))
    chance = judged(ROWS, shuffled, GOOD, AGAINST_CHAMPION, CONFIG).comparison.target
    assert found.comparison.target is not None and chance is not None
    assert found.comparison.target.challenger == pytest.approx(chance.challenger, rel=0.05)
