"""The policy's rules one by one; years of them are simulated in tests/benchmarks."""

import math

import pytest

from pipelines.contracts.judgement import Decision, Promoted
from support.comparisons import CONFIG
from validation.model_gate.policy import Change, Estimate, Evidence, Outcome, choose
from validation.model_gate.years import pool

SMALL = 0.001  # a standard error that hides nothing of 1 %
PROMOTE = Outcome(Decision.PROMOTE, Promoted.CHALLENGER)


def change(value: float, error: float = SMALL, pooled: float | None = None) -> Change:
    now = Estimate(value, error)
    return Change(now, now if pooled is None else Estimate(pooled, error / 2))


def outcome(
    theta: Change, delta: Change | None = None, phi: Change | None = None, **flags: bool
) -> Outcome:
    return choose(Evidence(theta, delta, phi, **flags), CONFIG)


def test_a_recipe_that_was_accepted_already_is_judged_by_the_champion_alone() -> None:
    assert outcome(change(0.0)) == PROMOTE
    assert outcome(change(-0.001)) == PROMOTE  # certain, and within the margin
    assert outcome(change(-0.02)) == Outcome(Decision.REJECT, Promoted.NONE)
    assert outcome(change(0.0, error=0.02)) == Outcome(Decision.INCONCLUSIVE, Promoted.NONE)


def test_freshness_does_not_hide_a_worse_recipe() -> None:
    """The challenger is better than the aged champion and worse than the fresh anchor."""
    found = outcome(change(0.02), change(-0.005), change(0.025), is_anchor_sound=True)
    assert found == Outcome(Decision.REJECT, Promoted.ANCHOR)


def test_a_worse_recipe_never_costs_freshness_unless_the_anchor_is_unsound() -> None:
    worse = (change(0.02), change(-0.02), change(0.04))
    assert outcome(*worse, is_anchor_sound=True).promoted is Promoted.ANCHOR
    assert outcome(*worse, is_anchor_sound=False).promoted is Promoted.NONE


def test_a_recipe_that_is_no_worse_is_promoted_itself() -> None:
    assert outcome(change(0.01), change(0.0), change(0.01), is_anchor_sound=True) == PROMOTE


@pytest.mark.parametrize(
    ("flags", "decision"),
    [({"is_broken": True}, Decision.REJECT), ({"is_held_back": True}, Decision.INCONCLUSIVE)],
)
def test_a_bound_that_breaks_or_may_break_gives_way_to_the_anchor(
    flags: dict[str, bool], decision: Decision
) -> None:
    evidence = (change(0.02), change(0.01), change(0.01))
    assert outcome(*evidence, **flags, is_anchor_sound=True) == Outcome(decision, Promoted.ANCHOR)
    assert outcome(*evidence, **flags) == Outcome(decision, Promoted.NONE)


def test_this_holdout_alone_may_deny_what_earlier_ones_showed() -> None:
    assert outcome(change(-0.02, pooled=0.0)).promoted is Promoted.NONE
    assert outcome(change(-0.011, pooled=0.0)) == PROMOTE  # not surely below the margin


def test_pooling_weighs_by_the_inverse_of_the_variance() -> None:
    found = pool([Estimate(0.01, 0.001), Estimate(0.03, 0.002)])
    assert found.value == pytest.approx((4 * 0.01 + 0.03) / 5)
    assert found.error == pytest.approx(math.sqrt(1 / (1e6 + 2.5e5)))
    assert pool([Estimate(0.02, 0.0), Estimate(0.5, 0.1)]) == Estimate(0.02, 0.0)
    with pytest.raises(ValueError, match="at least one"):
        pool([])
