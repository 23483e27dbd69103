"""The bundle's files: round trip, same bytes, and the refusal of whatever is wrong with them."""

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.contracts.files import digest_files, digest_of_files
from support.disk import events_on_disk
from training.bundle.files import (
    CONFIG,
    GOLDEN,
    WEIGHTS,
    Predictor,
    load_bundle,
    read_golden,
    write_bundle,
)
from training.data.batches import CANDIDATE, VARYING_AXES, for_scoring

FILES = (CONFIG, GOLDEN, WEIGHTS)
Write = Callable[[Path], Path]


@pytest.fixture
def bundle(trained, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained[1].bundle_dir, tmp_path / "bundle"))


@pytest.fixture
def write(trained, predictor) -> Write:
    """Write the trained bundle's model again, somewhere else."""

    def written(folder: Path) -> Path:
        golden, _ = read_golden(Path(trained[1].bundle_dir), 3)
        write_bundle(folder, predictor.ranker, predictor.config, golden)
        return folder

    return written


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_what_is_written_again_is_the_same(planted, trained, predictor, write, tmp_path) -> None:
    spec, result = trained
    source, again = Path(result.bundle_dir), write(tmp_path / "again")
    assert sorted(path.name for path in again.iterdir()) == sorted(FILES)
    # the stage and the registry compute the digest with their own function
    assert digest_of_files(digest_files(source)) == result.bundle_digest
    for name in (WEIGHTS, CONFIG):
        assert (again / name).read_bytes() == (source / name).read_bytes()
    written = json.loads((again / CONFIG).read_text())
    lineage = [written[name] for name in ("snapshot_digest", "code_version", "seed")]
    assert lineage == [planted.snapshot.digest, "test", spec.config.training.seed]


def test_golden_rows_span_short_and_long_histories(trained, predictor) -> None:
    golden, expected = read_golden(Path(trained[1].bundle_dir), 3)
    assert np.abs(predictor.probabilities(golden) - expected).max() < 1e-6
    lengths = (golden.action_types_RS > 0).sum(dim=1)
    assert lengths.max() > lengths.min()
    assert golden.request_of_C.bincount().tolist() == [4] * 8


def test_a_bundle_is_on_the_disk_before_it_has_its_name(write, tmp_path, monkeypatch) -> None:
    """What is written afterwards, and says that the bundle is there, must not outlive it."""
    disk = events_on_disk(monkeypatch)
    write(tmp_path / "bundle")
    *before, folder, name, parent = disk
    assert sorted(before) == [f"sync {name}" for name in sorted(FILES)]
    assert (folder, name) == ("sync bundle.partial", "name bundle")
    assert parent == f"sync {tmp_path.name}"


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("damage", "says"), [(Path.unlink, "{} is missing"), (cut_off, "{}")])
def test_a_damaged_file_is_refused(bundle, name, damage, says) -> None:
    damage(bundle / name)
    with pytest.raises(DataContractError, match=f"(?s){says.format(name)}.*fetch the bundle again"):
        load_bundle(bundle)


def not_finite(weights: dict[str, torch.Tensor]) -> None:
    weights["heads.weight"][0, 0] = float("nan")


def moved(weights: dict[str, torch.Tensor]) -> None:
    weights["heads.bias"] += 0.5


def lacking(weights: dict[str, torch.Tensor]) -> None:
    del weights["heads.bias"]


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (not_finite, r"heads\.weight.*NaN"),
        (moved, "golden rows differ by"),
        (lacking, "do not fit"),
    ],
)
def test_weights_that_are_not_these_are_refused(bundle, alter, says) -> None:
    weights = load_file(bundle / WEIGHTS)
    alter(weights)
    save_file(weights, bundle / WEIGHTS)
    with pytest.raises(DataContractError, match=says):
        load_bundle(bundle)


def reorder_heads(config: dict[str, Any]) -> None:
    """Two heads of one kind change places, so that every shape still fits."""
    config["features"]["heads"].reverse()


def swap_words(config: dict[str, Any]) -> None:
    config["features"]["action_types"].reverse()


def turn_the_utility(config: dict[str, Any]) -> None:
    config["features"]["heads"][0]["utility_weight"] *= -50.0


def turn_the_calibration(config: dict[str, Any]) -> None:
    """Within the tolerance of the golden rows, a promise of their probabilities is not broken."""
    config["calibrators"][0]["shift"] += 1e-6


def change_the_version(config: dict[str, Any]) -> None:
    config["schema_version"] = 99


@pytest.mark.parametrize(
    "alter", [reorder_heads, swap_words, turn_the_utility, turn_the_calibration, change_the_version]
)
def test_a_configuration_of_another_meaning_is_refused(bundle, alter) -> None:
    config = json.loads((bundle / CONFIG).read_text())
    alter(config)
    (bundle / CONFIG).write_text(json.dumps(config, indent=2))
    says = "was written beside .*; expected the same"
    if alter is change_the_version:
        says = "schema_version is 99, expected 1"
    with pytest.raises(DataContractError, match=says):
        load_bundle(bundle)


def test_a_diverged_model_is_never_written(predictor, write, tmp_path) -> None:
    with torch.no_grad():
        predictor.ranker.heads.bias[0] = float("inf")
    with pytest.raises(DataContractError, match=r"heads\.bias"):
        write(tmp_path / "bad")
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


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_whom_the_umask_admits_reads_the_whole_bundle(
    predictor, write, open_folder, umask, expected
) -> None:
    before = os.umask(umask)
    try:
        folder = write(open_folder / "bundle")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {expected}
    if umask == 0o022:
        with as_another_user():
            assert load_bundle(folder).config == predictor.config


@pytest.mark.parametrize("name", [*FILES, ""])
def test_a_user_who_may_not_read_a_bundle_is_told_so(write, open_folder, name) -> None:
    folder = write(open_folder / "bundle")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    (folder / name).chmod(0)
    says = rf"user \d+ may not read {name or CONFIG}; .*chmod -R a\+rX"
    with as_another_user(), pytest.raises(ConfigurationError, match=says):
        load_bundle(folder)
    folder.chmod(0o755)


def test_scores_of_a_model_of_fewer_negatives_are_on_the_scale_of_all(
    holdout_batch, predictor
) -> None:
    fewer = predictor.config.model_copy(update={"negative_keep_fraction": 0.25})
    found = Predictor(predictor.ranker, fewer).logits(holdout_batch)
    plain = predictor.logits(holdout_batch)
    assert np.allclose(np.exp(found), 0.25 * np.exp(plain), rtol=1e-9)


def test_scores_do_not_depend_on_the_order_of_candidates(holdout_batch, predictor) -> None:
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(holdout_batch.request_of_C)))
    shuffled = {
        name: getattr(holdout_batch, name)[order if axes == (CANDIDATE,) else slice(None)]
        for name, axes in VARYING_AXES.items()
    }
    found = predictor.probabilities(for_scoring(shuffled, holdout_batch.labels_CH.shape[1]))
    before = predictor.probabilities(holdout_batch)[order.numpy()]
    assert np.abs(found - before).max() < 1e-5
