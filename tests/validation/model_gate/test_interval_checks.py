"""The gate's statistics are broken in known ways, and each way is noticed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipelines.contracts.config import Limit, ModelGateConfig, RelativeLimit
from pipelines.contracts.judgement import Reason
from support.holdouts import AGAINST_CHAMPION, HEADS, noisy_scores, planted_rows
from training.bundle.score_split import SplitScores
from validation.model_gate import bootstrap, comparison, self_test
from validation.model_gate.bootstrap import RatioEstimate, UserSums
from validation.model_gate.self_test import (
    SelfTestFailedError,
    check_intervals,
    run_self_test,
)

CONFIG = ModelGateConfig(
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.8, maximum=1.25),),
    guardrails=(RelativeLimit(metric="hit_at_3.hide", max_increase=0.5),),
    num_resamples=1000,
)
ROWS, TRUTH = planted_rows(num_users=600)
OURS, THEIRS = noisy_scores(TRUTH, 0.6, 1), noisy_scores(TRUTH, 0.7, 2)
Bootstrap = Callable[[UserSums, int, float, int], tuple[RatioEstimate, ...]]


def break_bootstrap(monkeypatch: pytest.MonkeyPatch, broken: Bootstrap) -> None:
    for module in (comparison, self_test):
        monkeypatch.setattr(module, "paired_bootstrap", broken)


def check(ours: SplitScores = OURS, theirs: SplitScores = THEIRS) -> tuple[Reason, ...]:
    return check_intervals(ROWS, ours, theirs, HEADS, CONFIG)


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
        run_self_test(ROWS, OURS, THEIRS, AGAINST_CHAMPION, HEADS, CONFIG)
