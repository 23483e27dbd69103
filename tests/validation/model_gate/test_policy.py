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


ANCHOR, NOTHING = Promoted.ANCHOR, Promoted.NONE
SOUND = {"is_anchor_sound": True}
WORSE = (change(0.02), change(-0.02), change(0.04))
GOOD = (change(0.02), change(0.01), change(0.01))
CASES: list[tuple[tuple[Change, ...], dict[str, bool], Outcome]] = [
    # a recipe that was accepted already is judged by the champion alone
    ((change(0.0),), {}, PROMOTE),
    ((change(-0.001),), {}, PROMOTE),  # certain, and within the margin
    ((change(-0.02),), {}, Outcome(Decision.REJECT, NOTHING)),
    ((change(0.0, error=0.02),), {}, Outcome(Decision.INCONCLUSIVE, NOTHING)),
    # better than the aged champion and worse than the fresh anchor: freshness does not hide it
    ((change(0.02), change(-0.005), change(0.025)), SOUND, Outcome(Decision.REJECT, ANCHOR)),
    # a worse recipe never costs freshness, unless the anchor is unsound
    (WORSE, SOUND, Outcome(Decision.REJECT, ANCHOR)),
    (WORSE, {}, Outcome(Decision.REJECT, NOTHING)),
    ((change(0.01), change(0.0), change(0.01)), SOUND, PROMOTE),
    # a bound that breaks or may break gives way to the anchor
    (GOOD, {"is_broken": True, **SOUND}, Outcome(Decision.REJECT, ANCHOR)),
    (GOOD, {"is_broken": True}, Outcome(Decision.REJECT, NOTHING)),
    (GOOD, {"is_held_back": True, **SOUND}, Outcome(Decision.INCONCLUSIVE, ANCHOR)),
    (GOOD, {"is_held_back": True}, Outcome(Decision.INCONCLUSIVE, NOTHING)),
    # this holdout alone may deny what earlier ones showed
    ((change(-0.02, pooled=0.0),), {}, Outcome(Decision.REJECT, NOTHING)),
    ((change(-0.011, pooled=0.0),), {}, PROMOTE),  # not surely below the margin
]


@pytest.mark.parametrize(("changes", "flags", "expected"), CASES)
def test_what_follows_from_three_changes(
    changes: tuple[Change, ...], flags: dict[str, bool], expected: Outcome
) -> None:
    theta, delta, phi = (*changes, None, None)[:3]
    assert theta is not None
    assert choose(Evidence(theta, delta, phi, **flags), CONFIG, CONFIG.margin) == expected


def test_pooling_weighs_by_the_inverse_of_the_variance() -> None:
    found = pool([Estimate(0.01, 0.001), Estimate(0.03, 0.002)])
    assert found.value == pytest.approx((4 * 0.01 + 0.03) / 5)
    assert found.error == pytest.approx(math.sqrt(1 / (1e6 + 2.5e5)))
    assert pool([Estimate(0.02, 0.0), Estimate(0.5, 0.1)]) == Estimate(0.02, 0.0)
