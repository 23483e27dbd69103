from dataclasses import replace

import numpy as np
import pytest

from pipelines.contracts.config import Limit, ModelGateConfig
from support.holdouts import HEADS, noisy_scores, planted_rows
from training.data.example_rows import ExampleRows
from validation.model_gate.off_policy.estimate import NO_CHANCES, estimate

CONFIG = ModelGateConfig(
    floors=(Limit(metric="calibration_ratio.repin", minimum=0.5, maximum=2.0),), num_resamples=400
)
ROWS, TRUTH = planted_rows(num_users=800)
GOOD, POOR = noisy_scores(TRUTH, 0.2, 1), noisy_scores(TRUTH, 3.0, 2)


def exploring(share: float, chance: float = 0.02) -> ExampleRows:
    rng = np.random.default_rng(3)
    explores = rng.random(len(ROWS.user_id)) < share
    chances = np.where(explores[ROWS.request_index], chance, 0).astype(np.float32)
    return replace(ROWS, is_exploration=explores, propensity=chances)


def test_a_better_ranking_is_better_by_every_estimator() -> None:
    found = estimate(exploring(0.5), GOOD, POOR, HEADS, CONFIG)
    assert [row.estimator for row in found] == [
        "replay, first place",
        "slate SNIPS, top 3",
        "doubly robust, top 3",
    ]
    for row in found:
        assert row.challenger is not None and row.baseline is not None
        assert row.challenger > row.baseline
        assert row.relative_change is not None
        assert row.relative_change.low < row.relative_change.value < row.relative_change.high
        assert row.note == ""
    first, snips, robust = found
    assert snips.relative_change.low > 0 and robust.relative_change.low > 0
    assert first.effective_size < first.num_requests / 6  # the log seldom agrees
    assert snips.effective_size == pytest.approx(3 * snips.num_requests)


def test_without_exploration_there_is_nothing_to_say() -> None:
    assert estimate(exploring(0.0), GOOD, POOR, HEADS, CONFIG) == ()


def test_without_logged_chances_only_replay_speaks() -> None:
    first, snips, robust = estimate(exploring(0.5, chance=0.0), GOOD, POOR, HEADS, CONFIG)
    assert first.challenger is not None
    for row in (snips, robust):
        assert (row.challenger, row.baseline, row.relative_change) == (None, None, None)
        assert row.note == NO_CHANCES


def test_few_requests_give_no_interval_rather_than_a_wrong_one() -> None:
    few = exploring(0.002)
    first = estimate(few, GOOD, POOR, HEADS, CONFIG)[0]
    assert first.num_requests < 20
    assert first.relative_change is None
