"""Bundle: round trip, refusals, same bytes; scoring: aligned, whatever the batch size or order."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from training.bundle.files import load_bundle, read_golden, write_bundle
from training.bundle.scorer import Scorer
from training.bundle.split_scores import load_rows, ranking_score, score
from training.data.batches import Batch
from training.data.reader import SnapshotReader


@pytest.fixture
def bundle(trained, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained[1].bundle_dir, tmp_path / "bundle"))


@pytest.fixture
def scorer(trained) -> Scorer:
    return load_bundle(Path(trained[1].bundle_dir))


def holdout_batch(planted, scorer: Scorer) -> Batch:
    config = scorer.config
    reader = SnapshotReader(
        planted.snapshot, planted.folder, config.features, config.model.max_actions
    )
    return reader.make_batch(reader.index(SPLIT_HOLDOUT))


def test_a_bundle_from_before_the_kernel_was_an_option_scores_as_it_did(bundle) -> None:
    config = json.loads((bundle / "bundle.json").read_text())
    assert config["model"].pop("encoder_kernel") == "auto"
    (bundle / "bundle.json").write_text(json.dumps(config))
    golden, expected = read_golden(bundle, 3)
    assert np.abs(load_bundle(bundle).probabilities(golden) - expected).max() < 1e-6


def test_round_trip(planted, trained, tmp_path) -> None:
    source = Path(trained[1].bundle_dir)
    scorer = load_bundle(source)
    golden, expected = read_golden(source, 3)
    assert np.abs(scorer.probabilities(golden) - expected).max() < 1e-6
    write_bundle(tmp_path / "again", scorer.ranker, scorer.config, golden)
    again = tmp_path / "again"
    assert (again / "weights.safetensors").read_bytes() == (
        source / "weights.safetensors"
    ).read_bytes()
    assert (again / "bundle.json").read_bytes() == (source / "bundle.json").read_bytes()
    assert sorted(p.name for p in again.iterdir()) == [
        "bundle.json",
        "golden.safetensors",
        "weights.safetensors",
    ]
    first = score(source, planted.snapshot, planted.folder, SPLIT_HOLDOUT)
    second = score(again, planted.snapshot, planted.folder, SPLIT_HOLDOUT)
    assert all((first[head] == second[head]).all() for head in first)


def test_scores_of_a_model_of_fewer_negatives_are_on_the_scale_of_all(planted, scorer) -> None:
    fewer = scorer.config.model_copy(update={"negative_keep_fraction": 0.25})
    batch = holdout_batch(planted, scorer)
    found, plain = Scorer(scorer.ranker, fewer).logits(batch), scorer.logits(batch)
    assert np.allclose(np.exp(found), 0.25 * np.exp(plain), rtol=1e-9)


def test_lineage_and_digest(planted, trained) -> None:
    spec, result = trained
    folder = Path(result.bundle_dir)
    written = json.loads((folder / "bundle.json").read_text())
    assert written["snapshot_digest"] == planted.snapshot.digest
    assert written["code_version"] == "test"
    assert written["seed"] == spec.config.training.seed
    # the stage and the registry compute the digest with their own function
    assert digest_of_files(digest_files(folder)) == result.bundle_digest


def test_golden_rows_span_short_and_long_histories(trained) -> None:
    golden, _ = read_golden(Path(trained[1].bundle_dir), 3)
    lengths = (golden.action_types_RS > 0).sum(dim=1)
    assert lengths.max() > lengths.min()
    assert len(golden.request_of_C) >= 8


@pytest.mark.parametrize("name", ["weights.safetensors", "bundle.json", "golden.safetensors"])
def test_a_missing_file_is_refused(bundle, name) -> None:
    (bundle / name).unlink()
    with pytest.raises(DataContractError, match=f"{name} is missing"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["weights.safetensors", "bundle.json", "golden.safetensors"])
def test_a_cut_off_file_is_refused(bundle, name) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataContractError, match=name):
        load_bundle(bundle)


def test_weights_that_are_not_finite_are_refused(bundle) -> None:
    weights = load_file(bundle / "weights.safetensors")
    weights["heads.weight"][0, 0] = float("nan")
    save_file(weights, bundle / "weights.safetensors")
    with pytest.raises(DataContractError, match=r"heads\.weight.*NaN"):
        load_bundle(bundle)


def test_weights_that_are_not_these_are_refused(bundle) -> None:
    weights = load_file(bundle / "weights.safetensors")
    weights["heads.bias"] += 0.5
    save_file(weights, bundle / "weights.safetensors")
    with pytest.raises(DataContractError, match="golden rows differ by"):
        load_bundle(bundle)
    del weights["heads.bias"]
    save_file(weights, bundle / "weights.safetensors")
    with pytest.raises(DataContractError, match="do not fit"):
        load_bundle(bundle)


def test_another_format_version_is_refused(bundle) -> None:
    config = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(config | {"format_version": 99}))
    with pytest.raises(DataContractError, match="format version 99"):
        load_bundle(bundle)


def test_a_snapshot_of_another_meaning_is_refused(planted, trained) -> None:
    features = planted.snapshot.features
    changed = {
        "embedding version": {"embedding_version": "planted-2"},
        "action types": {
            "features": features.model_copy(update={"action_types": ("hide", "repin")})
        },
        "categorical features": {
            "features": features.model_copy(
                update={"categorical": (CategoricalFeature(name="x", table="pins", values=("a",)),)}
            )
        },
    }
    for what, update in changed.items():
        other = planted.snapshot.model_copy(update=update)
        with pytest.raises(DataContractError, match=what):
            score(trained[1].bundle_dir, other, planted.folder, SPLIT_HOLDOUT)


def test_a_diverged_model_is_never_written(planted, trained, tmp_path) -> None:
    scorer = load_bundle(Path(trained[1].bundle_dir))
    golden, _ = read_golden(Path(trained[1].bundle_dir), 3)
    with torch.no_grad():
        scorer.ranker.heads.bias[0] = float("inf")
    with pytest.raises(DataContractError, match=r"heads\.bias"):
        write_bundle(tmp_path / "bad", scorer.ranker, scorer.config, golden)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("batch_size", [1, 37, 500])
def test_scores_do_not_depend_on_the_batch_size(planted, trained, batch_size) -> None:
    bundle_dir = trained[1].bundle_dir
    whole = score(bundle_dir, planted.snapshot, planted.folder, SPLIT_HOLDOUT, 10**6)
    parts = score(bundle_dir, planted.snapshot, planted.folder, SPLIT_HOLDOUT, batch_size)
    for head, probabilities in whole.items():
        assert np.abs(probabilities - parts[head]).max() < 1e-5


def test_scores_do_not_depend_on_the_order_of_candidates(planted, scorer) -> None:
    batch = holdout_batch(planted, scorer)
    order = torch.randperm(len(batch.request_of_C), generator=torch.Generator().manual_seed(0))
    shuffled = Batch(
        *(
            tensor[order] if "_C" in name else tensor
            for name, tensor in zip(Batch._fields, batch, strict=True)
        )
    )
    before = scorer.probabilities(batch)[order.numpy()]
    assert np.abs(scorer.probabilities(shuffled) - before).max() < 1e-5


def test_rows_and_scores_are_aligned(planted, trained, scorer) -> None:
    for split in (SPLIT_TRAINING, SPLIT_HOLDOUT):
        rows = load_rows(planted.snapshot, planted.folder, split)
        found = score(trained[1].bundle_dir, planted.snapshot, planted.folder, split)
        assert len(found["repin"]) == len(rows.request_index) == rows.first_example[-1]
        assert (np.diff(rows.first_example) == np.bincount(rows.request_index)).all()
    batch = holdout_batch(planted, scorer)
    assert batch.candidate_pin_keys_C.tolist() == rows.pin_row.tolist()
    assert batch.labels_CH[:, 0].tolist() == rows.labels["repin"].tolist()
    assert np.abs(scorer.probabilities(batch)[:, 0] - found["repin"]).max() < 1e-5


def test_ranking_score_by_hand(planted) -> None:
    repin, long_click, save = planted.config.features.heads
    heads = (repin, long_click.model_copy(update={"utility_weight": -2.0}), save)
    probabilities = {"repin": np.array([0.5, 0.1]), "long_click": np.array([0.2, 0.0])}
    assert ranking_score(probabilities, heads) == pytest.approx([0.1, 0.1])
    with pytest.raises(DataContractError, match="long_click"):
        ranking_score({"repin": np.array([0.5])}, heads)
    with pytest.raises(DataContractError, match="utility_weight 0"):
        ranking_score(probabilities, (save,))
