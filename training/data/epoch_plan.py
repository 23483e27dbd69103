"""Which candidates make up which batch of an epoch: a pure function of (seed, epoch).

So a resumed training, and any number of ranks, see the same global batches. Not for reading them
(`training.data.reader`). Tested in tests/training/data/test_batches.py.

Letters: M training requests, B batches.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pipelines.contracts.config import TrainingConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.hashing import mix, seed_of, uniform
from training.data.reader import RequestIndex, SnapshotReader, ragged_ranges

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

    requests: np.ndarray  # positions in the index of training requests, grouped by shard
    skipped_R: np.ndarray  # int64, a request's candidates before those that this rank reads
    num_examples_R: np.ndarray  # int64, a request's candidates that this rank reads
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
    num_examples_M: np.ndarray  # int64, all candidates, per request of the index

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
        kept_R, num_R = self.num_kept_M[members], self.num_examples_M[members]
        num_global = int(kept_R.sum())
        starts_R = np.cumsum(kept_R) - kept_R
        first_R = _rows_before(num_global * rank // world_size - starts_R, kept_R, num_R)
        last_R = _rows_before(num_global * (rank + 1) // world_size - starts_R, kept_R, num_R)
        own = np.flatnonzero(last_R > first_R)
        weight = 1.0
        if len(own) == 0:
            own, weight = np.array([0]), 0.0
            first_R, last_R = np.zeros_like(num_R), num_R
        return RankShare(
            requests=members[own],
            skipped_R=first_R[own],
            num_examples_R=(last_R - first_R)[own],
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
        return EpochPlan(order_M, bounds, fraction_M, num_kept_M, self._index.num_examples_M)

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
