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

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import AwareDatetime, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor
from torch.utils._pytree import tree_map_only

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
        """Return float64 [C, H]: logits on the scale of all impressions, not calibrated.

        The batch is on the host; a model that is on a GPU gets it there, with its plan.
        """
        device = self.ranker.heads.weight.device
        with torch.inference_mode():
            planned: tuple[Any, ...] = batch, visible_actions(batch, time_window_mask_hours=0)
            if device.type != "cpu":
                planned = *planned, self.ranker.plan(*planned)
                planned = tree_map_only(Tensor, lambda tensor: tensor.to(device), planned)
            logits_CH = self.ranker(*planned).double().cpu().numpy()
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
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise DataContractError(
            f"the trained model: weights {broken[:5]} hold NaN or infinity, expected finite "
            f"numbers; nothing was written; lower training.learning_rate and train anew"
        )
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


def load_bundle(folder: Path, device: str = "cpu") -> Predictor:
    """Return a bundle's predictor on a device, after it has reproduced its own golden rows there.

    Raises:
        DataContractError: a file is missing or damaged, the weights do not fit the configuration,
            the golden rows come out differently, or a file is not the one that was written with the
            others.
    """
    config = read_config(folder)
    inputs, expected_CH = read_golden(folder, len(config.features.heads))
    predictor = Predictor(Ranker(config.features, config.model, config.embedding_dim), config)
    with _reading(folder):
        predictor.ranker.load_state_dict(load((folder / WEIGHTS).read_bytes()))
    predictor.ranker.to(device)
    found_CH = predictor.probabilities(inputs)
    with _reading(folder):
        difference = float(np.abs(found_CH - expected_CH).max(initial=0.0))
        if not difference <= GOLDEN_TOLERANCE:
            raise ValueError(
                f"golden rows differ by {difference:.2e}, expected at most {GOLDEN_TOLERANCE:.0e}"
            )
        with safe_open(folder / GOLDEN, framework="pt") as golden:
            noted = (golden.metadata() or {}).get(_OTHERS, "none")
        found = digest_of([sha256_of(folder / WEIGHTS), sha256_of(folder / CONFIG)])
        if found != noted:
            raise ValueError(
                f"{WEIGHTS} and {CONFIG} have digest {found[:12]}, and {GOLDEN} was written beside "
                f"{noted[:12]}"
            )
    return predictor


def read_golden(folder: Path, num_heads: int) -> tuple[Batch, np.ndarray]:
    """Return the golden rows and their probabilities, float64 [C, H].

    Raises:
        DataContractError: the file is missing or damaged.
    """
    with _reading(folder):
        tensors = load((folder / GOLDEN).read_bytes())
        return for_scoring(tensors, num_heads), tensors[_EXPECTED].numpy()


def read_config(folder: Path) -> BundleConfig:
    """Return what a bundle says of itself, without its weights.

    Raises:
        DataContractError: bundle.json is missing, damaged or of another schema version.
    """
    with _reading(folder):
        return BundleConfig.from_record((folder / CONFIG).read_bytes())


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Name the bundle of which a file is missing, damaged or not as written with the others."""
    try:
        yield
    except (FileNotFoundError, KeyError, RuntimeError, SafetensorError, ValueError) as error:
        raise DataContractError(
            f"bundle {folder}: {type(error).__name__}: {error}; expected {WEIGHTS}, {CONFIG} and "
            f"{GOLDEN} as they were written together; fetch the bundle again, or train anew if "
            f"another version of this project or of its libraries wrote it"
        ) from error
