"""Feeds the trainer: the epochs' batches for one rank, from any step on.

Not for what is in a batch (`training.data.batches`) nor for its making (`training.data.reader`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.schemas import SPLIT_TRAINING, categorical_column
from training.data.batches import Batch, FeatureStatistics
from training.data.epoch_plan import EpochPlanner, RankShare, split_off_calibration
from training.data.input_checks import check_features
from training.data.reader import SnapshotReader
from training.data.statistics import measure_statistics


class HomefeedDataModule(pl.LightningDataModule):
    """Training batches and the calibration slice of one snapshot."""

    def __init__(self, snapshot: Snapshot, snapshot_dir: Path, config: RunConfig) -> None:
        super().__init__()
        check_features(snapshot, config.features)
        self.config = config
        self.reader = SnapshotReader(
            snapshot, snapshot_dir, snapshot.features, config.model.max_actions
        )
        index = self.reader.index(SPLIT_TRAINING)
        self.training_index, self.calibration_index = split_off_calibration(index)
        self.planner = EpochPlanner(
            self.reader,
            self.training_index,
            seed=config.training.seed,
            batch_size=config.training.batch_size,
            negative_keep_fraction=config.training.negative_keep_fraction,
        )

    @property
    def num_batches_per_epoch(self) -> int:
        """Optimizer steps per epoch, the same in every epoch and on every rank."""
        return self.planner.num_batches

    @property
    def num_training_examples(self) -> int:
        """Candidates of the training requests, before downsampling."""
        return int(self.training_index.num_examples_M.sum())

    def train_dataloader(self) -> "RankBatches":
        """Return this rank's batches, continuing at the trainer's step."""
        return RankBatches(self)

    def rank_batch(self, epoch: int, batch: int, rank: int, world_size: int) -> Batch:
        """Return one rank's share of one global batch (tests compare ranks through this)."""
        return self._make(epoch, self.planner.plan(epoch).share(batch, rank, world_size))

    def _make(self, epoch: int, share: RankShare) -> Batch:
        """Gather what a rank reads; each user weighs w_u, or 1 where no weight is configured.

        TransAct (Xia et al., 2023, section 3.4) has w_u = w_state x w_location x w_gender.
        """
        whole = self.training_index.take(share.requests)
        requests = whole.cut(share.skipped_R, share.num_examples_R)
        features, weights_R = self.config.features, np.ones(len(requests))
        for feature in features.categorical_of("users"):
            by_code = np.ones(len(feature.values) + 1)  # code 0 is any other value
            for entry in features.user_weights:
                if entry.feature == feature.name:
                    by_code[feature.values.index(entry.value) + 1] = entry.weight
            codes_R = self.reader.user_column(requests, categorical_column(feature.name))
            weights_R *= by_code[codes_R]
        return self.reader.make_batch(
            requests,
            is_kept_C=self.planner.is_kept(requests, epoch),
            window_fraction_R=share.window_fraction_R,
            user_weights_R=share.user_weights_R * weights_R,
            num_global_candidates=share.num_global_candidates,
        )

    def batches_from(self, step: int, rank: int, world_size: int) -> Iterator[Batch]:
        """Yield the rest of the epoch that an optimizer step lies in."""
        epoch, first = divmod(step, self.num_batches_per_epoch)
        plan = self.planner.plan(epoch)
        for batch in range(first, plan.num_batches):
            yield self._make(epoch, plan.share(batch, rank, world_size))

    def statistics(self) -> FeatureStatistics:
        """Return the scales of the training rows; raises as `measure_statistics` does."""
        return measure_statistics(self.reader, self.training_index, self.config.features)

    def golden_batch(self, num_requests: int, num_candidates: int) -> Batch:
        """Return a small batch of requests over the whole range of history lengths."""
        by_length = np.argsort(self.training_index.num_actions_M, kind="stable")
        chosen = by_length[np.linspace(0, len(by_length) - 1, num_requests).astype(np.int64)]
        requests = self.training_index.take(np.unique(chosen))
        in_request_C = np.concatenate([np.arange(n) for n in requests.num_examples_M])
        return self.reader.make_batch(requests, is_kept_C=in_request_C < num_candidates)


class RankBatches:
    """The trainer's loader: re-iterable, and a pure function of the trainer's step and rank."""

    def __init__(self, data_module: HomefeedDataModule) -> None:
        self._data_module = data_module

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return self._data_module.num_batches_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """Return the batches from the trainer's step to the end of its epoch."""
        trainer = self._data_module.trainer
        assert trainer is not None
        return self._data_module.batches_from(
            trainer.global_step, trainer.global_rank, trainer.world_size
        )

    # The trainer goes on within an epoch only with a loader that has these two methods. This loader
    # has no state of its own, because the trainer's step says which batch is next.
    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the step in the checkpoint is the state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing, because the batches follow from the trainer's step."""
