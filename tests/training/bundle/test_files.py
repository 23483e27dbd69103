"""The bundle's files: round trip, same bytes, and the refusal of whatever is wrong with them."""

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.files import digest_files, digest_of_files
from pipelines.contracts.schemas import SPLIT_HOLDOUT
from support.disk import events_on_disk
from training.bundle.files import (
    Predictor,
    as_written_beside,
    load_bundle,
    read_golden,
    write_bundle,
)
from training.bundle.score_split import score_split
from training.data.batches import CANDIDATE, VARYING_AXES, for_scoring


@pytest.fixture
def bundle(trained, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained[1].bundle_dir, tmp_path / "bundle"))


def test_round_trip(planted, trained, tmp_path) -> None:
    source = Path(trained[1].bundle_dir)
    predictor = load_bundle(source)
    golden, expected = read_golden(source, 3)
    assert np.abs(predictor.probabilities(golden) - expected).max() < 1e-6
    write_bundle(tmp_path / "again", predictor.ranker, predictor.config, golden)
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
    rows = (planted.snapshot, planted.folder, SPLIT_HOLDOUT)
    first, second = (score_split(folder, *rows).probabilities for folder in (source, again))
    assert all((first[head] == second[head]).all() for head in first)


def test_a_bundle_is_on_the_disk_before_it_has_its_name(trained, tmp_path, monkeypatch) -> None:
    """What is written afterwards, and says that the bundle is there, must not outlive it."""
    source = Path(trained[1].bundle_dir)
    predictor = load_bundle(source)
    golden, _ = read_golden(source, 3)
    disk = events_on_disk(monkeypatch)
    write_bundle(tmp_path / "bundle", predictor.ranker, predictor.config, golden)
    *before, folder, name, parent = disk
    names = ("bundle.json", "golden.safetensors", "weights.safetensors")
    assert sorted(before) == [f"sync {name}" for name in names]
    assert (folder, name, parent) == (
        "sync bundle.partial",
        "name bundle",
        f"sync {tmp_path.name}",
    )


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
    assert lengths.shape == (8,)
    assert golden.request_of_C.bincount().tolist() == [4] * 8


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


def _reorder_heads(config: dict) -> None:
    """Two heads of one kind change places, so that every shape still fits."""
    config["features"]["heads"].reverse()


def _swap_words(config: dict) -> None:
    config["features"]["action_types"].reverse()


def _turn_the_utility(config: dict) -> None:
    config["features"]["heads"][0]["utility_weight"] *= -50.0


def _turn_the_calibration(config: dict) -> None:
    """Within the tolerance of the golden rows, a promise of their probabilities is not broken."""
    config["calibrators"][0]["shift"] += 1e-6


@pytest.mark.parametrize(
    "alter", [_reorder_heads, _swap_words, _turn_the_utility, _turn_the_calibration]
)
def test_a_configuration_of_another_meaning_is_refused(bundle, alter) -> None:
    config = json.loads((bundle / "bundle.json").read_text())
    alter(config)
    (bundle / "bundle.json").write_text(json.dumps(config, indent=2))
    with pytest.raises(DataContractError, match="was written beside .*; expected the same"):
        load_bundle(bundle)


def test_what_the_golden_file_would_be_beside_another_text(bundle) -> None:
    text = (bundle / "bundle.json").read_bytes()
    assert as_written_beside(bundle, text) == (bundle / "golden.safetensors").read_bytes()
    changed = as_written_beside(bundle, text + b"\n")
    assert changed != (bundle / "golden.safetensors").read_bytes()
    (bundle / "golden.safetensors").write_bytes(changed)
    (bundle / "bundle.json").write_bytes(text + b"\n")
    load_bundle(bundle)


def test_another_schema_version_is_refused(bundle) -> None:
    written = (bundle / "bundle.json").read_bytes()
    changed = written.replace(b'"schema_version": 1', b'"schema_version": 99')
    (bundle / "bundle.json").write_bytes(changed)
    with pytest.raises(DataContractError, match="schema_version is 99, expected 1"):
        load_bundle(bundle)


def test_a_diverged_model_is_never_written(planted, trained, tmp_path) -> None:
    predictor = load_bundle(Path(trained[1].bundle_dir))
    golden, _ = read_golden(Path(trained[1].bundle_dir), 3)
    with torch.no_grad():
        predictor.ranker.heads.bias[0] = float("inf")
    with pytest.raises(DataContractError, match=r"heads\.bias"):
        write_bundle(tmp_path / "bad", predictor.ranker, predictor.config, golden)
    assert not (tmp_path / "bad").exists()


@contextlib.contextmanager
def as_another_user() -> Iterator[None]:
    """Go without the rights of root, which reads everything; others stay who they are."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_whom_the_umask_admits_reads_the_whole_bundle(
    trained, open_folder, umask, expected
) -> None:
    predictor = load_bundle(Path(trained[1].bundle_dir))
    golden, _ = read_golden(Path(trained[1].bundle_dir), len(predictor.config.features.heads))
    before = os.umask(umask)
    try:
        write_bundle(open_folder / "bundle", predictor.ranker, predictor.config, golden)
    finally:
        os.umask(before)
    files = list((open_folder / "bundle").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {expected}
    if umask == 0o022:
        with as_another_user():
            assert load_bundle(open_folder / "bundle").config == predictor.config


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors", "golden.safetensors", ""])
def test_a_user_who_may_not_read_a_bundle_is_told_so(trained, open_folder, name) -> None:
    folder = shutil.copytree(trained[1].bundle_dir, open_folder / "bundle")
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)
    (folder / name).chmod(0)
    says = rf"user \d+ may not read {name or 'bundle.json'}; .*chmod -R a\+rX"
    with as_another_user(), pytest.raises(ConfigurationError, match=says):
        load_bundle(folder)
    folder.chmod(0o755)


def test_scores_of_a_model_of_fewer_negatives_are_on_the_scale_of_all(
    holdout_batch, predictor
) -> None:
    fewer = predictor.config.model_copy(update={"negative_keep_fraction": 0.25})
    found, plain = (
        Predictor(predictor.ranker, fewer).logits(holdout_batch),
        predictor.logits(holdout_batch),
    )
    assert np.allclose(np.exp(found), 0.25 * np.exp(plain), rtol=1e-9)


def test_scores_do_not_depend_on_the_order_of_candidates(holdout_batch, predictor) -> None:
    order = torch.randperm(
        len(holdout_batch.request_of_C), generator=torch.Generator().manual_seed(0)
    )
    inputs = {name: getattr(holdout_batch, name) for name in VARYING_AXES}
    shuffled = {
        name: tensor[order] if VARYING_AXES[name] == (CANDIDATE,) else tensor
        for name, tensor in inputs.items()
    }
    found = predictor.probabilities(for_scoring(shuffled, holdout_batch.labels_CH.shape[1]))
    before = predictor.probabilities(holdout_batch)[order.numpy()]
    assert np.abs(found - before).max() < 1e-5
