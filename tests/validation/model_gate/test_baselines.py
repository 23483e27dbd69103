"""Simple baselines order as their names say, and are measured on the draws that all metrics see."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.contracts.errors import DataContractError
from pipelines.recipes import smoke
from support.holdouts import (
    AGAINST_POPULARITY,
    HEADS,
    level_of,
    noisy_scores,
    planted_rows,
    popularity_scores,
)
from training.bundle.score_split import SplitScores
from training.data.reader import ExampleRows
from validation.model_gate.baselines import (
    RANDOM,
    RANKINGS,
    Baselines,
    fit_and_score,
    measure,
)
from validation.model_gate.comparison import Holdout, compare

NUMBERS = {
    "pin_popularity_1d": [0.0, 3.0, 1.0, 0.0],
    "pin_popularity_7d": [1.0, 3.0, 2.0, 0.0],
    "pin_popularity_28d": np.log1p([1e6, 6.0, 0.0, 5.0]),
    "pin_age": [5.0, 0.0, 9.0, 1.0],
    "past_engagements": np.log1p([100.0, 0.0, 101.0, 0.0]),
}


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("popularity, 1 day", [1, 2, 0, 3]),
        ("popularity, 7 days", [1, 2, 0, 3]),
        ("popularity, 28 days", [0, 1, 3, 2]),
        ("newest first", [1, 3, 0, 2]),
        ("past engagement", [2, 0, 1, 3]),  # popularity breaks its ties
    ],
)
def test_a_ranking_orders_as_its_name_says(name: str, order: list[int]) -> None:
    [ranking] = [each for each in RANKINGS if each.name == name]
    score = ranking.score(*(np.array(NUMBERS[each]) for each in ranking.needs))
    assert list(np.argsort(-score, kind="stable")) == order


def planted(num_examples: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return numbers (N, 3), of which the last is noise, their labels and the true log-odds."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(num_examples, 3)) * [1.0, 100.0, 1.0] + [0.0, 500.0, 0.0]
    log_odds = 1.5 * numbers[:, 0] - (numbers[:, 1] - 500) / 100 - 1.0
    label = (rng.random(num_examples) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
    return numbers, label, log_odds


def test_it_finds_the_planted_log_odds_whatever_the_units_and_names_what_cannot_be_fitted() -> None:
    training, label, _ = planted(40_000, 1)
    holdout, _, truth = planted(5_000, 2)
    score = fit_and_score(training, label, holdout)
    assert np.corrcoef(score, truth)[0, 1] > 0.999
    assert abs(np.mean(score - truth)) < 0.05
    with pytest.raises(DataContractError, match="no numeric feature"):
        fit_and_score(training[:, :0], label, training[:, :0])
    with pytest.raises(DataContractError, match="all 40,000 training labels are the same"):
        fit_and_score(training, np.zeros(40_000, np.int8), training)


CONFIG = smoke().model_copy(
    update={"features": smoke().features.model_copy(update={"heads": HEADS[:1]})}
)


def with_numbers(rows: ExampleRows, truth: np.ndarray, seed: int) -> ExampleRows:
    """Return the rows with every number that a ranking needs; newest first is a bad one."""
    noise = np.random.default_rng(seed).random(len(truth)).astype(np.float32)
    popularity = rows.numeric["pin_popularity_28d"]
    numbers = {
        "pin_popularity_1d": noise,
        "pin_popularity_7d": popularity + noise,
        "pin_popularity_28d": popularity,
        "pin_age": truth.astype(np.float32),
        "past_engagements": np.zeros_like(noise),
    }
    return replace(rows, numeric=numbers)


ROWS, TRUTH = planted_rows(num_users=200)
ROWS = with_numbers(ROWS, TRUTH["repin"], 1)
OURS = noisy_scores(TRUTH, 0.3, 1)


def measured(
    rows: ExampleRows = ROWS, ours: SplitScores = OURS, training: ExampleRows | None = None
) -> Baselines:
    return measure(rows, training or rows, ours.ranking_score, CONFIG)


@pytest.fixture(scope="module")
def found() -> Baselines:
    training, truth = planted_rows(num_users=200, seed=8)
    return measured(training=with_numbers(training, truth["repin"], 2))


def test_the_best_comes_first_and_every_one_is_there(found: Baselines) -> None:
    levels = [facts.level.value for facts in found.facts if facts.level is not None]
    assert len(levels) == 7 and levels == sorted(levels, reverse=True)
    # The regression is told the truth itself, as the pin's age, and turns it round.
    assert found.best().name == "logistic regression"
    assert found.facts[1].name == "popularity, 28 days"
    assert found.facts[-1].name == "newest first"
    assert np.ptp(found.scores[RANDOM]) == 0


def test_level_and_change_are_those_of_the_gate_itself(found: Baselines) -> None:
    popular = next(facts for facts in found.facts if facts.name == "popularity, 28 days")
    theirs, holdout = popularity_scores(ROWS), Holdout(ROWS, HEADS[:1], CONFIG.model_gate)
    assert popular.level is not None and popular.change is not None
    assert popular.level.value == pytest.approx(level_of(holdout, theirs), rel=1e-12)
    row = compare(holdout, OURS, theirs, AGAINST_POPULARITY).comparison.target
    assert row is not None
    assert (popular.change, popular.level) == (row.relative_change, row.baseline_interval)


def test_a_number_that_the_snapshot_lacks_is_named_and_the_others_go_on() -> None:
    without = {name: column for name, column in ROWS.numeric.items() if name != "pin_age"}
    same = {head: np.zeros_like(of) for head, of in ROWS.labels.items()}
    few = measured(replace(ROWS, numeric=without), training=replace(ROWS, labels=same))
    notes = {each.name: each.note for each in few.facts if each.level is None}
    assert notes.pop("newest first") == "The snapshot does not hold pin_age."
    assert "all 9,600 training labels are the same" in notes.pop("logistic regression")
    assert notes == {} and set(few.scores) == {each.name for each in few.facts if not each.note}


def test_a_challenger_without_finite_scores_takes_no_level_from_the_baselines(
    found: Baselines,
) -> None:
    diverged = measured(ours=replace(OURS, ranking_score=np.full_like(OURS.ranking_score, np.nan)))
    levels, sound = (
        {facts.name: facts.level for facts in each.facts if facts.kind == "ranking"}
        for each in (diverged, found)
    )
    assert levels == sound
    best = diverged.best()
    assert (best.change, best.difference) == (None, None)
    assert "its scores are not finite" in best.note


def test_a_ranking_that_finds_next_to_nothing_is_held_against_by_the_difference() -> None:
    worst = ROWS.labels["repin"].astype(np.float32)
    worst[np.flatnonzero(worst)[0]] = -2.0  # one hit, of one user
    weak = measured(replace(ROWS, numeric=ROWS.numeric | {"pin_age": worst}))
    facts = weak.best("newest first")
    assert facts.change is None and facts.difference is not None
    assert facts.difference.low > 0.5
    assert facts.note == "Its repin_volume_at_3 is not surely above zero."
    with pytest.raises(DataContractError, match="no baseline could be measured"):
        Baselines((), {}).best()
