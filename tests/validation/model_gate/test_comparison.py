import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from pipelines.contracts.config import Head, Limit, ModelGateConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Comparison
from pipelines.contracts.reasons import AbsenceKind
from support.holdouts import (
    AGAINST_CHAMPION,
    AGAINST_POPULARITY,
    DIGEST,
    HEADS,
    example_rows,
    noisy_scores,
    planted_rows,
    popularity_scores,
)
from training.bundle.score_split import SplitScores
from training.data.reader import ExampleRows
from validation.model_gate.comparison import ComparedModels, Holdout, compare
from validation.model_gate.target_metric import DIVERSITY, GINI, NEW, POPULAR, names_of_metrics

CONFIG = ModelGateConfig(floors=(Limit(metric="repin_volume_at_3", minimum=0.1),))
REPIN = HEADS[:1]
ROWS, TRUTH = planted_rows(num_users=60)
GOOD, FAIR = noisy_scores(TRUTH, 0.5, 1), noisy_scores(TRUTH, 1, 2)


def compared(
    rows: ExampleRows = ROWS, ours: SplitScores = GOOD, theirs: SplitScores = FAIR,
    heads: tuple[Head, ...] = HEADS, models: ComparedModels = AGAINST_CHAMPION,
    config: ModelGateConfig = CONFIG,
) -> Comparison:  # fmt: skip
    return compare(Holdout(rows, heads, config), ours, theirs, models).comparison


def tiny_rows(repins: Sequence[int] = (1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1)) -> ExampleRows:
    """Users 7 (two requests, the second non-core) and 8 (one, core); four candidates each."""
    labels, is_core = {"repin": np.array(repins, np.int8)}, np.array([True, False, True])
    return example_rows([4, 4, 4], [7, 7, 8], is_core=is_core, labels=labels)


def side(scores: list[float], probability: float = 0.5) -> SplitScores:
    return SplitScores(np.array(scores, dtype=float), {"repin": np.full(12, probability)}, DIGEST)


# The candidate that each request leaves out of its top 3 is the one scored 0.
CHALLENGER = side([3, 2, 1, 0, 0, 1, 2, 3, 3, 0, 2, 1])  # hits 2, 1, 3
BASELINE = side([0, 2, 1, 3, 3, 2, 1, 0, 0, 1, 2, 3], probability=0.25)  # hits 1, 0, 2
BY_HAND = {
    ("repin_volume_at_3", "all"): (6 / 3, 3 / 3),  # hits per request
    ("hit_at_3.repin", "all"): (6 / 2, 3 / 2),  # hits per user
    ("repin_volume_at_3", "core"): (5 / 2, 3 / 2),
    ("hit_at_3.repin", "core"): (5 / 2, 3 / 2),
    ("repin_volume_at_3", "non_core"): (1.0, 0.0),
    ("hit_at_3.repin", "non_core"): (1.0, 0.0),  # one user, not two
    ("log_loss.repin", "all"): (math.log(2), (6 * math.log(4) - 6 * math.log(0.75)) / 12),
    ("calibration_ratio.repin", "all"): (6 / 6, 3 / 6),
    ("auc.repin", "all"): (0.5, 0.5),
}


def test_numbers_worked_by_hand() -> None:
    found = compared(tiny_rows(), CHALLENGER, BASELINE, REPIN)
    for (metric, segment), levels in BY_HAND.items():
        row = found.find(metric, segment)
        assert row is not None and (row.challenger, row.baseline) == pytest.approx(levels), metric
        if row.baseline == 0:
            assert row.relative_change is None
    # Of two users nothing is surely above zero, so there is a difference and no relative change.
    assert found.target is not None and found.target_change is None
    assert found.target.difference is not None and found.target.difference.value == 2.0 - 1.0
    assert found.segment_users == {"all": 2, "core": 2, "non_core": 1}
    assert (found.num_users, found.num_requests, found.num_examples) == (2, 3, 12)
    assert found.are_scores_identical is False


def test_what_is_shown_first_is_counted_by_hand() -> None:
    """Of ten pins the first stands in each request; a side leaves out one candidate of four."""
    rows = replace(tiny_rows(), pin_row=np.array([0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9]))
    vectors = np.random.default_rng(1).normal(size=(10, 8)).astype(np.float32)
    vectors[0], vectors[3] = 0.0, 2 * vectors[2]  # Like none, and like another one.
    holdout = Holdout(rows, REPIN, CONFIG, known_pins=np.arange(5), pin_vectors=vectors)
    found = compare(holdout, CHALLENGER, BASELINE, AGAINST_CHAMPION).comparison
    units, unlike = vectors / np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)[:, None], []
    for side in (CHALLENGER, BASELINE):
        tops = rows.pin_row[holdout.top(side.ranking_score) == 1].reshape(3, 3)
        unlike.append(
            np.mean([1 - units[a] @ units[b] for of in tops for a, b in combinations(of, 2)])
        )
    for name, levels in {
        DIVERSITY: tuple(unlike),
        POPULAR: (2 / 9, 1 / 9),
        NEW: (4 / 9, 4 / 9),
        GINI: (25 / 90, 0.1),
    }.items():
        row = found.find(name)
        assert row is not None and (row.challenger, row.baseline) == pytest.approx(levels)


def test_popularity_has_no_probabilities_and_none_are_invented() -> None:
    found = compared(theirs=popularity_scores(ROWS), models=AGAINST_POPULARITY)
    for row in found.metrics:
        if row.metric in (POPULAR, GINI):
            continue
        is_ranking = row.metric.startswith(("repin_volume", "hit_at"))
        assert (row.baseline is not None) is is_ranking, row.metric
        assert (row.relative_change is not None) is is_ranking, row.metric
    assert {point.side for point in found.reliability} == {"challenger"}


def test_a_head_that_never_occurs_and_an_empty_segment_leave_out_what_cannot_be_computed() -> None:
    never = {**ROWS.labels, "hide": np.zeros_like(ROWS.labels["hide"])}
    found = compared(replace(ROWS, labels=never, is_core=np.ones_like(ROWS.is_core)))
    for name, reason in (
        ("calibration_ratio.hide", "No example has the action."),
        ("auc.hide", "All examples have the same label"),
    ):
        absent = found.find_absent(name)
        assert found.find(name) is None and absent is not None
        assert absent.kind is not AbsenceKind.NOT_FINITE
        assert absent.reason.startswith(reason) and absent.reason.endswith(".")
    hits = found.find("hit_at_3.hide")
    assert hits is not None and hits.challenger == 0.0 and hits.relative_change is None
    assert found.segment_users["non_core"] == 0
    missing = {row.metric: row.reason for row in found.absent if row.segment == "non_core"}
    assert missing.keys() >= {row.metric for row in found.metrics} - {GINI}
    assert set(missing.values()) == {"The segment has no users in the holdout."}
    assert not [row for row in found.metrics if row.segment == "non_core"]


NAN = replace(
    GOOD,
    ranking_score=GOOD.ranking_score * np.nan,
    probabilities={**GOOD.probabilities, "repin": np.full_like(GOOD.ranking_score, np.nan)},
)
OF_NAN = ("repin_volume_at_3", "hit_at_3.hide", "log_loss.repin", "auc.repin")


def test_a_side_that_gives_nan_has_no_number_but_the_reason() -> None:
    found, theirs = compared(ours=NAN), compared(theirs=NAN)
    said = "The challenger's scores hold NaN or infinity."
    for name in OF_NAN:
        absent = found.find_absent(name)
        assert found.find(name) is None and absent is not None, name
        assert (absent.kind, absent.reason) == (AbsenceKind.NOT_FINITE, said), name
        # A baseline that gives NaN leaves the challenger's number alone.
        row, absent = theirs.find(name), theirs.find_absent(name, side="baseline")
        assert row is not None and row.baseline is None and row.relative_change is None, name
        assert theirs.find_absent(name) is None
        assert absent is not None and absent.kind is AbsenceKind.NOT_FINITE, name
    assert found.smallest_detectable_change is None
    same = compared(theirs=GOOD)
    assert (same.are_scores_identical, same.smallest_detectable_change) == (True, 0.0)


def test_a_change_from_nothing_has_no_detectable_size_but_a_difference() -> None:
    best, worst = side([0, 1, 2, 3] * 3), side([3, 2, 1, 0] * 3)  # worst never shows the last
    found = compared(tiny_rows([0, 0, 0, 1] * 3), best, worst, REPIN)
    assert found.target is not None and found.target.baseline == 0.0
    assert found.smallest_detectable_change is None
    assert found.detectable_change == "an unknown change"
    assert found.target.difference is not None
    said = "The baseline's repin_volume_at_3 is not surely above zero."
    assert found.why_no_change(found.target).reason == said
    nothing = SplitScores(np.zeros(0), {}, DIGEST)
    with pytest.raises(DataContractError, match="holdout has no examples"):
        compared(replace(tiny_rows(), request_index=np.zeros(0, int)), nothing, nothing, REPIN)


def test_reliability_bins_hold_every_example_once() -> None:
    """The challenger knows the truth: what it predicts happens, within four standard errors."""
    found = compared(ours=noisy_scores(TRUTH, 0, 1))
    points = [p for p in found.reliability if (p.side, p.head) == ("challenger", "repin")]
    predicted = [p.mean_predicted for p in points]
    assert predicted == sorted(predicted)
    for p in points:
        error = math.sqrt(p.mean_predicted * (1 - p.mean_predicted) / (found.num_examples / 10))
        assert abs(p.mean_observed - p.mean_predicted) < 4 * error


def test_nan_in_any_head_is_a_fact_whatever_its_weight() -> None:
    broken = np.where(np.arange(len(ROWS.request_index)) == 7, np.nan, 0.5)
    bad = replace(GOOD, probabilities={**GOOD.probabilities, "hide": broken})
    facts = {each.head: each for each in compared(ours=bad).heads}
    assert facts["hide"].spread is None
    assert facts["repin"].spread == np.ptp(GOOD.probabilities["repin"])
    assert facts["repin"].num_positives == ROWS.labels["repin"].sum()


@pytest.mark.parametrize("target", ["repin_volume_at_3", "hit_at_3.repin"])
def test_the_metrics_that_may_have_a_limit_are_those_of_a_comparison(target: str) -> None:
    config = CONFIG.model_copy(update={"target_metric": target})
    pins = {"known_pins": np.arange(3), "pin_vectors": np.eye(len(tiny_rows().pin_ids))}
    found = compare(
        Holdout(tiny_rows(), REPIN, config, **pins), CHALLENGER, BASELINE, AGAINST_CHAMPION
    ).comparison
    computed = {row.metric for row in (*found.metrics, *found.absent) if row.segment == "all"}
    assert set(names_of_metrics(REPIN, target)) == computed


def test_requests_are_shown_as_both_sides_rank_them_whatever_came_of_them() -> None:
    rows = replace(tiny_rows(), request_id=np.array(["a", "b" * 10_000, "c"]))
    found, first = compared(rows, CHALLENGER, BASELINE, REPIN).requests, rows.pin_ids[0]
    shown = {each.request_id: each.pins for each in found}
    assert set(shown) == {"a", "b" * 64, "c"}
    places = [(1, 4, ("repin",)), (2, 2, ("repin",)), (3, 3, ()), (4, 1, ())]
    expected = {(first + n, *place) for n, place in enumerate(places)}
    assert {tuple(vars(pin).values()) for pin in shown["a"]} == expected
    drawn = [[each.request_id for each in compared(of, *sides).requests] for of, *sides in (
        (ROWS, GOOD, FAIR), (ROWS, FAIR, GOOD),
        (replace(ROWS, labels={head: 1 - of for head, of in ROWS.labels.items()}), GOOD, FAIR),
    )]  # fmt: skip
    assert drawn[0] == drawn[1] == drawn[2] and len(set(drawn[0])) == 10
    assert drawn[0] != ROWS.request_id[:10].tolist()
    long = example_rows([400, 3], [1, 2], labels={"repin": np.ones(403, np.int8)})
    many = SplitScores(np.arange(403.0), {}, DIGEST)
    sizes = [len(each.pins) for each in compared(long, many, many, REPIN).requests]
    assert sorted(sizes) == [3, 15]
    no_order = replace(GOOD, ranking_score=GOOD.ranking_score * np.nan)
    assert compared(ours=no_order).requests == compared(theirs=no_order).requests == ()
