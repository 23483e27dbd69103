"""The gate is broken in known ways, and its test of itself notices each."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pipelines.contracts.config import Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.errors import HomefeedError
from pipelines.contracts.judgement import Decision, SelfTest
from pipelines.contracts.reasons import Reason
from support.holdouts import AGAINST_CHAMPION, DIGEST, HEADS, judged, noisy_scores, planted_rows
from support.judgements import ruled
from training.bundle.score_split import SplitScores
from validation.model_gate import comparison, intervals, self_test
from validation.model_gate.comparison import Holdout
from validation.model_gate.intervals import Cells, Measured
from validation.model_gate.self_test import check_intervals

CONFIG = ModelGateConfig(
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.8, maximum=1.25),),
    guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.5),),
)
ROWS, TRUTH = planted_rows(num_users=600)
GOOD, FAIR = noisy_scores(TRUTH, 0.3, 1), noisy_scores(TRUTH, 0.9, 2)


def test_the_self_test_is_recorded() -> None:
    judgement = judged(ROWS, GOOD, FAIR, AGAINST_CHAMPION, CONFIG)
    found = judgement.self_test
    assert judgement.verdict.decision is Decision.PROMOTE and found.doubts == ()
    expected = (
        "against itself: no difference",
        "A bias of 1% in the challenger moved the change by exactly that",
        "times as wide as comparisons without a difference spread",
        "200 comparisons without a difference",
        "The probabilities of 'repin' times 2: REJECT.",
        "20% of the labels known: INCONCLUSIVE.",
        "Segment core ranked by chance: REJECT.",
        "Segment non_core ranked by chance: REJECT.",
        "Candidates that will get a 'hide' first: REJECT.",
        "worst possible ranking: REJECT (-100.0% to -100.0%)",
        "Labels shuffled within requests: no lead is left",
        "The challenger's scores, shuffled within requests: REJECT",
    )
    for finding, words in zip(found.findings, expected, strict=True):
        assert words in finding.sentence


def test_a_challenger_that_is_chance_is_never_promoted() -> None:
    noise = np.random.default_rng(4).random(len(ROWS.request_index))
    worse = replace(GOOD, ranking_score=-GOOD.ranking_score)  # so that chance looks like progress
    found = judged(ROWS, replace(GOOD, ranking_score=noise), worse, AGAINST_CHAMPION, CONFIG)
    target = found.comparison.target
    assert target is not None and target.relative_change is not None
    assert target.relative_change.low > 0
    assert found.verdict.decision is Decision.INCONCLUSIVE
    assert "cannot be told from chance" in found.verdict.reasons[0]


def blind_to_segments(*arguments):  # noqa: ANN002, ANN201
    """As a gate whose rule on segments is gone: the loss over all users still rejects."""
    found = GENUINE_RULES(*arguments)
    is_of_segment = any("In segment" in reason for reason in found.reasons)
    return ruled(Decision.REJECT, "repin_volume_at_3 is low.") if is_of_segment else found


def trusting(comparison, *rest):  # noqa: ANN001, ANN002, ANN201
    """As a gate to which no gain is too large."""
    return GENUINE_RULES(comparison.model_copy(update={"plausible_lift": None}), *rest)


def skewed(holdout, challenger, *rest):  # noqa: ANN001, ANN002, ANN201
    nudged = replace(challenger, ranking_score=challenger.ranking_score[::-1].copy())
    return GENUINE_COMPARISON(holdout, nudged, *rest)


def leaking(rows, values, seed):  # noqa: ANN001, ANN201
    """As a measure that goes on seeing the labels."""
    return values if values.dtype == np.int8 else GENUINE_SHUFFLE(rows, values, seed)


GENUINE_RULES, GENUINE_COMPARISON = self_test.decide, self_test.compare
GENUINE_SHUFFLE = self_test.shuffle_within_requests


@pytest.mark.parametrize(
    ("name", "broken", "said"),
    [
        ("decide", lambda *_: ruled(Decision.INCONCLUSIVE, "Who knows."),
         "worst possible ranking got INCONCLUSIVE"),
        ("decide", lambda *_: ruled(Decision.PROMOTE, "Fine."),
         "because of floor_broken or head_out_of_calibration"),
        ("decide", blind_to_segments, "expected REJECT because of segment_broken"),
        ("decide", trusting, "20% of the labels known: PROMOTE, expected that a person"),
        ("compare", skewed, "challenger against itself differs in"),
        ("shuffle_within_requests", leaking, "labels shuffled within requests the challenger is"),
    ],
)  # fmt: skip
def test_broken_rules_and_a_broken_comparison_are_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable, said: str
) -> None:
    monkeypatch.setattr(self_test, name, broken)
    with pytest.raises(HomefeedError, match=said):
        judged(ROWS, GOOD, FAIR, AGAINST_CHAMPION, CONFIG)


def test_requests_without_a_choice_and_nan_scores_cannot_test_the_gate() -> None:
    # With three candidates everything is in the top 3, whatever the ranking.
    rows, truth = planted_rows(num_users=100, candidates=3)
    sides = noisy_scores(truth, 0.3, 1), noisy_scores(truth, 1, 2)
    with pytest.raises(HomefeedError, match="too few candidates"):
        judged(rows, *sides, AGAINST_CHAMPION, CONFIG)
    broken = SplitScores(GOOD.ranking_score * np.nan, GOOD.probabilities, DIGEST)
    found = judged(ROWS, broken, FAIR, AGAINST_CHAMPION, CONFIG)
    assert found.verdict.decision is Decision.REJECT
    assert "was not computed" in found.verdict.reasons[0]
    assert found.self_test == SelfTest(doubts=(Reason.of("test_not_finite"),))


OURS, THEIRS = noisy_scores(TRUTH, 0.6, 1), noisy_scores(TRUTH, 0.7, 2)


def check(ours: SplitScores = OURS, theirs: SplitScores = THEIRS) -> tuple[Reason, ...]:
    return check_intervals(Holdout(ROWS, HEADS, CONFIG), ours, theirs)


def changed(change: Callable[[Measured], dict[str, Any]]) -> Callable:
    """Return an estimate of changes that is other than it should be."""

    def broken(*arguments):  # noqa: ANN002, ANN202
        found = intervals.change_estimate(*arguments)
        return found and replace(found, **change(found))

    return broken


def scaled_by(factor: float) -> Callable:
    return changed(lambda of: {"users": of.users.scaled(factor), "days": of.days.scaled(factor)})


def unpaired(ours: np.ndarray, theirs: np.ndarray, cells: Cells) -> Measured | None:
    other = np.random.default_rng(1).permutation(len(ours))
    return intervals.change_estimate(ours[other], theirs, cells)


def swapped(ours: np.ndarray, theirs: np.ndarray, cells: Cells) -> Measured | None:
    return intervals.change_estimate(theirs, ours, cells)


WIDE = "times as wide as 200 comparisons without a difference spread"
BOTH, DRAWN = (comparison, self_test), (self_test,)
BROKEN = {
    **{f"scaled_{factor}": (BOTH, scaled_by(factor), "its interval implies a standard error of")
       for factor in (0, 0.5)},
    "narrow_draws": (DRAWN, scaled_by(0.5), "intervals cover zero, expected"),
    "scaled_3": (BOTH, scaled_by(3), WIDE),
    "unpaired": (BOTH, unpaired, WIDE),
    "swapped": (BOTH, swapped, "the sides are swapped or the estimate"),
    "biased": (BOTH, changed(lambda of: {"value": of.value + 0.2}), "the estimate is biased"),
    # The width is right and the place is not: only counting what is covered shows it.
    "displaced": (DRAWN, changed(lambda of: {"value": of.value + 1.5 * of.error}),
                  "intervals cover zero, expected"),
}  # fmt: skip


@pytest.mark.parametrize(("modules", "broken", "said"), BROKEN.values(), ids=BROKEN)
def test_broken_statistics_are_noticed(
    monkeypatch: pytest.MonkeyPatch, modules: tuple[ModuleType, ...], broken: Callable, said: str
) -> None:
    for module in modules:
        monkeypatch.setattr(module, "change_estimate", broken)
    with pytest.raises(HomefeedError, match=said):
        check()


def test_sound_statistics_pass_and_two_sides_that_hardly_differ_are_not_counted() -> None:
    assert len(check()) == 3
    assert "too few for the rest" in check(OURS, OURS)[-1].sentence
