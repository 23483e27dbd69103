"""Feeds the trainer: the epochs' batches for one rank, from any step on.

Not for what is in a batch (`training.data.batches`) nor for its making (`training.data.reader`).
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import SPLIT_TRAINING, numeric_column
from training.data.batches import Batch
from training.data.epoch_plan import EpochPlanner, RankShare, split_off_calibration
from training.data.input_checks import check_features
from training.data.reader import SnapshotReader
from training.data.user_weights import user_weights
from training.model.ranker import FeatureStatistics

log = logging.getLogger(__name__)


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
        whole = self.training_index.take(share.requests)
        requests = whole.cut(share.skipped_R, share.num_examples_R)
        return self.reader.make_batch(
            requests,
            is_kept_C=self.planner.is_kept(requests, epoch),
            window_fraction_R=share.window_fraction_R,
            user_weights_R=share.user_weights_R
            * user_weights(self.reader, requests, self.config.features),
            num_global_candidates=share.num_global_candidates,
        )

    def batches_from(self, step: int, rank: int, world_size: int) -> Iterator[Batch]:
        """Yield the rest of the epoch that an optimizer step lies in."""
        epoch, first = divmod(step, self.num_batches_per_epoch)
        plan = self.planner.plan(epoch)
        for batch in range(first, plan.num_batches):
            yield self._make(epoch, plan.share(batch, rank, world_size))

    def statistics(self) -> FeatureStatistics:
        """Return the scales of the training rows, over all of them, on every rank alike.

        Raises:
            DataContractError: the window has no positive of the target head, or no spread at all.
        """
        features, index = self.config.features, self.training_index
        labels_CH = self.reader.labels(index)
        positives_H = labels_CH.sum(axis=0, dtype=np.int64)
        if positives_H[0] == 0:
            raise DataContractError(
                f"the training window has no positive of the target head "
                f"{features.head_names[0]!r} in {len(labels_CH)} examples; expected some; check "
                f"the actions of the event log and snapshot.label_window_hours"
            )
        for head, positives in zip(features.head_names[1:], positives_H[1:], strict=True):
            if positives == 0:
                log.warning(
                    "head %r has no positive in the training window: it will say that nothing "
                    "happens, and its calibrator cannot know better",
                    head,
                )
        moments = [
            _mean_and_scale(self.reader.example_column(index, numeric_column(feature.name)))
            for feature in features.numeric
        ]
        pin_rows = np.unique(self.reader.example_column(index, "pin_row"))
        self._check_finite(pin_rows)
        return FeatureStatistics(
            numeric_mean_N=np.array([mean for mean, _ in moments]),
            numeric_scale_N=np.array([scale for _, scale in moments]),
            pin_scale=_unit_scale(self.reader.pins["embedding"][pin_rows]),
            user_scale=_unit_scale(np.concatenate([u["embedding"] for u in self.reader.users])),
            head_rates_H=(positives_H + 0.5) / (len(labels_CH) + 1.0),
        )

    def _check_finite(self, pin_rows: np.ndarray) -> None:
        """Refuse embeddings that would make every score NaN; the data gate names the rows."""
        tables = {"pins": self.reader.pins["embedding"][pin_rows]}
        tables |= {f"users of shard {s}": u["embedding"] for s, u in enumerate(self.reader.users)}
        for name, embeddings in tables.items():
            if not np.isfinite(embeddings).all():
                bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
                raise DataContractError(
                    f"{bad} embeddings of {name} are not finite; expected finite numbers; run the "
                    f"data gate (check_snapshot), which names them, and mend the event log"
                )

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

    # The trainer asks a loader that can continue within an epoch for these; the step says it all.
    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the step in the checkpoint is the state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""


def _mean_and_scale(values: np.ndarray) -> tuple[float, float]:
    scale = float(values.std(dtype=np.float64))
    return float(values.mean(dtype=np.float64)), scale if scale > 0 else 1.0


def _unit_scale(embeddings: np.ndarray) -> float:
    """Return what brings an embedding's components to root mean square 1."""
    mean_square = float(np.square(embeddings, dtype=np.float64).mean()) if embeddings.size else 0.0
    return mean_square**-0.5 if mean_square > 0 else 1.0
