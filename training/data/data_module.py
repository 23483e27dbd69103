"""Feeds the trainer: the epochs' batches for one rank, from any step on, and the rows' scales.

Which candidates make up which batch of an epoch is a pure function of (seed, epoch): so a resumed
training, and any number of ranks, see the same global batches. Not for what is in a batch
(`training.data.batches`), nor for its making (`training.data.reader`), nor for judging the data:
the data gate has done that before a training begins. Tested in tests/training/data/test_batches.py.

Letters: M training requests, B batches, R requests of a rank's share, C candidates.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import FeatureConfig, RunConfig, TrainingConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.hashing import mix, seed_of, uniform
from pipelines.contracts.schemas import SPLIT_TRAINING, categorical_column, numeric_column
from training.data.batches import Batch, FeatureStatistics
from training.data.input_checks import check_features
from training.data.reader import RequestIndex, SnapshotReader, ragged_ranges

log = logging.getLogger(__name__)
CALIBRATION_SHARE = 0.05
"""Share of training users that are not trained on, so that the calibrator sees unseen users."""
_CALIBRATION_SALT, _DOWNSAMPLING_SALT, _ORDER_SALT = 101, 102, 103


def split_off_calibration(index: RequestIndex) -> tuple[RequestIndex, RequestIndex]:
    """Return (requests to train on, requests to calibrate on), split by a hash of the user."""
    is_calibration = uniform(index.user_id_M, _CALIBRATION_SALT) < CALIBRATION_SHARE
    return index.take(np.flatnonzero(~is_calibration)), index.take(np.flatnonzero(is_calibration))


@dataclass(frozen=True)
class RankShare:
    """What one rank reads for one global batch."""

    requests: RequestIndex  # grouped by shard; their examples are those that this rank reads
    window_fraction_R: np.ndarray
    weight: float  # 0 where the rank only takes part
    num_global_candidates: int


@dataclass(frozen=True)
class EpochPlan:
    """The global batches of one epoch."""

    order_M: np.ndarray  # int64, requests in the order they are used
    bounds_B1: np.ndarray  # int64 [B + 1], batch b is order_M[bounds[b]:bounds[b + 1]]
    window_fraction_M: np.ndarray  # float in [0, 1), per request of the index
    num_kept_M: np.ndarray  # int64, candidates kept, per request of the index
    index: RequestIndex

    @property
    def num_batches(self) -> int:
        """Batches, the same on every rank."""
        return len(self.bounds_B1) - 1

    def share(self, batch: int, rank: int, world_size: int) -> RankShare:
        """Return one rank's part of a batch: about as many candidates as every other rank's.

        The batch's candidates, shard after shard, are cut into equal runs, because the ranks wait
        for the largest. A request that a cut falls into is read by both ranks, each with
        candidates of its own. Without downsampling the runs differ by one at most; with it the cut
        is where it would be if a request's kept candidates were spread evenly. A rank that would
        get none reads the batch's first request with weight 0, so that it takes part in every step.
        """
        members = np.sort(self.order_M[self.bounds_B1[batch] : self.bounds_B1[batch + 1]])
        kept_R, num_R = self.num_kept_M[members], self.index.num_examples_M[members]
        num_global = int(kept_R.sum())
        starts_R = np.cumsum(kept_R) - kept_R
        first_R = _rows_before(num_global * rank // world_size - starts_R, kept_R, num_R)
        last_R = _rows_before(num_global * (rank + 1) // world_size - starts_R, kept_R, num_R)
        own = np.flatnonzero(last_R > first_R)
        weight = 1.0
        if len(own) == 0:
            own, weight = np.array([0]), 0.0
            first_R, last_R = np.zeros_like(num_R), num_R
        whole = self.index.take(members[own])
        first_example_R = whole.first_example_M + first_R[own]
        num_examples_R = (last_R - first_R)[own]
        return RankShare(
            replace(whole, first_example_M=first_example_R, num_examples_M=num_examples_R),
            window_fraction_R=self.window_fraction_M[members[own]],
            weight=weight,
            # Downsampling may leave a batch of few requests without any candidate. Its loss is then
            # 0 / 1 and not 0 / 0.
            num_global_candidates=max(1, num_global),
        )


def _rows_before(kept_before_R: np.ndarray, kept_R: np.ndarray, num_R: np.ndarray) -> np.ndarray:
    """Return how many of each request's rows come before a cut, int64 [R].

    Args:
        kept_before_R: kept rows of the batch from each request's first one to the cut. The number
            is negative where the cut is in an earlier request, and above kept_R where it is in a
            later one.
        kept_R: kept rows of each request.
        num_R: all rows of each request.
    """
    return num_R * kept_before_R.clip(0, kept_R) // np.maximum(kept_R, 1)


class EpochPlanner:
    """Makes the plan of any epoch; the number of batches is the same in all of them."""

    def __init__(
        self, reader: SnapshotReader, index: RequestIndex, training: TrainingConfig
    ) -> None:
        self._index, self._seed = index, training.seed
        self._keep_fraction = training.negative_keep_fraction
        labels = [f"label_{name}" for name in reader.features.head_names]
        self._is_positive = [  # by shard, which examples have any positive label
            np.any([examples[name] > 0 for name in labels], axis=0)
            for examples in (reader.examples if self._keep_fraction < 1 else ())
        ]
        total = int(self._num_kept(0).sum())
        if total == 0:
            raise DataContractError(
                "the training window has no candidate to train on; expected at least one request "
                "with candidates; check the event log and snapshot.training_days"
            )
        self.num_batches = max(1, min(round(total / training.batch_size), len(index)))

    def plan(self, epoch: int) -> EpochPlan:
        """Return the plan of an epoch, counted from 0.

        Batches are cut where the running number of candidates passes equal shares of the epoch, so
        the sizes of two batches differ by about one request. Where requests are larger than a share
        is, two cuts can fall into the same request. The later cut is then moved on, because every
        batch gets at least one request.
        """
        generator = torch.Generator().manual_seed(seed_of(self._seed, _ORDER_SALT, epoch))
        order_M = torch.randperm(len(self._index), generator=generator).numpy()
        fraction_M = torch.rand(len(self._index), generator=generator).numpy()
        num_kept_M = self._num_kept(epoch)
        running_M = np.cumsum(num_kept_M[order_M])
        targets = running_M[-1] * np.arange(1, self.num_batches) / self.num_batches
        cuts = np.searchsorted(running_M, targets) + 1
        # At least one request per batch: cut b lies in [b, M - (B - b)].
        steps = np.arange(1, self.num_batches)
        cuts = np.maximum.accumulate(cuts - steps) + steps if len(cuts) else cuts
        cuts = np.minimum(cuts, len(order_M) - self.num_batches + steps)
        bounds = np.concatenate([[0], cuts, [len(order_M)]]).astype(np.int64)
        return EpochPlan(order_M, bounds, fraction_M, num_kept_M, self._index)

    def is_kept(self, index: RequestIndex, epoch: int) -> np.ndarray | None:
        """Return which candidates of some requests are kept, bool [C]; None if all are.

        Every candidate with a positive label is kept. Of the others a share is kept, which a seeded
        hash of the row draws anew in each epoch.
        """
        if self._keep_fraction >= 1:
            return None
        rows_C = ragged_ranges(index.first_example_M, index.num_examples_M)
        shard_C = np.repeat(index.shard_M, index.num_examples_M)
        keys_C = mix(rows_C, _DOWNSAMPLING_SALT) ^ mix(shard_C, self._seed, epoch)
        is_kept_C = uniform(keys_C) < self._keep_fraction
        for shard in np.unique(shard_C):
            here = shard_C == shard
            is_kept_C[here] |= self._is_positive[shard][rows_C[here]]
        return is_kept_C

    def _num_kept(self, epoch: int) -> np.ndarray:
        """Return the number of kept candidates per request, int64 [M]."""
        is_kept_C = self.is_kept(self._index, epoch)
        if is_kept_C is None:
            return self._index.num_examples_M
        running = np.concatenate([[0], np.cumsum(is_kept_C)])
        ends = np.cumsum(self._index.num_examples_M)
        return running[ends] - running[ends - self._index.num_examples_M]


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
        requests = share.requests
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
