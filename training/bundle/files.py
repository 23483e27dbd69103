"""A bundle: its files, what they say of themselves, and the predictor that they become.

They are written once after training, and refused if anything about them is wrong.

    weights.safetensors   the ranker's parameters and scales
    bundle.json           BundleConfig: features, model, calibrators, lineage
    golden.safetensors    the golden rows: a batch's inputs and the probabilities they must give

No file is a pickle, and the same weights give the same bytes. The golden rows' file names the
digest of the other two, so that a bundle.json with other heads, words or utility weights is refused
though it fits the tensors. Not for MLflow (`training.bundle.mlflow_model`), nor for whole splits
(`training.bundle.score_split`).

Letters: C candidates, H heads.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from pydantic import AwareDatetime, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from pipelines.contracts.base import Frozen, digest_of, sha256_of
from pipelines.contracts.config import FeatureConfig, ModelConfig, RecipeRef, SnapshotConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.time import Window
from training.bundle.calibration import Calibrator, apply_calibrator, correct_downsampling
from training.data.batches import MODEL_INPUTS, Batch, for_scoring, visible_actions
from training.model.ranker import Ranker

WEIGHTS, CONFIG, GOLDEN = "weights.safetensors", "bundle.json", "golden.safetensors"
GOLDEN_TOLERANCE = 1e-4
"""Largest difference of a probability that loading allows: machines' kernels round differently."""
_EXPECTED = "expected_probabilities_CH"
_OTHERS = "weights_and_config_sha256"
"""The only key of the golden file's metadata: of several, the order in the file would be random."""


class BundleConfig(Frozen):
    """What scoring needs besides the weights, and where both come from."""

    features: FeatureConfig
    model: ModelConfig
    embedding_version: str  # The only basis whose embeddings it understands.
    embedding_dim: int = Field(ge=1)
    negative_keep_fraction: float = Field(gt=0, le=1)  # As in training.
    calibrators: tuple[Calibrator, ...]  # One per head, in order.
    as_of: AwareDatetime  # Of the cycle that trained it (UTC).
    training: Window  # Whose rows trained and calibrated it.
    snapshot: SnapshotConfig  # How its features are computed.
    snapshot_digest: str
    code_version: str  # Commit or version of the project that trained it.
    code_digest: str  # Digest of the code that trained it.
    recipe: RecipeRef  # Which recipe trained it.
    seed: int


class Predictor:
    """A model in evaluation mode, without gradients, and what brings its logits to probabilities.

    Args:
        ranker: The model, on any device.
        config: The bundle's configuration.
    """

    def __init__(self, ranker: Ranker, config: BundleConfig) -> None:
        self.ranker = ranker.eval()
        self.config = config

    def logits(self, batch: Batch) -> np.ndarray:
        """Return float64 [C, H]: logits on the scale of all impressions, not calibrated."""
        with torch.inference_mode():
            is_visible_RS = visible_actions(batch, time_window_mask_hours=0)
            logits_CH = self.ranker(batch, is_visible_RS).double().cpu().numpy()
        return correct_downsampling(logits_CH, self.config.negative_keep_fraction)

    def calibrate(self, logits_CH: np.ndarray) -> np.ndarray:
        """Return float64 [C, H] in (0, 1): probabilities, heads in the order of the features."""
        columns = [
            apply_calibrator(calibrator, logits_CH[:, h])
            for h, calibrator in enumerate(self.config.calibrators)
        ]
        return np.stack(columns, axis=1)

    def probabilities(self, batch: Batch) -> np.ndarray:
        """Return float64 [C, H] in (0, 1): the calibrated probabilities of a batch."""
        return self.calibrate(self.logits(batch))


def write_bundle(folder: Path, ranker: Ranker, config: BundleConfig, golden: Batch) -> None:
    """Write a bundle; the folder appears as a whole, replacing one that is there.

    When this returns, files and name have survived a loss of power.

    Args:
        folder: Where the bundle shall be.
        ranker: The trained model, on any device.
        config: Its configuration.
        golden: Rows whose probabilities are kept beside the weights.

    Raises:
        DataContractError: a weight is not finite.
    """
    # Only who writes needs this module: a serving machine may lack the packages that it imports.
    from pipelines.contracts.files import sync_folder, sync_tree

    ranker = ranker.cpu()
    weights = {name: tensor.contiguous() for name, tensor in ranker.state_dict().items()}
    _check_finite(weights, "the trained model")
    expected_CH = torch.from_numpy(Predictor(ranker, config).probabilities(golden))
    inputs = {name: getattr(golden, name).contiguous() for name in MODEL_INPUTS}
    scratch = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    (scratch / WEIGHTS).write_bytes(save(weights))
    (scratch / CONFIG).write_bytes(config.to_record())
    others = digest_of([sha256_of(scratch / WEIGHTS), sha256_of(scratch / CONFIG)])
    tensors = inputs | {_EXPECTED: expected_CH}
    (scratch / GOLDEN).write_bytes(save(tensors, metadata={_OTHERS: others}))
    sync_tree(scratch)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    sync_folder(folder.parent)


def load_bundle(folder: Path) -> Predictor:
    """Return a bundle's predictor, after it has reproduced its own golden rows.

    Raises:
        DataContractError: a file is missing or damaged, a weight is not finite, the weights do not
            fit the configuration, the golden rows come out differently, or a file is not the one
            that was written with the others.
    """
    config = read_config(folder)
    weights = _read_tensors(folder, WEIGHTS)
    _check_finite(weights, f"bundle {folder}")
    ranker = Ranker(config.features, config.model, config.embedding_dim)
    try:
        ranker.load_state_dict(weights)
    except RuntimeError as error:
        raise _damaged(
            folder,
            f"the weights do not fit {CONFIG}: {error}; the files come from two bundles or another "
            f"version of this project",
        ) from error
    predictor = Predictor(ranker, config)
    inputs, expected_CH = read_golden(folder, len(config.features.heads))
    difference = float(np.abs(predictor.probabilities(inputs) - expected_CH).max(initial=0.0))
    if not difference <= GOLDEN_TOLERANCE:
        raise _damaged(
            folder,
            f"golden rows differ by {difference:.2e}, expected at most {GOLDEN_TOLERANCE:.0e}; "
            f"weights, code or libraries are not those that were trained",
        )
    with safe_open(folder / GOLDEN, framework="pt") as golden:
        noted = (golden.metadata() or {}).get(_OTHERS) or "none"
    found = digest_of([sha256_of(folder / WEIGHTS), sha256_of(folder / CONFIG)])
    if found != noted:
        raise _damaged(
            folder,
            f"{WEIGHTS} and {CONFIG} have digest {found[:12]}, and {GOLDEN} was written beside "
            f"{noted[:12]}; expected the same: one of them was altered or is of another bundle",
        )
    return predictor


def read_golden(folder: Path, num_heads: int) -> tuple[Batch, np.ndarray]:
    """Return the golden rows and their probabilities, float64 [C, H].

    Raises:
        DataContractError: the file is missing or damaged.
    """
    tensors = _read_tensors(folder, GOLDEN)
    missing = [name for name in (*MODEL_INPUTS, _EXPECTED) if name not in tensors]
    if missing:
        expected = "expected every model input and the probabilities"
        raise _damaged(folder, f"{GOLDEN} lacks {missing}; {expected}")
    return for_scoring(tensors, num_heads), tensors[_EXPECTED].numpy()


def read_config(folder: Path) -> BundleConfig:
    """Return what a bundle says of itself, without its weights.

    Raises:
        DataContractError: bundle.json is missing, damaged or of another schema version.
    """
    try:
        return BundleConfig.from_record(_read(folder, CONFIG))
    except ValidationError as error:
        raise _damaged(folder, f"{CONFIG} is not a bundle's configuration: {error}") from error


def _read_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    try:
        return load(_read(folder, name))
    except SafetensorError as error:
        raise _damaged(folder, f"{name} cannot be read ({error})") from error


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError as error:
        there = f"expected {WEIGHTS}, {CONFIG} and {GOLDEN}"
        raise _damaged(folder, f"{name} is missing; {there}") from error


def _damaged(folder: Path, found: str) -> DataContractError:
    return DataContractError(
        f"bundle {folder}: {found}; fetch the bundle again, or train anew if another version of "
        f"this project or of its libraries wrote it"
    )


def _check_finite(weights: dict[str, torch.Tensor], whose: str) -> None:
    broken = sorted(name for name, tensor in weights.items() if not torch.isfinite(tensor).all())
    if broken:
        raise DataContractError(
            f"{whose}: weights {broken[:5]} hold NaN or infinity, expected finite numbers; do not "
            f"serve it; fetch the bundle again or train anew"
        )
