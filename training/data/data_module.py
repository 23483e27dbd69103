"""Feeds the trainer: the epochs' batches for one rank, from any step on, and the rows' scales.

Not for what is in a batch (`training.data.batches`), nor for its making (`training.data.reader`),
nor for judging the data: the data gate has done that before a training begins.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import FeatureConfig, RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import SPLIT_TRAINING, categorical_column, numeric_column
from training.data.batches import Batch, FeatureStatistics
from training.data.epoch_plan import EpochPlanner, RankShare, split_off_calibration
from training.data.input_checks import check_features
from training.data.reader import RequestIndex, SnapshotReader

log = logging.getLogger(__name__)


class HomefeedDataModule(pl.LightningDataModule):
    """Training batches and the calibration slice of one snapshot.

    It is the trainer's loader too, for an epoch at a time: a pure function of the trainer's step
    and rank, so that the step in a checkpoint is all of its state.
    """

    def __init__(self, snapshot: Snapshot, snapshot_dir: Path, config: RunConfig) -> None:
        super().__init__()
        check_features(snapshot, config.features)
        self.config = config
        self.reader = SnapshotReader(
            snapshot, snapshot_dir, snapshot.features, config.model.max_actions
        )
        index = self.reader.index(SPLIT_TRAINING)
        self.training_index, self.calibration_index = split_off_calibration(index)
        self.planner = EpochPlanner(self.reader, self.training_index, config.training)

    def __len__(self) -> int:
        """Return the optimizer steps of an epoch, the same in every epoch and on every rank."""
        return self.planner.num_batches

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's batches from the trainer's step to the end of its epoch."""
        trainer = self.trainer
        assert trainer is not None
        epoch, first = divmod(trainer.global_step, len(self))
        plan = self.planner.plan(epoch)
        for batch in range(first, plan.num_batches):
            share = plan.share(batch, trainer.global_rank, trainer.world_size)
            yield self._make(epoch, share)

    def train_dataloader(self) -> "HomefeedDataModule":
        """Return the loader of every epoch."""
        return self

    def rank_batch(self, epoch: int, batch: int, rank: int, world_size: int) -> Batch:
        """Return one rank's share of one global batch (tests compare ranks through this)."""
        return self._make(epoch, self.planner.plan(epoch).share(batch, rank, world_size))

    def _make(self, epoch: int, share: RankShare) -> Batch:
        """Gather what a rank reads; each user weighs w_u, or 1 where no weight is configured.

        TransAct (Xia et al., 2023, section 3.4) has w_u = w_state x w_location x w_gender.
        """
        whole = self.training_index.take(share.requests)
        first_R = whole.first_example_M + share.skipped_R
        requests = replace(whole, first_example_M=first_R, num_examples_M=share.num_examples_R)
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
            user_weights_R=share.weight * weights_R,
            num_global_candidates=share.num_global_candidates,
        )

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


def measure_statistics(
    reader: SnapshotReader, index: RequestIndex, features: FeatureConfig
) -> FeatureStatistics:
    """Return the scales over all training rows, by which the model divides its inputs.

    They are saved with the weights, and every rank measures the same.

    Args:
        reader: of the snapshot.
        index: the training requests.
        features: heads and numeric features of the recipe.

    Raises:
        DataContractError: the window has no positive of the main head, or an embedding is not
            finite.
    """
    moments = []
    for feature in features.numeric:
        values, *flags = (reader.example_column(index, numeric_column(n)) for n in feature.inputs)
        for is_missing in flags:
            # The feature's own moments are over the rows where it is not missing: how often it is
            # must not move them, and is told by the flag.
            values = values[is_missing == 0]
        moments += [_mean_and_scale(column) for column in (values, *flags)]
    pins = reader.pins["embedding"][np.unique(reader.example_column(index, "pin_row"))]
    users = [user["embedding"] for user in reader.users]
    tables = {"pins": pins} | {f"users of shard {s}": table for s, table in enumerate(users)}
    for name, embeddings in tables.items():
        if not np.isfinite(embeddings).all():
            bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
            raise DataContractError(
                f"{bad} embeddings of {name} are not finite; expected finite numbers; run the "
                f"data gate (check_snapshot), which names them, and mend the event log"
            )
    labels_CH = reader.labels(index)
    positives_H = labels_CH.sum(axis=0, dtype=np.int64)
    for head, positives in zip(features.head_names, positives_H, strict=True):
        if positives == 0 and head == features.main_head.name:
            raise DataContractError(
                f"the training window has no positive of the main head {head!r} in "
                f"{len(labels_CH)} examples; expected some; check the actions of the event log and "
                f"snapshot.label_window_hours"
            )
        if positives == 0:
            log.warning(
                "head %r has no positive in the training window: it will predict that nothing "
                "happens, and its calibrator cannot correct that",
                head,
            )
    return FeatureStatistics(
        numeric_mean_N=np.array([mean for mean, _ in moments]),
        numeric_scale_N=np.array([scale for _, scale in moments]),
        pin_scale=_unit_scale(pins),
        user_scale=_unit_scale(np.concatenate(users)),
        # Moved off 0 and 1 by half a positive.
        head_rates_H=(positives_H + 0.5) / (len(labels_CH) + 1.0),
    )


def _mean_and_scale(values: np.ndarray) -> tuple[float, float]:
    if len(values) == 0:
        return 0.0, 1.0
    scale = float(values.std(dtype=np.float64))
    return float(values.mean(dtype=np.float64)), scale if scale > 0 else 1.0


def _unit_scale(embeddings: np.ndarray) -> float:
    """Return the factor that brings an embedding's components to a root mean square of 1."""
    mean_square = float(np.square(embeddings, dtype=np.float64).mean()) if embeddings.size else 0.0
    return mean_square**-0.5 if mean_square > 0 else 1.0
