"""What a margin needs, held against simulated comparisons of equal models."""

import numpy as np
import pytest

from pipelines.contracts.judgement import Decision
from pipelines.contracts.reasons import HeadFacts
from support.comparisons import CONFIG, change, comparison
from support.holdouts import HEADS
from support.populations import Population
from validation.model_gate.examine import examine
from validation.model_gate.sizing import needed_by_log, needed_for, users_needed
from validation.model_gate.verdict import decide


def promoted(num_users: int, margin: float = 0.01) -> float:
    rng, world = np.random.default_rng(7), Population(num_users, num_days=28, shared=0.97)
    found = [world.compare(rng) for _ in range(400)]
    return float(np.mean([each.value - 1.645 * each.error > -margin for each in found]))


def test_the_users_that_are_said_to_be_needed_promote_four_in_five_equal_models() -> None:
    rng, world = np.random.default_rng(8), Population(500, num_days=28, shared=0.97)
    variance = np.mean([world.compare(rng).error ** 2 for _ in range(50)])
    needed = needed_for(variance, 0.0, 500, 28, 0.01)
    assert promoted(500) == pytest.approx(needed.power, abs=0.08) and needed.power < 0.7
    assert promoted(needed.users) == pytest.approx(0.8, abs=0.08)


def test_days_that_vary_are_outlived_and_not_outnumbered() -> None:
    one = needed_for(1e-6, 9e-6, 1_000, 7, 0.01)
    assert one.users == pytest.approx(1_000 * 1e-6 / (1.617e-5 - 9e-6), rel=0.01)
    few = needed_for(1e-6, 1e-4, 1_000, 7, 0.01)
    assert (few.users, few.days) == (None, 44) and few.power < 0.3
    assert needed_for(0.0, 0.0, 10, 7, 0.01) is needed_by_log(10, 7, 0, 0.01) is None


def test_a_small_holdout_is_told_with_what_it_needs() -> None:
    small = comparison(change(0.0, -0.02, 0.02))
    [reason] = [r for r in examine(small, CONFIG, HEADS).held if r.code == "small_holdout"]
    assert "about 322 such users, a holdout of about 91" in reason.sentence
    large = examine(comparison(change(0.0, -0.001, 0.001)), CONFIG, HEADS)
    assert "small_holdout" not in [reason.code for reason in large.held]


def test_a_sample_that_does_not_see_a_bound_is_inconclusive_and_says_how_many_users_do() -> None:
    sizes = {"num_users": 1_000, "num_users_in_all": 90_000}
    few = comparison(change(0.03, 0.02, 0.04), change(0.0, -0.03, 0.03), **sizes)
    needed = users_needed(few, CONFIG, 0.9)
    # Of the hides: 2 % in 1.645 + 1.282 standard errors, and 1.53 % is what a thousand have.
    assert needed == pytest.approx(1_000 * (2.927 * 0.0153 / 0.02) ** 2, rel=0.01)
    whole = few.model_copy(update={"num_users_in_all": None})
    told, other = (decide(each, None, None, CONFIG, HEADS) for each in (few, whole))
    assert (told.decision, other.decision) == (Decision.INCONCLUSIVE, Decision.PROMOTE)
    assert f"the bounds take about {needed:,} of them" in told.reasons[0]
    rare = few.model_copy(update={"heads": (HeadFacts(head="hide", num_positives=2, spread=0.5),)})
    assert users_needed(rare, CONFIG, 0.5) == 25_000
    assert users_needed(comparison(drop=("hit_at_3.hide",), **sizes), CONFIG, 0.9) == 90_000
