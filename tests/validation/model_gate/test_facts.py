"""The model gate on a built snapshot with real bundles; the models are untrained, so chance."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.judgement import BaselineKind, Comparison, Decision, Verdict
from pipelines.contracts.schemas import EMBEDDING_DIM, SPLIT_TRAINING
from pipelines.recipes import smoke
from support.holdouts import NEW_CHALLENGER
from support.judgements import CHAMPION, SERVING
from training.bundle.calibration import Calibrator
from training.bundle.configuration import BundleConfig
from training.bundle.files import write_bundle
from training.data.reader import SnapshotReader
from training.model.ranker import Ranker
from validation.model_gate.facts import gather_facts
from validation.model_gate.verdict import decide

Judged = Callable[[Path | None], tuple[Comparison, Verdict]]


def chance_bundle(folder: Path, snapshot: Snapshot, config: RunConfig, seed: int) -> Path:
    torch.manual_seed(seed)
    ranker = Ranker(snapshot.features, config.model, EMBEDDING_DIM)
    reader = SnapshotReader(
        snapshot, storage.local_path(snapshot.uri), snapshot.features, config.model.max_actions
    )
    golden = reader.make_batch(reader.index(SPLIT_TRAINING).take(np.arange(2)))
    bundle = BundleConfig(
        features=snapshot.features,
        model=config.model,
        embedding_version=snapshot.embedding_version,
        embedding_dim=EMBEDDING_DIM,
        negative_keep_fraction=1.0,
        calibrators=tuple(
            Calibrator(head=head, scale=1.0, shift=-1.5) for head in snapshot.features.head_names
        ),
        as_of=snapshot.as_of,
        snapshot_digest=snapshot.digest,
        code_version="test",
        seed=seed,
    )
    write_bundle(folder, ranker, bundle, golden)
    return folder


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
    """Judge the first bundle against the champion in a folder, or against popularity."""
    folder = storage.local_path(planted_snapshot.uri)

    def judge_against(champion: Path | None) -> tuple[Comparison, Verdict]:
        model = CHAMPION if champion else None
        comparison, self_test = gather_facts(
            planted_snapshot, folder, NEW_CHALLENGER, bundles[0], model, champion, config
        )
        gate, heads = config.model_gate, config.features.heads
        return comparison, decide(comparison, self_test, SERVING, gate, heads)

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
    assert comparison.baseline_kind is BaselineKind.POPULARITY
    assert comparison.champion_model is None
    row = comparison.find("repin_volume_at_3")
    assert row is not None and row.baseline is not None and row.challenger < row.baseline
    # How much worse depends on the untrained weights; the verdict follows from the interval alone.
    assert row.relative_change is not None
    is_surely_worse = row.relative_change.high < 0
    assert verdict.decision is (Decision.REJECT if is_surely_worse else Decision.INCONCLUSIVE)
    assert "the popularity ranking" in verdict.reasons[0]


def test_a_champion_without_its_bundle_is_refused(
    planted_snapshot: Snapshot, config: RunConfig, bundles: tuple[Path, Path]
) -> None:
    folder = storage.local_path(planted_snapshot.uri)
    with pytest.raises(ConfigurationError, match="give both, or neither"):
        gather_facts(planted_snapshot, folder, NEW_CHALLENGER, bundles[0], CHAMPION, None, config)


def test_a_bundle_on_another_embedding_basis_is_refused(
    planted_snapshot: Snapshot, config: RunConfig, bundles: tuple[Path, Path]
) -> None:
    other = planted_snapshot.model_copy(update={"embedding_version": "planted-2"})
    folder = storage.local_path(planted_snapshot.uri)
    with pytest.raises(DataContractError, match="planted-1"):
        gather_facts(other, folder, NEW_CHALLENGER, bundles[0], None, None, config)
