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
from support.lost_cycles import changed
from training.bundle.files import read_config
from training.data.reader import load_rows
from validation.model_gate.facts import Facts, Side, gather_facts, what_differs
from validation.model_gate.verdict import decide


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


Gather = Callable[..., Facts]


@pytest.fixture(scope="module")
def gather(planted_snapshot: Snapshot, config: RunConfig, bundles: tuple[Path, Path]) -> Gather:
    """Compare the first bundle with the champion in a folder, or with the best simple baseline."""

    def gathered(
        champion: Path | None,
        recipe: RunConfig = config,
        ours: Snapshot = planted_snapshot,
        theirs: Snapshot = planted_snapshot,
        anchor: tuple[Side, RunConfig] | None = None,
    ) -> Facts:
        folder = storage.local_path(planted_snapshot.uri)
        side = Side(NEW_CHALLENGER, bundles[0], ours, folder)
        other = champion and Side(CHAMPION, champion, theirs, folder)
        return gather_facts(side, other, recipe, anchor)

    return gathered


def verdict_of(facts: Facts, config: RunConfig) -> Verdict:
    gate, heads, found = config.model_gate, config.features.heads, facts.theta.comparison
    return decide(found, facts.self_test, SERVING, gate, heads, baselines=facts.baselines)


def test_both_bundles_are_scored_on_the_one_holdout(
    planted_snapshot: Snapshot, gather: Gather, bundles: tuple[Path, Path], config: RunConfig
) -> None:
    facts = gather(bundles[1])
    comparison = facts.theta.comparison
    assert comparison.baseline_kind is BaselineKind.CHAMPION
    assert comparison.num_requests == 110  # of the holdout, as the data gate counts them
    assert comparison.num_examples == 1317  # 110 requests of 12; 3 rows came too late to be known
    assert comparison.holdout_digest == comparison.baseline_holdout_digest
    assert comparison.are_scores_identical is False
    assert comparison.segment_users["core"] > 0 and comparison.segment_users["non_core"] > 0
    names = [f"{name}.{head}" for head in config.features.head_names
             for name in ("hit_at_3", "log_loss", "calibration_ratio", "auc", "ece")]  # fmt: skip
    assert all((row := comparison.find(name)) and row.baseline is not None for name in names)
    # Two models that know nothing: whatever chance says of them, neither is promoted.
    assert verdict_of(facts, config).decision is not Decision.PROMOTE
    # Exploration requests are a segment and are estimated.
    rows = load_rows(planted_snapshot, storage.local_path(planted_snapshot.uri), SPLIT_HOLDOUT)
    assert 0 < rows.is_exploration.sum() < len(rows.user_id) / 4  # one request in twenty
    assert comparison.segment_users["exploration"] > 0
    assert {each.num_requests for each in facts.estimates} == {rows.is_exploration.sum()}


def test_a_large_holdout_is_sampled_alike_for_all_sides_as_far_as_its_bounds_allow(
    planted_snapshot: Snapshot, gather: Gather, bundles: tuple[Path, Path], config: RunConfig
) -> None:
    side = Side(CHAMPION, bundles[1], planted_snapshot, storage.local_path(planted_snapshot.uri))
    loose = {"recipe_margin": 0.99, "required_segments": (), "guardrails": ()}

    def compared(num_users: int, margin: float = 0.99) -> Comparison:
        own = {"sample_users": num_users, "margin": margin, "min_head_positives": 1}
        recipe = changed(config, "model_gate", **loose | own)
        facts = gather(bundles[1], recipe, anchor=(side, changed(recipe, "model", first_k=1)))
        assert facts.delta.comparison.num_drawn == facts.phi.comparison.num_drawn
        return facts.theta.comparison

    sampled, whole = compared(40), compared(48)
    assert (sampled.num_users, sampled.num_users_in_all, whole.num_drawn) == (40, 48, None)
    assert sampled.holdout_digest == sampled.baseline_holdout_digest != whole.holdout_digest
    assert compared(20).num_drawn is compared(40, margin=0.01).num_drawn is None
    said = "On 40 users (a sample, 83.33% of 48) and 93 requests, changes of "
    assert sampled.power.startswith(said + sampled.detectable_change)


def test_a_copy_a_champion_that_saw_the_holdout_and_a_first_cycle_that_knows_nothing(
    planted_snapshot: Snapshot, gather: Gather, bundles: tuple[Path, Path], config: RunConfig,
    tmp_path: Path,
) -> None:  # fmt: skip
    end, day = planted_snapshot.holdout.end, timedelta(days=1)
    window = Window(start=end - day, end=end + 13 * day)
    newer = with_config(bundles[1], tmp_path / "newer", training=window)
    for champion, said in (
        (bundles[0], "the same score to each of the 1,317 holdout examples"),
        (newer, f"{CHAMPION.label} was trained on rows from"),
    ):
        verdict = verdict_of(gather(champion), config)
        assert verdict.decision is Decision.INCONCLUSIVE
        assert said in " ".join(verdict.reasons)
    facts = gather(None)
    comparison, verdict = facts.theta.comparison, verdict_of(facts, config)
    assert comparison.baseline_model is None and comparison.baseline_name
    row = comparison.target
    assert row is not None and row.baseline is not None and row.challenger < row.baseline
    assert verdict.decision is not Decision.PROMOTE
    assert comparison.baseline_label in verdict.reasons[0]


def test_another_basis_and_other_requests_are_refused(
    planted_snapshot: Snapshot, gather: Gather, bundles: tuple[Path, Path]
) -> None:
    other = planted_snapshot.model_copy(update={"embedding_version": "planted-2"})
    with pytest.raises(DataContractError, match="planted-1"):
        gather(None, ours=other)
    fewer = planted_snapshot.model_copy(update={"shards": planted_snapshot.shards[:1]})
    with pytest.raises(DataContractError, match="hold other holdout rows"):
        gather(bundles[1], theirs=fewer)


def with_config(bundle: Path, folder: Path, **update: Any) -> Path:
    """Return a copy of a bundle that says something else of itself."""
    return write_with_config(bundle, folder, read_config(bundle).model_copy(update=update))


def test_each_side_ranks_as_it_serves(
    gather: Gather, config: RunConfig, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    """A recipe that turns a head's sign must not turn the champion's ranking too."""
    repin, *others = config.features.heads
    reversed_repin = repin.model_copy(update={"utility_weight": -1.0})
    features = config.features.model_copy(update={"heads": (reversed_repin, *others)})
    turned = with_config(bundles[1], tmp_path / "reversed", features=features)
    recipe = config.model_copy(update={"features": features})
    as_it_serves, by_recipe, changed = (
        found.target and found.target.baseline
        for found in (
            gather(*each).theta.comparison
            for each in ((bundles[1],), (bundles[1], recipe), (turned,))
        )
    )
    assert as_it_serves == by_recipe != changed


def test_what_differs_between_the_recipes_is_named(
    config: RunConfig, bundles: tuple[Path, Path]
) -> None:
    heads = (config.features.heads[0].model_copy(update={"utility_weight": 2}),)
    features = config.features.model_copy(update={"heads": heads, "numeric": ()})
    ours = read_config(bundles[0])
    said = what_differs(ours, ours.model_copy(update={"features": features}))
    assert tuple(map(str, said)) == (
        "The challenger's numeric features: pin_popularity, past_engagements; "
        "the champion's: none.",
        "The challenger's heads: long_click (wanted long_click, weight 0), repin (wanted repin, "
        "weight 1), save (wanted save, weight 0); the champion's: repin (wanted repin, weight 2).",
    )
    reordered = config.features.model_copy(update={"heads": config.features.heads[::-1]})
    assert not list(what_differs(ours, ours.model_copy(update={"features": reordered})))
