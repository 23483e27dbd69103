import math
from typing import Any

import numpy as np
import pytest

from validation.model_gate.bootstrap import (
    MAX_GROUPS,
    UserSums,
    paired_bootstrap,
    smallest_detectable_change,
    user_groups,
)


def sums(challenger: Any, baseline: Any, denominators: Any) -> UserSums:
    columns = (np.array(c, dtype=float)[:, None] for c in (challenger, baseline, denominators))
    return UserSums(*columns)


def test_every_resample_is_one_of_the_possible_draws() -> None:
    # Two users: a draw holds the first twice, both, or the second twice.
    (found,) = paired_bootstrap(sums([2, 1], [1, 1], [1, 1]), 4000, 0.95, seed=2)

    assert found.relative_change is not None
    assert (found.relative_change.low, found.relative_change.high) == (0.0, 1.0)
    # Change 1, 0.5, 0 with chances 1/4, 1/2, 1/4: variance 1/8.
    assert found.relative_standard_error == pytest.approx(math.sqrt(1 / 8), rel=0.05)


def test_the_seed_decides_the_draws_and_chunks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    some = UserSums(*rng.random((3, 100, 2)))
    whole = paired_bootstrap(some, 250, 0.9, seed=6)
    assert whole == paired_bootstrap(some, 250, 0.9, seed=6)
    assert whole != paired_bootstrap(some, 250, 0.9, seed=7)

    monkeypatch.setattr("validation.model_gate.bootstrap._MAX_WEIGHTS_PER_CHUNK", 1000)
    chunked = paired_bootstrap(some, 250, 0.9, seed=6)
    for one, other in zip(whole, chunked, strict=True):
        assert one.relative_change is not None and other.relative_change is not None
        assert one.relative_change.low == pytest.approx(other.relative_change.low, abs=1e-12)


@pytest.mark.parametrize(
    ("challenger", "baseline", "missing"),
    [
        ([1, 1, 1], [0, 0, 0], {"relative_change"}),  # a resample divides by zero
        ([1, 1, 1], [0, 0, 1], {"relative_change"}),
        ([1, math.nan, 1], [1, 1, 1], {"challenger", "relative_change", "difference"}),
    ],
)
def test_no_interval_from_nan_or_where_a_resample_divides_by_zero(
    challenger: list[float], baseline: list[float], missing: set[str]
) -> None:
    (found,) = paired_bootstrap(sums(challenger, baseline, [1, 1, 1]), 500, 0.95, seed=8)
    names = ("challenger", "baseline", "relative_change", "difference")
    assert {name for name in names if getattr(found, name) is None} == missing
    assert found.relative_standard_error is None


def test_smallest_detectable_change_is_bloom_s_multiple() -> None:
    # z(0.975) + z(0.8) = 1.95996 + 0.84162
    assert smallest_detectable_change(0.01, 0.95) == pytest.approx(0.0280158, abs=1e-6)
    assert smallest_detectable_change(0.01, 0.9) == pytest.approx(0.0248647, abs=1e-6)
    assert smallest_detectable_change(0.0, 0.95) == 0.0


def test_the_interval_covers_the_truth_as_often_as_it_says_and_sees_what_it_claims_to_see() -> None:
    rng = np.random.default_rng(10)
    truth, trials, users, noise = 0.05, 250, 150, 0.3
    effect = smallest_detectable_change(noise * math.sqrt(2 / users), 0.95)
    covered = detected = 0
    for trial in range(trials):
        activity = rng.lognormal(0, 0.7, users)  # heavy users exist, and hurt both sides alike
        common = activity * rng.gamma(4, 0.25, users)
        ours, theirs = (common * rng.gamma(20, 1 / 20, users) for _ in range(2))
        (found,) = paired_bootstrap(sums(ours * (1 + truth), theirs, activity), 400, 0.9, trial)
        assert found.relative_change is not None
        covered += found.relative_change.low <= truth <= found.relative_change.high
        ours, theirs = (level + noise * rng.normal(size=users) for level in (1 + effect, 1))
        (found,) = paired_bootstrap(sums(ours, theirs, np.ones(users)), 300, 0.95, trial)
        detected += found.relative_change is not None and found.relative_change.low > 0
    # Binomial(250, 0.9): standard deviation 1.9 %; three of them, and a small-sample bias.
    assert 0.82 <= covered / trials <= 0.96
    assert 0.70 <= detected / trials <= 0.90


def test_users_keep_their_group_from_cycle_to_cycle_and_few_users_are_groups_of_one() -> None:
    few_groups, few = user_groups(np.array([7, 3, 7, 5]))
    assert (len(few_groups), few[0]) == (3, few[2])

    everybody = np.arange(200_000)
    groups, group = user_groups(everybody)
    assert len(groups) == MAX_GROUPS
    again = user_groups(everybody[::-1])[1][::-1]
    assert (again == group).all()  # whoever else is there, where no group is empty
    assert np.bincount(group).max() < 40  # 12 on average
