"""The bundle's files: round trip, same bytes, and the refusal of whatever is wrong with them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import digest_files, digest_of_files
from support.bundles import write_with_config
from support.damage import sealed
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

FILES = (CONFIG, GOLDEN, WEIGHTS)


@pytest.fixture
def bundle(trained, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained[1].bundle_dir, tmp_path / "bundle"))


@pytest.mark.slow
def test_what_is_written_again_is_the_same(planted, trained, predictor, tmp_path) -> None:
    spec, result = trained
    source = Path(result.bundle_dir)
    again = write_with_config(source, tmp_path / "again", predictor.config)
    assert sorted(path.name for path in again.iterdir()) == sorted(FILES)
    # the stage and the registry compute the digest with their own function
    assert digest_of_files(digest_files(source)) == result.bundle_digest
    for name in (WEIGHTS, CONFIG):
        assert (again / name).read_bytes() == (source / name).read_bytes()
    written = json.loads((again / CONFIG).read_text())
    lineage = [written[name] for name in ("snapshot_digest", "code_version", "seed")]
    assert lineage == [planted.snapshot.digest, "test", spec.config.training.seed]
    # whom the umask admits to one file reads them all
    assert len({path.stat().st_mode for path in again.iterdir()}) == 1


def test_golden_rows_span_short_and_long_histories(trained, predictor) -> None:
    golden, expected = read_golden(Path(trained[1].bundle_dir), 3)
    assert np.abs(predictor.probabilities(golden) - expected).max() < 1e-6
    lengths = (golden.action_types_RS > 0).sum(dim=1)
    assert lengths.max() > lengths.min()
    assert golden.request_of_C.bincount().tolist() == [4] * 8


def test_a_bundle_is_on_the_disk_before_it_has_its_name(
    bundle, predictor, tmp_path, monkeypatch
) -> None:
    """What is written afterwards, and says that the bundle is there, must not outlive it."""
    disk = events_on_disk(monkeypatch)
    write_with_config(bundle, tmp_path / "again", predictor.config)
    *before, folder, name, parent = disk
    assert sorted(before) == [f"sync {name}" for name in sorted(FILES)]
    assert (folder, name) == ("sync again.partial", "name again")
    assert parent == f"sync {tmp_path.name}"


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def altered(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Return what changes the content of a bundle's file, which can be read as before."""

    def alter(bundle: Path) -> None:
        path = bundle / name
        content = json.loads(path.read_text()) if name == CONFIG else load_file(path)
        change(content)
        if name == CONFIG:
            path.write_bytes(sealed(content))
        else:
            save_file(content, path)

    return alter


OTHERS = "was written beside "
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    **{f"no {n}": (lambda at, n=n: (at / n).unlink(), f"No such file.*{n}") for n in FILES},
    **{f"half {n}": (lambda at, n=n: cut_off(at / n), "Error: ") for n in FILES},
    "NaN": (altered(WEIGHTS, lambda found: found["heads.weight"].fill_(np.nan)), "differ by nan"),
    "moved": (altered(WEIGHTS, lambda found: found["heads.bias"].add_(0.5)), "golden rows differ"),
    "lacking": (altered(WEIGHTS, lambda found: found.pop("heads.bias")), "Missing key"),
    # two heads of one kind change places, so that every shape still fits
    "heads": (altered(CONFIG, lambda found: found["features"]["heads"].reverse()), OTHERS),
    "words": (altered(CONFIG, lambda found: found["features"]["action_types"].reverse()), OTHERS),
    "utility": (
        altered(CONFIG, lambda found: found["features"]["heads"][0].update(utility_weight=-50.0)),
        OTHERS,
    ),
    # within the tolerance of the golden rows
    "calibration": (
        altered(CONFIG, lambda found: found["calibrators"][0].update(drift=1e-6)),
        OTHERS,
    ),
    "version": (
        altered(CONFIG, lambda found: found.update(schema_version=99)),
        "schema_version is 99, expected 2",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bundle_that_is_not_what_was_written_is_refused(bundle, damage) -> None:
    harm, says = DAMAGES[damage]
    harm(bundle)
    with pytest.raises(DataContractError, match=f"(?s){says}") as caught:
        load_bundle(bundle)
    assert "fetch the bundle again" in str(caught.value)


def test_a_diverged_model_is_never_written(predictor, holdout_batch, tmp_path) -> None:
    with torch.no_grad():
        predictor.ranker.heads.bias[0] = float("inf")
    with pytest.raises(DataContractError, match=r"heads\.bias"):
        write_bundle(tmp_path / "bad", predictor.ranker, predictor.config, holdout_batch)
    assert not (tmp_path / "bad").exists()


def test_scores_of_a_model_of_fewer_negatives_are_on_the_scale_of_all(
    holdout_batch, predictor
) -> None:
    fewer = predictor.config.model_copy(update={"negative_keep_fraction": 0.25})
    found = Predictor(predictor.ranker, fewer).logits(holdout_batch)
    plain = predictor.logits(holdout_batch)
    assert np.allclose(np.exp(found), 0.25 * np.exp(plain), rtol=1e-9)
