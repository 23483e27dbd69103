"""FuxiCTR as a peer: installed in a folder of its own, handed the same rows, run as a process.

The library is pinned, comes from PyPI and is used by benchmarks alone. It runs on the same torch as
ours, so that no other build is measured.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from sample import HOME

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.schemas import EMBEDDING_DIM, SPLIT_HOLDOUT, SPLIT_TRAINING
from training.data.data_module import HomefeedDataModule
from training.data.reader import SnapshotReader

VERSION = "2.3.10"
# what its model files import and this project has not; it never starts Ray
PACKAGES = (
    f"fuxictr=={VERSION}",
    "ray==2.52.1",
    "msgpack==1.1.2",
    "polars==1.31.0",
    "h5py==3.14.0",
)
FOLDER = HOME / f"fuxictr-{VERSION}"
WORKER = Path(__file__).with_name("fuxictr_worker.py")


def install() -> None:
    """Install the library beside the project's environment, the first time."""
    if (FOLDER / "ready").exists():
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
    subprocess.run([*command, "--target", str(FOLDER), *PACKAGES], check=True)
    (FOLDER / "ready").touch()


def export(snapshot: Snapshot, snapshot_dir: Path, config: RunConfig, out: Path) -> None:
    """Write the rows of both splits, scaled as the ranker scales them, and the recipe's sizes."""
    reader = SnapshotReader(snapshot, snapshot_dir, config.features, config.model.max_actions)
    statistics = HomefeedDataModule(snapshot, snapshot_dir, config).statistics()
    for name, split in (("training", SPLIT_TRAINING), ("holdout", SPLIT_HOLDOUT)):
        batch = reader.make_batch(reader.index(split))
        numeric = (batch.numeric_CN.numpy() - statistics.numeric_mean_N) / (
            statistics.numeric_scale_N
        )
        np.savez(
            out / f"{name}.npz",
            action_types_RS=batch.action_types_RS.numpy().astype(np.int16),
            action_pins_RSE=batch.action_pins_RSE.numpy() * np.float32(statistics.pin_scale),
            candidate_pins_CE=batch.candidate_pins_CE.numpy() * np.float32(statistics.pin_scale),
            users_RE=batch.users_RE.numpy() * np.float32(statistics.user_scale),
            numeric_CN=numeric.astype(np.float32),
            categorical_CG=batch.categorical_CG.numpy(),
            request_of_C=batch.request_of_C.numpy(),
            labels_C=batch.labels_CH.numpy()[:, 0],
        )
    model, training, features = config.model, config.training, config.features
    options = model.model_dump() | {
        "num_epochs": training.num_epochs,
        "batch_size": training.batch_size,
        "warmup_steps": training.warmup_steps,
        "gradient_clip": training.gradient_clip,
        "embedding_dim": EMBEDDING_DIM,
        "num_numeric": len(features.numeric_inputs),
        "vocabularies": [len(f.values) + 1 for f in features.categorical],
        "num_action_types": len(features.action_types),
    }
    (out / "options.json").write_text(json.dumps(options))


def train_and_score(folder: Path, model: str, learning_rate: float, seed: int) -> np.ndarray:
    """Return the holdout's scores of one of the library's models, float64 (N,)."""
    environment = os.environ | {"PYTHONPATH": str(FOLDER)}
    command = [sys.executable, str(WORKER), str(folder), model, str(learning_rate), str(seed)]
    subprocess.run(command, env=environment, check=True)
    return np.load(folder / f"scores-{model}-{seed}.npy")
