import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import log_loss

from pipelines.contracts.config import Limit, ModelGateConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.reasons import AbsenceKind
from support.holdouts import (
    AGAINST_CHAMPION,
    AGAINST_POPULARITY,
    DIGEST,
    HEADS,
    noisy_scores,
    planted_rows,
    popularity_scores,
)
from support.ranking import calibration_ratio, hit_at_3, volume_at_3
from training.bundle.score_split import SplitScores
from training.data.example_rows import ExampleRows
from validation.model_gate.comparison import compare
from validation.model_gate.target_metric import names_of_metrics

CONFIG = ModelGateConfig(
    floors=(Limit(metric="repin_volume_at_3", minimum=0.1),), num_resamples=300
)
REPIN = HEADS[:1]


def tiny_rows() -> ExampleRows:
    """Users 7 (two requests, the second non-core) and 8 (one, core); four candidates each."""
    return ExampleRows(
        request_index=np.repeat([0, 1, 2], 4),
        user_id=np.array([7, 7, 8]),
        is_core=np.array([True, False, True]),
        request_id=np.array(["a", "b", "c"]),
        first_example=np.array([0, 4, 8, 12]),
        pin_row=np.arange(12),
        numeric={"pin_popularity_28d": np.zeros(12, np.float32)},
        labels={"repin": np.array([1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1], np.int8)},
        position=np.tile(np.arange(4), 3),
        is_exploration=np.zeros(3, dtype=bool),
        propensity=np.zeros(12, dtype=np.float32),
    )


def side(scores: list[float], probability: float | None = 0.5, digest: str = DIGEST) -> SplitScores:
    ranking = np.array(scores, dtype=float)
    probabilities = {} if probability is None else {"repin": np.full(12, probability)}
    return SplitScores(ranking, probabilities, digest)


# The candidate that each request leaves out of its top 3 is the one scored 0.
CHALLENGER = side([3, 2, 1, 0, 0, 1, 2, 3, 3, 0, 2, 1])  # hits 2, 1, 3
BASELINE = side([0, 2, 1, 3, 3, 2, 1, 0, 0, 1, 2, 3], probability=0.25)  # hits 1, 0, 2


def test_numbers_worked_by_hand() -> None:
    found = compare(tiny_rows(), CHALLENGER, BASELINE, AGAINST_CHAMPION, REPIN, CONFIG)

    def levels(metric: str, segment: str = "all") -> tuple[float, float | None]:
        row = found.find(metric, segment)
        assert row is not None
        return row.challenger, row.baseline

    assert levels("repin_volume_at_3") == (6 / 3, 3 / 3)  # hits per request
    assert levels("hit_at_3.repin") == (6 / 2, 3 / 2)  # hits per user
    assert levels("repin_volume_at_3", "core") == (5 / 2, 3 / 2)
    assert levels("hit_at_3.repin", "core") == (5 / 2, 3 / 2)
    assert levels("repin_volume_at_3", "non_core") == (1.0, 0.0)
    assert levels("hit_at_3.repin", "non_core") == (1.0, 0.0)  # one user, not two
    ln2 = math.log(2)
    loss = (6 * math.log(4) - 6 * math.log(0.75)) / 12
    assert levels("log_loss.repin") == pytest.approx((ln2, loss))
    assert levels("calibration_ratio.repin") == pytest.approx((6 / 6, 3 / 6))
    assert levels("auc.repin") == (0.5, 0.5)
    change = found.find("repin_volume_at_3")
    assert change is not None and change.relative_change is not None
    assert change.relative_change.value == 1.0  # 6 / 3 - 1
    assert found.segment_users == {"all": 2, "core": 2, "non_core": 1}
    assert (found.num_users, found.num_requests, found.num_examples) == (2, 3, 12)
    assert found.are_scores_identical is False


def test_no_change_is_claimed_where_the_baseline_is_zero() -> None:
    found = compare(tiny_rows(), CHALLENGER, BASELINE, AGAINST_CHAMPION, REPIN, CONFIG)

    row = found.find("repin_volume_at_3", "non_core")
    assert row is not None and row.baseline == 0.0 and row.relative_change is None


def test_levels_agree_with_metrics_computed_on_their_own() -> None:
    rows, truth = planted_rows(num_users=80)
    ours = noisy_scores(truth, 0.5, 1)
    found = compare(rows, ours, noisy_scores(truth, 1, 2), AGAINST_CHAMPION, HEADS, CONFIG)
    label = rows.labels["hide"]
    expected = {
        "repin_volume_at_3": volume_at_3(rows, ours.ranking_score, rows.labels["repin"]),
        "hit_at_3.hide": hit_at_3(rows, ours.ranking_score, label),
        "log_loss.hide": log_loss(label, ours.probabilities["hide"]),
        "calibration_ratio.hide": calibration_ratio(ours.probabilities["hide"], label),
    }
    for name, value in expected.items():
        row = found.find(name)
        assert row is not None and row.challenger == pytest.approx(value, rel=1e-9), name
        assert row.challenger_interval is not None
        assert row.challenger_interval.low < value < row.challenger_interval.high


def test_popularity_has_no_probabilities_and_none_are_invented() -> None:
    rows, truth = planted_rows(num_users=60)
    found = compare(
        rows,
        noisy_scores(truth, 0.5, 1),
        popularity_scores(rows),
        AGAINST_POPULARITY,
        HEADS,
        CONFIG,
    )
    for row in found.metrics:
        is_ranking = row.metric.startswith(("repin_volume", "hit_at"))
        assert (row.baseline is not None) is is_ranking, row.metric
        assert (row.relative_change is not None) is is_ranking, row.metric
        assert math.isfinite(row.challenger)
    assert {point.side for point in found.reliability} == {"challenger"}


def test_a_head_that_never_occurs_leaves_out_what_cannot_be_computed() -> None:
    rows, truth = planted_rows(num_users=60)
    never = replace(rows, labels={**rows.labels, "hide": np.zeros_like(rows.labels["hide"])})
    found = compare(
        never,
        noisy_scores(truth, 0.5, 1),
        noisy_scores(truth, 1, 2),
        AGAINST_CHAMPION,
        HEADS,
        CONFIG,
    )
    for name, reason in (
        ("calibration_ratio.hide", "No example has the action."),
        ("auc.hide", "All 2,880 examples have the same label"),
    ):
        assert found.find(name) is None
        absent = found.find_absent(name)
        assert absent is not None and absent.kind is not AbsenceKind.NOT_FINITE
        assert absent.reason.startswith(reason) and absent.reason.endswith(".")
    hits = found.find("hit_at_3.hide")
    assert hits is not None and hits.challenger == 0.0 and hits.relative_change is None


def test_an_empty_segment_has_no_metrics() -> None:
    rows, truth = planted_rows(num_users=60)
    all_core = replace(rows, is_core=np.ones_like(rows.is_core))
    found = compare(
        all_core,
        noisy_scores(truth, 0.5, 1),
        noisy_scores(truth, 1, 2),
        AGAINST_CHAMPION,
        HEADS,
        CONFIG,
    )
    assert found.segment_users["non_core"] == 0
    missing = [row for row in found.absent if row.segment == "non_core"]
    assert {row.metric for row in missing} == {row.metric for row in found.metrics}
    assert {row.reason for row in missing} == {"The segment has no users in the holdout."}
    assert not [row for row in found.metrics if row.segment == "non_core"]


def test_a_side_that_gives_nan_has_no_number_but_the_reason() -> None:
    rows, truth = planted_rows(num_users=60)
    good = noisy_scores(truth, 0.5, 1)
    repin = good.probabilities["repin"].copy()
    repin[5] = np.nan
    bad = SplitScores(good.ranking_score * np.nan, {**good.probabilities, "repin": repin}, DIGEST)
    found = compare(rows, bad, good, AGAINST_CHAMPION, HEADS, CONFIG)

    for name in ("repin_volume_at_3", "hit_at_3.hide", "log_loss.repin", "auc.repin"):
        assert found.find(name) is None, name
        absent = found.find_absent(name)
        assert absent is not None and absent.kind is AbsenceKind.NOT_FINITE, name
        assert absent.reason == "The challenger's scores hold NaN or infinity."
    assert found.smallest_detectable_change is None
    unknown = found.why_not_detectable
    assert unknown is not None
    assert unknown.reason == "The challenger's scores hold NaN or infinity."


def test_a_baseline_that_gives_nan_leaves_the_challenger_s_number_alone() -> None:
    rows, truth = planted_rows(num_users=60)
    good = noisy_scores(truth, 0.5, 1)
    repin = np.full_like(good.probabilities["repin"], np.nan)
    bad = SplitScores(good.ranking_score * np.nan, {**good.probabilities, "repin": repin}, DIGEST)
    found = compare(rows, good, bad, AGAINST_CHAMPION, HEADS, CONFIG)

    for name in ("repin_volume_at_3", "hit_at_3.hide", "calibration_ratio.repin", "auc.repin"):
        row = found.find(name)
        assert row is not None and row.baseline is None and row.relative_change is None, name
        assert found.find_absent(name) is None
        absent = found.find_absent(name, side="baseline")
        assert absent is not None and absent.kind is AbsenceKind.NOT_FINITE, name


def test_a_change_that_cannot_be_resampled_has_no_detectable_size_but_a_reason() -> None:
    last = np.tile(np.array([0, 0, 0, 1], np.int8), 3)
    rows = replace(tiny_rows(), labels={"repin": last})
    best, worst = side([0, 1, 2, 3] * 3), side([3, 2, 1, 0] * 3)  # worst never shows the last
    found = compare(rows, best, worst, AGAINST_CHAMPION, REPIN, CONFIG)

    assert found.target is not None and found.target.baseline == 0.0
    assert found.smallest_detectable_change is None
    assert found.detectable_change == "an unknown change"
    absent = found.why_not_detectable
    assert absent is not None
    assert absent.reason == (
        "The baseline's repin_volume_at_3 is zero in at least one resample of the users."
    )


def test_identical_sides_are_noticed_and_differ_nowhere() -> None:
    rows, truth = planted_rows(num_users=60)
    same = noisy_scores(truth, 0.5, 1)
    found = compare(rows, same, same, AGAINST_CHAMPION, HEADS, CONFIG)

    assert found.are_scores_identical is True
    assert found.smallest_detectable_change == 0.0
    for row in found.metrics:
        assert row.challenger == row.baseline
        change = row.relative_change
        assert change is None or (change.low, change.high) == (0.0, 0.0)


def test_scores_of_other_rows_are_refused() -> None:
    short = SplitScores(np.zeros(11), {}, DIGEST)
    with pytest.raises(DataContractError, match=r"baseline: 'ranking score' has shape \(11,\)"):
        compare(tiny_rows(), CHALLENGER, short, AGAINST_CHAMPION, REPIN, CONFIG)


def test_an_empty_holdout_is_refused() -> None:
    rows = tiny_rows()
    empty = replace(
        rows,
        request_index=rows.request_index[:0],
        user_id=rows.user_id[:0],
        is_core=rows.is_core[:0],
        labels={"repin": rows.labels["repin"][:0]},
    )
    nothing = SplitScores(np.zeros(0), {}, DIGEST)
    with pytest.raises(DataContractError, match="holdout has no examples"):
        compare(empty, nothing, nothing, AGAINST_CHAMPION, REPIN, CONFIG)


def test_reliability_bins_hold_every_example_once() -> None:
    rows, truth = planted_rows(num_users=60)
    found = compare(
        rows, noisy_scores(truth, 0, 1), noisy_scores(truth, 1, 2), AGAINST_CHAMPION, HEADS, CONFIG
    )
    points = [p for p in found.reliability if (p.side, p.head) == ("challenger", "repin")]
    assert sum(p.num_examples for p in points) == found.num_examples
    predicted = [p.mean_predicted for p in points]
    assert predicted == sorted(predicted)
    # The challenger knows the truth: what it predicts happens, within four standard errors.
    for p in points:
        error = math.sqrt(p.mean_predicted * (1 - p.mean_predicted) / p.num_examples)
        assert abs(p.mean_observed - p.mean_predicted) < 4 * error


def test_one_user_with_half_of_all_requests_widens_the_interval_and_breaks_nothing() -> None:
    rows, truth = planted_rows(num_users=200)
    heavy = rows.user_id.copy()
    heavy[: len(heavy) // 2] = 0
    ours, theirs = noisy_scores(truth, 0.6, 1), noisy_scores(truth, 0.8, 2)
    even = compare(rows, ours, theirs, AGAINST_CHAMPION, HEADS, CONFIG).target
    found = compare(
        replace(rows, user_id=heavy), ours, theirs, AGAINST_CHAMPION, HEADS, CONFIG
    ).target
    assert even is not None and even.relative_change is not None
    assert found is not None and found.relative_change is not None
    assert found.relative_change.value == pytest.approx(even.relative_change.value)
    assert found.relative_change.low < found.relative_change.value < found.relative_change.high


def test_requests_of_one_candidate_give_both_sides_the_same() -> None:
    rows, truth = planted_rows(num_users=80, candidates=1)
    found = compare(
        rows,
        noisy_scores(truth, 0.5, 1),
        noisy_scores(truth, 1.0, 2),
        AGAINST_CHAMPION,
        HEADS,
        CONFIG,
    )
    assert found.target is not None and found.target.relative_change is not None
    change = found.target.relative_change
    assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("head", ["repin", "hide"])
def test_nan_in_any_head_is_a_fact_whatever_its_weight(head: str) -> None:
    rows, truth = planted_rows(num_users=60)
    good = noisy_scores(truth, 0.5, 1)
    broken = good.probabilities[head].copy()
    broken[7] = np.nan
    bad = replace(good, probabilities={**good.probabilities, head: broken})
    found = compare(rows, bad, good, AGAINST_CHAMPION, HEADS, CONFIG)
    spreads = {facts.head: facts.spread for facts in found.heads}
    assert spreads[head] is None
    assert all(spread is not None for name, spread in spreads.items() if name != head)


@pytest.mark.parametrize("target", ["repin_volume_at_3", "hit_at_3.repin"])
def test_the_metrics_that_may_have_a_limit_are_those_of_a_comparison(target: str) -> None:
    config = CONFIG.model_copy(update={"target_metric": target})
    found = compare(tiny_rows(), CHALLENGER, BASELINE, AGAINST_CHAMPION, REPIN, config)
    computed = {row.metric for row in (*found.metrics, *found.absent) if row.segment == "all"}
    assert set(names_of_metrics(REPIN, target)) == computed
