"""A real bundle of a model that was never trained, in milliseconds and a few kilobytes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.schemas import EMBEDDING_DIM, SPLIT_TRAINING
from pipelines.contracts.time import DAY_MS, Window
from pipelines.recipes import smoke
from training.bundle.calibration import Calibrator
from training.bundle.files import BundleConfig, load_bundle, read_golden, write_bundle
from training.data.batches import Batch, for_scoring
from training.data.reader import SnapshotReader
from training.model.ranker import Ranker

WIDTH = 4


def described(config: RunConfig, seed: int, **fields: Any) -> BundleConfig:
    """Return what a bundle of a recipe says of itself."""
    usual = {
        "embedding_version": config.snapshot.embedding_version,
        "negative_keep_fraction": 1.0,
        "calibrators": tuple(
            Calibrator(head=head, scale=1.0, shift=0.0) for head in config.features.head_names
        ),
        "code_version": "test",
        "code_digest": "c" * 64,
    }
    parts = {"features": config.features, "model": config.model, "snapshot": config.snapshot}
    return BundleConfig(**(usual | parts | fields), recipe=config.recipe_ref, seed=seed)


def write_small_bundle(
    folder: Path, seed: int, width: int = WIDTH, embedding_version: str = "small-1"
) -> Path:
    """Write a bundle whose golden rows are two requests; another seed gives other weights."""
    torch.manual_seed(seed)
    config, end = smoke(), datetime(2017, 6, 5, tzinfo=UTC)
    ranker = Ranker(config.features, config.model, width).eval()
    bundle = described(
        config,
        seed,
        embedding_version=embedding_version,
        embedding_dim=width,
        as_of=end + timedelta(days=7),
        training=Window(start=end - timedelta(days=14), end=end),
        snapshot_digest="s" * 64,
    )
    num_categorical, inputs = len(config.features.categorical), config.features.numeric_inputs
    write_bundle(folder, ranker, bundle, _golden(num_categorical, len(inputs), width))
    return folder


def write_with_config(source: Path, folder: Path, config: BundleConfig) -> Path:
    """Write a bundle of the same weights that says something else of itself."""
    predictor = load_bundle(source)
    golden, _ = read_golden(source, len(config.features.heads))
    write_bundle(folder, predictor.ranker, config, golden)
    return folder


def _golden(num_categorical: int, num_numeric: int, width: int) -> Batch:
    return for_scoring(
        {
            "action_types_RS": torch.tensor([[1, 2], [1, 0]]),
            "action_pin_keys_RS": torch.tensor([[7, 8], [9, -1]]),
            "action_pins_RSE": torch.randn(2, 2, width),
            "action_ages_ms_RS": torch.tensor([[1, 2], [3, 0]]) * DAY_MS,
            "users_RE": torch.randn(2, width),
            "request_of_C": torch.tensor([0, 0, 1]),
            "candidate_pin_keys_C": torch.tensor([7, 5, 6]),
            "candidate_pins_CE": torch.randn(3, width),
            "categorical_CG": torch.zeros(3, num_categorical, dtype=torch.int64),
            "numeric_CN": torch.zeros(3, num_numeric),
        },
        num_heads=1,
    )


def chance_bundle(folder: Path, snapshot: Snapshot, config: RunConfig, seed: int) -> Path:
    """Write a bundle of an untrained model of a recipe, and return its folder."""
    torch.manual_seed(seed)
    ranker = Ranker(config.features, config.model, EMBEDDING_DIM)
    place, longest = storage.local_path(snapshot.uri), config.model.max_actions
    reader = SnapshotReader(snapshot.shards, place, config.features, longest)
    golden = reader.make_batch(reader.index(SPLIT_TRAINING).take(np.arange(2)))
    bundle = described(
        config,
        seed,
        embedding_dim=EMBEDDING_DIM,
        as_of=snapshot.as_of,
        training=snapshot.training,
        snapshot_digest=snapshot.digest,
        calibrators=tuple(
            Calibrator(head=head, scale=1.0, shift=-1.5) for head in config.features.head_names
        ),
    )
    write_bundle(folder, ranker, bundle, golden)
    return folder
