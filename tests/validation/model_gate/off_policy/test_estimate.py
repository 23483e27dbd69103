from dataclasses import replace

import numpy as np
import pytest

from pipelines.contracts.config import Limit, ModelGateConfig
from support.holdouts import AGAINST_CHAMPION, DIGEST, HEADS, noisy_scores, planted_rows
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.comparison import compare
from validation.model_gate.off_policy import estimate

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
    rows = exploring(0.5)
    found = estimate(rows, GOOD, POOR, HEADS, CONFIG)
    assert [row.estimator for row in found] == [
        "replay, first place",
        "doubly robust, first place",
        "slate SNIPS, top 3",
    ]
    for row in found:
        assert row.challenger is not None and row.baseline is not None
        assert row.challenger > row.baseline
        assert row.relative_change is not None
        assert row.relative_change.low < row.relative_change.value < row.relative_change.high
        assert row.num_requests == rows.is_exploration.sum()
    first, robust, slate = found
    assert robust.relative_change.low > 0 and slate.relative_change.low > 0
    assert first.effective_size < first.num_requests / 6  # the log seldom agrees
    assert slate.effective_size == pytest.approx(slate.num_requests)


def test_with_equal_chances_the_slate_estimate_is_the_segment_s_volume_and_says_so() -> None:
    rows = exploring(0.5)
    slate = estimate(rows, GOOD, POOR, HEADS, CONFIG)[2]
    segment = compare(rows, GOOD, POOR, AGAINST_CHAMPION, HEADS, CONFIG).find(
        "repin_volume_at_3", "exploration"
    )
    assert segment is not None
    assert (slate.challenger, slate.baseline) == pytest.approx(
        (segment.challenger, segment.baseline)
    )
    assert "this is the exploration segment's volume" in slate.note


def test_without_exploration_there_is_nothing_to_say() -> None:
    rows = exploring(0.0)
    assert estimate(rows, GOOD, POOR, HEADS, CONFIG) == ()
    found = compare(rows, GOOD, POOR, AGAINST_CHAMPION, HEADS, CONFIG)
    assert "exploration" not in found.segment_users


def test_without_logged_chances_the_first_place_is_estimated_all_the_same() -> None:
    first, robust, slate = estimate(exploring(0.5, chance=0.0), GOOD, POOR, HEADS, CONFIG)
    assert first.challenger is not None and robust.challenger is not None
    assert (slate.challenger, slate.relative_change) == (None, None)
    assert slate.note == "No request has a propensity for all candidates."


def test_one_lost_chance_costs_its_request_only() -> None:
    rows = exploring(0.5)
    chances = rows.propensity.copy()
    chances[np.flatnonzero(chances)[0]] = 0
    slate = estimate(replace(rows, propensity=chances), GOOD, POOR, HEADS, CONFIG)[2]
    assert slate.note.endswith("1 requests lack a propensity.")
    assert slate.effective_size == pytest.approx(slate.num_requests - 1)


@pytest.mark.parametrize("shift", [0, 1])
def test_a_first_place_that_was_not_logged_agrees_with_nobody(shift: int) -> None:
    """All positions 0, or the row of place 0 lost in half of the requests."""
    rows = exploring(0.5)
    position = np.zeros_like(rows.position)
    if shift:
        position = rows.position + (rows.request_index % 2)
    first = estimate(replace(rows, position=position), GOOD, POOR, HEADS, CONFIG)[0]
    whole = estimate(rows, GOOD, POOR, HEADS, CONFIG)[0]
    expected = whole.effective_size / 2 if shift else 0
    assert first.effective_size == pytest.approx(expected, rel=0.3)


def test_few_requests_give_no_interval_rather_than_a_wrong_one() -> None:
    first = estimate(exploring(0.002), GOOD, POOR, HEADS, CONFIG)[0]
    assert first.num_requests < 20
    assert first.relative_change is None


def test_sides_that_lack_a_head_or_an_order_stop_nothing() -> None:
    rows = exploring(0.5)
    popularity = SplitScores(POOR.ranking_score, {}, DIGEST)
    _, robust, _ = estimate(rows, GOOD, popularity, HEADS, CONFIG)
    assert robust.note == "Predictions are one side's own."
    _, robust, _ = estimate(rows, popularity, popularity, HEADS, CONFIG)
    assert (robust.challenger, robust.note) == (None, "No side gives probabilities of 'repin'.")
    broken = replace(POOR, ranking_score=POOR.ranking_score * np.nan)
    for found in estimate(rows, GOOD, broken, HEADS, CONFIG):
        assert (found.challenger, found.note) == (None, "A side's scores hold NaN or infinity.")
    silent = replace(POOR, probabilities={"repin": POOR.probabilities["repin"] * np.nan})
    assert estimate(rows, GOOD, silent, HEADS, CONFIG)[1].challenger is not None
