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
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.hashing import mix, seed_of, uniform
from pipelines.contracts.schemas import SPLIT_TRAINING, categorical_column, numeric_column
from training.data.batches import Batch, FeatureStatistics
from training.data.input_checks import require_meaning
from training.data.reader import RequestIndex, SnapshotReader, ragged_ranges

log = logging.getLogger(__name__)
CALIBRATION_SHARE = 0.05
"""Share of training users that are not trained on, so that the calibrator sees unseen users."""
_CALIBRATION_SALT, _DOWNSAMPLING_SALT, _ORDER_SALT = 101, 102, 103


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


class HomefeedDataModule(pl.LightningDataModule):
    """Training batches and the calibration slice of one snapshot.

    It is the trainer's loader too, for an epoch at a time: a pure function of the trainer's step
    and rank, so that the step in a checkpoint is all of its state. The number of batches is the
    same in every epoch.
    """

    def __init__(self, snapshot: Snapshot, snapshot_dir: Path, config: RunConfig) -> None:
        super().__init__()
        heads = config.features.head_names, snapshot.features.head_names
        require_meaning(snapshot, config.features, "the recipe", {"heads": heads})
        self.config = config
        self.reader = SnapshotReader(
            snapshot.shards, snapshot_dir, snapshot.features, config.model.max_actions
        )
        index = self.reader.index(SPLIT_TRAINING)
        is_calibration_M = uniform(index.user_id_M, _CALIBRATION_SALT) < CALIBRATION_SHARE
        self.training_index = index.take(np.flatnonzero(~is_calibration_M))
        self.calibration_index = index.take(np.flatnonzero(is_calibration_M))
        self._keep_fraction = config.training.negative_keep_fraction
        total = int(self._num_kept(0).sum())
        if total == 0:
            raise DataContractError(
                "the training window has no candidate to train on; expected at least one request "
                "with candidates; check the event log and snapshot.training_days"
            )
        wanted = round(total / config.training.batch_size)
        self._num_batches = max(1, min(wanted, len(self.training_index)))

    def __len__(self) -> int:
        """Return the optimizer steps of an epoch, the same in every epoch and on every rank."""
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's batches from the trainer's step to the end of its epoch."""
        trainer = self.trainer
        assert trainer is not None
        epoch, first = divmod(trainer.global_step, len(self))
        plan = self.plan(epoch)
        for batch in range(first, len(self)):
            yield self.make(epoch, plan.share(batch, trainer.global_rank, trainer.world_size))

    def train_dataloader(self) -> "HomefeedDataModule":
        """Return the loader of every epoch."""
        return self

    def plan(self, epoch: int) -> EpochPlan:
        """Return the plan of an epoch, counted from 0.

        Batches are cut where the running number of candidates passes equal shares of the epoch, so
        the sizes of two batches differ by about one request. Where requests are larger than a share
        is, two cuts can fall into the same request. The later cut is then moved on, because every
        batch gets at least one request.
        """
        num_requests, num_batches = len(self.training_index), len(self)
        seed = seed_of(self.config.training.seed, _ORDER_SALT, epoch)
        generator = torch.Generator().manual_seed(seed)
        order_M = torch.randperm(num_requests, generator=generator).numpy()
        fraction_M = torch.rand(num_requests, generator=generator).numpy()
        num_kept_M = self._num_kept(epoch)
        running_M = np.cumsum(num_kept_M[order_M])
        # At least one request per batch: cut b lies in [b, M - (B - b)].
        steps = np.arange(1, num_batches)
        cuts = np.searchsorted(running_M, running_M[-1] * steps / num_batches) + 1
        cuts = np.maximum.accumulate(cuts - steps) + steps
        cuts = np.minimum(cuts, num_requests - num_batches + steps)
        bounds = np.concatenate([[0], cuts, [num_requests]]).astype(np.int64)
        return EpochPlan(order_M, bounds, fraction_M, num_kept_M, self.training_index)

    def is_kept(self, index: RequestIndex, epoch: int) -> np.ndarray | None:
        """Return which candidates of some requests are kept, bool [C]; None if all are.

        Every candidate with a positive label is kept. Of the others a share is kept, which a seeded
        hash of the row draws anew in each epoch.
        """
        if self._keep_fraction >= 1:
            return None
        rows_C = ragged_ranges(index.first_example_M, index.num_examples_M)
        shard_C = np.repeat(index.shard_M, index.num_examples_M)
        seed = self.config.training.seed
        keys_C = mix(rows_C, _DOWNSAMPLING_SALT) ^ mix(shard_C, seed, epoch)
        return (uniform(keys_C) < self._keep_fraction) | self.reader.labels(index).any(axis=1)

    def _num_kept(self, epoch: int) -> np.ndarray:
        """Return the number of kept candidates per training request, int64 [M]."""
        index = self.training_index
        is_kept_C = self.is_kept(index, epoch)
        if is_kept_C is None:
            return index.num_examples_M
        running = np.concatenate([[0], np.cumsum(is_kept_C)])
        ends = np.cumsum(index.num_examples_M)
        return running[ends] - running[ends - index.num_examples_M]

    def make(self, epoch: int, share: RankShare) -> Batch:
        """Gather what a rank reads; each user weighs w_u, or 1 where no weight is configured.

        TransAct (Xia et al., 2023, section 3.4) has w_u = w_state x w_location x w_gender.
        """
        requests = share.requests
        weights_R = np.full(len(requests), share.weight)
        for entry in self.config.features.user_weights:
            [values] = (
                feature.values
                for feature in self.config.features.categorical
                if feature.name == entry.feature
            )
            codes_R = self.reader.user_column(requests, categorical_column(entry.feature))
            weights_R[codes_R == values.index(entry.value) + 1] *= entry.weight  # 0: others
        batch = self.reader.make_batch(requests, self.is_kept(requests, epoch))
        return batch._replace(
            window_fraction_R=torch.tensor(share.window_fraction_R),
            user_weights_R=torch.tensor(weights_R, dtype=torch.float32),
            num_global_candidates=torch.tensor(float(share.num_global_candidates)),
        )

    def golden_batch(self, num_requests: int, num_candidates: int) -> Batch:
        """Return a small batch of requests over the whole range of history lengths."""
        by_length = np.argsort(self.training_index.num_actions_M, kind="stable")
        chosen = by_length[np.linspace(0, len(by_length) - 1, num_requests).astype(np.int64)]
        requests = self.training_index.take(np.unique(chosen))
        counts_M = requests.num_examples_M
        in_request_C = ragged_ranges(np.zeros_like(counts_M), counts_M)
        return self.reader.make_batch(requests, in_request_C < num_candidates)

    def statistics(self) -> FeatureStatistics:
        """Return the scales over all training rows, by which the model divides its inputs.

        They are saved with the weights, and every rank measures the same.

        Raises:
            DataContractError: the window has no positive of the main head, or an embedding is not
                finite.
        """
        reader, index, features = self.reader, self.training_index, self.config.features
        moments = []
        for feature in features.numeric:
            values, *flags = (
                reader.example_column(index, numeric_column(name)) for name in feature.inputs
            )
            for is_missing in flags:
                # The feature's own moments are over the rows where it is not missing: how often it
                # is must not move them, and is told by the flag.
                values = values[is_missing == 0]
            for column in (values, *flags):
                has_any = len(column) > 0
                scale = float(column.std(dtype=np.float64)) if has_any else 0.0
                mean = float(column.mean(dtype=np.float64)) if has_any else 0.0
                moments.append((mean, scale or 1.0))
        pins = reader.pins["embedding"][np.unique(reader.example_column(index, "pin_row"))]
        users = np.concatenate([table["embedding"] for table in reader.users])
        for name, tables in (("pin", [reader.pins]), ("user", reader.users)):  # past actions' too
            is_bad = [~np.isfinite(table["embedding"]).all(axis=1) for table in tables]
            bad = [table[f"{name}_id"][rows] for table, rows in zip(tables, is_bad, strict=True)]
            if len(ids := np.concatenate(bad)):
                raise DataContractError(
                    f"{len(ids)} embeddings of {name}s are not finite, {name}_id {ids[:3]} first; "
                    f"expected finite numbers; run the data gate (check_snapshot), which names "
                    f"them, and mend the event log"
                )
        labels_CH = reader.labels(index)
        positives_H = labels_CH.sum(axis=0, dtype=np.int64)
        for head in np.array(features.head_names)[positives_H == 0]:
            if head == features.main_head.name:
                raise DataContractError(
                    f"the training window has no positive of the main head '{head}' in "
                    f"{len(labels_CH)} examples; expected some; check the actions of the event log "
                    f"and snapshot.label_window_hours"
                )
            log.warning(
                "head '%s' has no positive in the training window: it will predict that nothing "
                "happens, and its calibrator cannot correct that",
                head,
            )
        means, scales = np.array(moments).reshape(-1, 2).T
        return FeatureStatistics(
            numeric_mean_N=means,
            numeric_scale_N=scales,
            pin_scale=_unit_scale(pins),
            user_scale=_unit_scale(users),
            # Moved off 0 and 1 by half a positive.
            head_rates_H=(positives_H + 0.5) / (len(labels_CH) + 1.0),
        )


def _unit_scale(embeddings: np.ndarray) -> float:
    """Return the factor that brings an embedding's components to a root mean square of 1."""
    mean_square = float(np.square(embeddings, dtype=np.float64).mean()) if embeddings.size else 0.0
    return mean_square**-0.5 if mean_square > 0 else 1.0
