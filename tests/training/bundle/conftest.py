"""Shared by the bundle's tests: the holdout as one batch."""

import pytest

from pipelines.contracts.schemas import SPLIT_HOLDOUT
from training.bundle.files import Predictor
from training.data.batches import Batch
from training.data.reader import SnapshotReader


@pytest.fixture
def holdout_batch(planted, predictor: Predictor) -> Batch:
    config = predictor.config
    reader = SnapshotReader(
        planted.snapshot.shards, planted.folder, config.features, config.model.max_actions
    )
    return reader.make_batch(reader.index(SPLIT_HOLDOUT))
