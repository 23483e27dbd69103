"""The gate is broken in known ways, and its test of itself notices each."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipelines.contracts.config import Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Decision, Verdict
from pipelines.contracts.reasons import Reason
from support.holdouts import (
    AGAINST_CHAMPION,
    DIGEST,
    HEADS,
    judged,
    noisy_scores,
    planted_rows,
    scaled,
)
from support.judgements import ruled
from training.bundle.score_split import SplitScores
from validation.model_gate import bootstrap, comparison, self_test
from validation.model_gate.bootstrap import RatioEstimate, UserSums
from validation.model_gate.self_test import (
    SelfTestFailedError,
    check_intervals,
    run_self_test,
    shuffle_within_requests,
)

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


INTERVALS = ModelGateConfig(
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.8, maximum=1.25),),
    guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.5),),
    num_resamples=1000,
)
OURS, THEIRS = noisy_scores(TRUTH, 0.6, 1), noisy_scores(TRUTH, 0.7, 2)
Bootstrap = Callable[[UserSums, int, float, int], tuple[RatioEstimate, ...]]


def break_bootstrap(monkeypatch: pytest.MonkeyPatch, broken: Bootstrap) -> None:
    for module in (comparison, self_test):
        monkeypatch.setattr(module, "paired_bootstrap", broken)


def check(ours: SplitScores = OURS, theirs: SplitScores = THEIRS) -> tuple[Reason, ...]:
    return check_intervals(ROWS, ours, theirs, HEADS, INTERVALS)


def test_sound_statistics_pass() -> None:
    assert len(check()) == 3


@pytest.mark.parametrize("factor", [0, 0.1, 0.5, 2, 5, 20])
def test_scaled_intervals_are_noticed(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    def scaled(*arguments: object) -> tuple[RatioEstimate, ...]:
        found = bootstrap.paired_bootstrap(*arguments)  # type: ignore[arg-type]
        return tuple(replace(e, relative_change=scale(e)) for e in found)

    def scale(estimate: RatioEstimate) -> object:
        change = estimate.relative_change
        if change is None:
            return None
        ends = {
            end: change.value + factor * (getattr(change, end) - change.value)
            for end in ("low", "high")
        }
        return change.model_copy(update=ends)

    break_bootstrap(monkeypatch, scaled)
    with pytest.raises(SelfTestFailedError, match="its interval implies a standard error of"):
        check()


def test_lost_pairing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpaired(sums: UserSums, *rest: object) -> tuple[RatioEstimate, ...]:
        other = np.random.default_rng(1).permutation(len(sums.challenger))
        mixed = UserSums(sums.challenger[other], sums.baseline, sums.denominators)
        return bootstrap.paired_bootstrap(mixed, *rest)  # type: ignore[arg-type]

    break_bootstrap(monkeypatch, unpaired)
    with pytest.raises(SelfTestFailedError, match="the pairing of the two sides is lost"):
        check()


def test_swapped_sides_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(sums: UserSums, *rest: object) -> tuple[RatioEstimate, ...]:
        turned = UserSums(sums.baseline, sums.challenger, sums.denominators)
        return bootstrap.paired_bootstrap(turned, *rest)  # type: ignore[arg-type]

    break_bootstrap(monkeypatch, swapped)
    with pytest.raises(SelfTestFailedError, match="the sides are swapped or the estimate"):
        check()


def test_a_bias_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def biased(*arguments: object) -> tuple[RatioEstimate, ...]:
        found = bootstrap.paired_bootstrap(*arguments)  # type: ignore[arg-type]
        return tuple(replace(e, relative_change=shift(e)) for e in found)

    def shift(estimate: RatioEstimate) -> object:
        change = estimate.relative_change
        if change is None:
            return None
        moved = {name: getattr(change, name) + 0.2 for name in ("value", "low", "high")}
        return change.model_copy(update=moved)

    break_bootstrap(monkeypatch, biased)
    with pytest.raises(SelfTestFailedError, match="the estimate is biased"):
        check()


def test_intervals_that_miss_the_truth_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width is right and the place is not: only counting what is covered shows it."""

    def displaced(sums: UserSums, *rest: object) -> tuple[RatioEstimate, ...]:
        found = bootstrap.paired_bootstrap(sums, *rest)  # type: ignore[arg-type]
        if len(found) == 1:
            return found
        return tuple(replace(e, relative_change=displace(e)) for e in found)

    def displace(estimate: RatioEstimate) -> object:
        change = estimate.relative_change
        if change is None:
            return None
        width = change.high - change.low
        return change.model_copy(
            update={"low": change.low + width / 3, "high": change.high + width / 3}
        )

    break_bootstrap(monkeypatch, displaced)
    with pytest.raises(SelfTestFailedError, match="intervals cover zero, expected"):
        check()


def test_two_sides_that_hardly_differ_are_not_counted() -> None:
    assert "too few for the rest" in check(OURS, OURS)[-1].sentence


def test_a_failure_is_an_error_of_the_whole_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "_WIDEST", 1.0)
    with pytest.raises(SelfTestFailedError):
        run_self_test(ROWS, OURS, THEIRS, AGAINST_CHAMPION, HEADS, INTERVALS)
