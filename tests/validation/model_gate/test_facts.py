"""The model gate on a built snapshot with real bundles; the models are untrained, so chance."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.judgement import Comparison, Decision, Verdict
from pipelines.contracts.reasons import BaselineKind
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from pipelines.contracts.time import Window
from pipelines.recipes import smoke
from support.bundles import chance_bundle, write_with_config
from support.holdouts import NEW_CHALLENGER
from support.judgements import CHAMPION, SERVING
from training.bundle.files import read_config
from training.data.example_rows import load_rows
from validation.model_gate.facts import Side, gather_facts, what_differs
from validation.model_gate.verdict import decide

Judged = Callable[[Path | None], tuple[Comparison, Verdict]]


@pytest.fixture(scope="module")
def config(planted_snapshot: Snapshot) -> RunConfig:
    return smoke().model_copy(update={"features": planted_snapshot.features})


@pytest.fixture(scope="module")
def bundles(
    planted_snapshot: Snapshot, config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    one, other = (chance_bundle(folder / f"b{s}", planted_snapshot, config, s) for s in (1, 2))
    return one, other


@pytest.fixture(scope="module")
def judged(planted_snapshot: Snapshot, config: RunConfig, bundles: tuple[Path, Path]) -> Judged:
    """Judge the first bundle against the champion in a folder, or the best simple baseline."""
    folder = storage.local_path(planted_snapshot.uri)

    def judge_against(champion: Path | None) -> tuple[Comparison, Verdict]:
        side = Side(NEW_CHALLENGER, bundles[0], planted_snapshot, folder)
        other = Side(CHAMPION, champion, planted_snapshot, folder) if champion else None
        facts = gather_facts(side, other, config)
        comparison, self_test = facts.theta.comparison, facts.self_test
        gate, heads = config.model_gate, config.features.heads
        found = facts.baselines
        return comparison, decide(comparison, self_test, SERVING, gate, heads, baselines=found)

    return judge_against


def test_both_bundles_are_scored_on_the_one_holdout(
    judged: Judged, bundles: tuple[Path, Path]
) -> None:
    comparison, verdict = judged(bundles[1])
    assert comparison.baseline_kind is BaselineKind.CHAMPION
    assert comparison.num_requests == 110  # of the holdout, as the data gate counts them
    assert comparison.num_examples == 1317  # 110 requests of 12; 3 rows came too late to be known
    assert comparison.holdout_digest == comparison.baseline_holdout_digest
    assert comparison.are_scores_identical is False
    assert comparison.segment_users["core"] > 0 and comparison.segment_users["non_core"] > 0
    for head in ("repin", "long_click", "save"):
        for name in ("hit_at_3", "log_loss", "calibration_ratio", "auc", "ece"):
            row = comparison.find(f"{name}.{head}")
            assert row is not None and row.baseline is not None
    # Two models that know nothing: whatever chance says of them, neither is promoted.
    assert verdict.decision is not Decision.PROMOTE


def test_a_bundle_against_its_copy_is_not_promoted(
    judged: Judged, bundles: tuple[Path, Path]
) -> None:
    _, verdict = judged(bundles[0])
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "the same score to each of the 1,317 holdout examples" in " ".join(verdict.reasons)


def test_the_first_cycle_of_a_model_that_knows_nothing(judged: Judged) -> None:
    comparison, verdict = judged(None)
    assert comparison.baseline_kind in (BaselineKind.RANKING, BaselineKind.REGRESSION)
    assert comparison.baseline_model is None
    assert comparison.baseline_name
    row = comparison.find("repin_volume_at_3")
    assert row is not None and row.baseline is not None and row.challenger < row.baseline
    # How much worse depends on the untrained weights; the verdict follows from the interval alone.
    assert row.relative_change is not None
    is_surely_worse = row.relative_change.high < 0
    assert verdict.decision is (Decision.REJECT if is_surely_worse else Decision.INCONCLUSIVE)
    assert comparison.baseline_label in verdict.reasons[0]


def test_a_bundle_on_another_embedding_basis_is_refused(
    planted_snapshot: Snapshot, config: RunConfig, bundles: tuple[Path, Path]
) -> None:
    other = planted_snapshot.model_copy(update={"embedding_version": "planted-2"})
    folder = storage.local_path(planted_snapshot.uri)
    with pytest.raises(DataContractError, match="planted-1"):
        gather_facts(Side(NEW_CHALLENGER, bundles[0], other, folder), None, config)


def with_config(bundle: Path, folder: Path, **update: Any) -> Path:
    """Return a copy of a bundle that says something else of itself."""
    return write_with_config(bundle, folder, read_config(bundle).model_copy(update=update))


def test_each_side_ranks_as_it_serves(
    planted_snapshot: Snapshot, config: RunConfig, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    """A recipe that turns a head's sign must not turn the champion's ranking too."""
    folder = storage.local_path(planted_snapshot.uri)
    repin, *others = config.features.heads
    reversed_repin = repin.model_copy(update={"utility_weight": -1.0})
    features = config.features.model_copy(update={"heads": (reversed_repin, *others)})
    changed = with_config(bundles[1], tmp_path / "reversed", features=features)

    def volume(champion: Path, recipe: RunConfig) -> float | None:
        side = Side(NEW_CHALLENGER, bundles[0], planted_snapshot, folder)
        facts = gather_facts(side, Side(CHAMPION, champion, planted_snapshot, folder), recipe)
        found = facts.theta.comparison
        assert found.target is not None
        return found.target.baseline

    as_it_serves = volume(bundles[1], config)
    assert volume(bundles[1], config.model_copy(update={"features": features})) == as_it_serves
    assert volume(changed, config) != as_it_serves


def test_what_differs_between_the_recipes_is_named(
    planted_snapshot: Snapshot, config: RunConfig, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    repin, long_click, save = config.features.heads
    heads = (repin.model_copy(update={"utility_weight": 0.5}), long_click, save)
    features = config.features.model_copy(update={"heads": heads, "numeric": ()})
    changed = with_config(bundles[1], tmp_path / "other", features=features)
    said = what_differs(read_config(bundles[0]), read_config(changed))
    assert tuple(map(str, said)) == (
        "The challenger's numeric features: pin_popularity, past_engagements; "
        "the champion's: none.",
        "Head 'repin' is wanted, of action 'repin', with weight 1 in the challenger and wanted, of "
        "action 'repin', with weight 0.5 in the champion.",
    )
    assert not list(what_differs(read_config(bundles[0]), read_config(bundles[1])))


def test_a_champion_that_was_trained_on_the_holdout_makes_the_comparison_void(
    planted_snapshot: Snapshot, config: RunConfig, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, holdout = storage.local_path(planted_snapshot.uri), planted_snapshot.holdout
    day = timedelta(days=1)
    side = Side(NEW_CHALLENGER, bundles[0], planted_snapshot, folder)
    trained_on = Window(start=holdout.end - day, end=holdout.end + 13 * day)
    newer = with_config(bundles[1], tmp_path / "newer", training=trained_on)
    facts = gather_facts(side, Side(CHAMPION, newer, planted_snapshot, folder), config)
    comparison, self_test = facts.theta.comparison, facts.self_test
    gate, heads = config.model_gate, config.features.heads
    verdict = decide(comparison, self_test, SERVING, gate, heads)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert f"{CHAMPION.label} was trained on rows from" in verdict.reasons[0]


def test_sides_of_other_requests_are_not_compared(
    planted_snapshot: Snapshot, config: RunConfig, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = storage.local_path(planted_snapshot.uri)
    fewer = planted_snapshot.model_copy(update={"shards": planted_snapshot.shards[:1]})
    side = Side(NEW_CHALLENGER, bundles[0], planted_snapshot, folder)
    with pytest.raises(DataContractError, match="hold other holdout rows"):
        gather_facts(side, Side(CHAMPION, bundles[1], fewer, folder), config)


def test_exploration_requests_are_a_segment_and_are_estimated(
    planted_snapshot: Snapshot, config: RunConfig, bundles: tuple[Path, Path]
) -> None:
    folder = storage.local_path(planted_snapshot.uri)
    side = Side(NEW_CHALLENGER, bundles[0], planted_snapshot, folder)
    facts = gather_facts(side, Side(CHAMPION, bundles[1], planted_snapshot, folder), config)
    rows = load_rows(planted_snapshot, folder, SPLIT_HOLDOUT)
    assert 0 < rows.is_exploration.sum() < len(rows.user_id) / 4  # one request in twenty
    assert facts.theta.comparison.segment_users["exploration"] > 0
    first, robust, slate = facts.estimates
    assert first.num_requests == robust.num_requests == rows.is_exploration.sum()
    assert robust.challenger is not None
    assert slate.note == "No request has a propensity for all candidates."
