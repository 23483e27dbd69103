"""Windows, and the shard of a user."""

import numpy as np

from pipelines.snapshot.plan import plan_of, shard_of
from support.tiny_log import TINY_AS_OF, january, tiny_config


def test_a_longer_label_window_moves_the_whole_holdout() -> None:
    plan = plan_of(tiny_config(label_window_hours=36, embargo_days=2), TINY_AS_OF)
    assert plan.holdout.end_ms == january("18 12:00")
    assert plan.holdout.start_ms == january("17 12:00")
    assert plan.training.end_ms == january("15 12:00")


def test_users_are_spread_by_a_hash_that_never_changes() -> None:
    ids = np.arange(100_000, dtype=np.int64)
    counts = np.bincount(shard_of(ids, 8), minlength=8)
    assert counts.min() > 12_000
    # Worked out once with Python's own integers: SplitMix64 of 0 is 0xE220A8397B1DCDAF.
    assert shard_of(np.array([0]), 1 << 16)[0] == 0xE220A8397B1DCDAF % (1 << 16)
    assert shard_of(np.array([-1]), 8)[0] in range(8)
