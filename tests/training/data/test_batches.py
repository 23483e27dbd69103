"""Batches: what is gathered, in which order, by which rank, and what is sampled away."""

import numpy as np
import pytest
import torch

from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from training.data.batches import MODEL_INPUTS, VARYING_AXES, Batch, visible_actions
from training.data.data_module import EpochPlan, HomefeedDataModule
from training.data.reader import RequestIndex, SnapshotReader, chunks, ragged_ranges
from training.fitting.lightning_module import RankerModule
from training.model.loss import weighted_loss


@pytest.fixture(scope="module")
def reader(planted) -> SnapshotReader:
    return SnapshotReader(planted.snapshot.shards, planted.folder, planted.config.features, 20)


def data_of(planted, **changes: float) -> HomefeedDataModule:
    """Return what feeds a training with some options of `training` changed."""
    training = planted.config.training.model_copy(update=changes)
    config = planted.config.model_copy(update={"training": training})
    return HomefeedDataModule(planted.snapshot, planted.folder, config)


@pytest.fixture(scope="module")
def data(planted) -> HomefeedDataModule:
    return data_of(planted)


def rank_batch(data: HomefeedDataModule, batch: int, rank: int, world_size: int) -> Batch:
    """Return one rank's share of a global batch of the first epoch."""
    return data.make(0, data.plan(0).share(batch, rank, world_size))


def test_ragged_ranges_and_chunks(reader) -> None:
    found = ragged_ranges(np.array([5, 0, 9]), np.array([2, 0, 3]))
    assert found.tolist() == [5, 6, 9, 10, 11]
    index, none = reader.index(SPLIT_HOLDOUT), np.array([], dtype=int)
    assert ragged_ranges(none, none).tolist() == list(chunks(index.take(none), 10)) == []
    rows = [part.row_M for part in chunks(index, 50)]
    assert len(rows) > 2 and np.concatenate(rows).tolist() == index.row_M.tolist()


def test_the_declared_axes_of_the_inputs_are_those_that_vary(reader) -> None:
    assert MODEL_INPUTS == Batch._fields[: len(MODEL_INPUTS)]
    index = reader.index(SPLIT_HOLDOUT)
    batches = [reader.make_batch(index.take(np.arange(size))) for size in (3, len(index))]
    for name, varying in VARYING_AXES.items():
        fixed = []
        for batch in batches:
            num_requests, num_actions = batch.action_types_RS.shape
            num_candidates = len(batch.request_of_C)
            assert len({num_requests, num_actions, num_candidates}) == 3
            lengths = {"request": num_requests, "action": num_actions, "candidate": num_candidates}
            shape = getattr(batch, name).shape
            assert shape[: len(varying)] == tuple(lengths[axis] for axis in varying), name
            fixed.append(shape[len(varying) :])
        assert fixed[0] == fixed[1], name


def test_a_batch_equals_what_a_loop_over_the_rows_gathers(reader) -> None:
    index = reader.index(SPLIT_HOLDOUT)
    batch, row = reader.make_batch(index), 0
    for r, (shard, request) in enumerate(zip(index.shard_M, index.row_M, strict=True)):
        requests, timeline = reader.requests[shard], reader.timelines[shard]
        start, end = requests["timeline_start"][request], requests["timeline_end"][request]
        newest_first = list(range(start, end))[::-1][:20]
        num, pins = len(newest_first), timeline["pin_row"][newest_first]
        ages_ms = requests["impressed_at"][request] - timeline["acted_at"][newest_first]
        for name, expected, padding in (
            ("action_types_RS", timeline["action_type_id"][newest_first], 0),
            ("action_pin_keys_RS", pins, -1),
            ("action_ages_ms_RS", ages_ms, 0),
            ("action_pins_RSE", reader.pins["embedding"][pins], 0),
        ):
            found = getattr(batch, name)[r].numpy()
            assert (found[:num] == expected).all() and (found[num:] == padding).all(), name
        assert (ages_ms >= 0).all()
        examples, first = reader.examples[shard], requests["first_example"][request]
        for source in range(first, first + requests["num_examples"][request]):
            assert batch.request_of_C[row] == r
            assert batch.candidate_pin_keys_C[row] == examples["pin_row"][source]
            assert batch.labels_CH[row, 0] == examples["label_repin"][source]
            assert batch.numeric_CN[row, 0] == examples["num_pin_popularity"][source]
            row += 1
    assert row == len(batch.request_of_C)


def examples_of(index: RequestIndex) -> list[tuple[int, int]]:
    """Return (shard, row) of the examples of some requests."""
    shards = np.repeat(index.shard_M, index.num_examples_M).tolist()
    rows = ragged_ranges(index.first_example_M, index.num_examples_M).tolist()
    return list(zip(shards, rows, strict=True))


def test_every_candidate_of_an_epoch_is_read_once_over_all_ranks(data) -> None:
    """And the ranks of a batch read shards one after another."""
    plan, expected = data.plan(0), sorted(examples_of(data.training_index))
    for world_size in (1, 2, 3):
        seen = []
        for batch in range(len(data)):
            shares = [plan.share(batch, rank, world_size) for rank in range(world_size)]
            seen += [examples_of(share.requests) for share in shares if share.weight > 0]
            sizes = [int(share.requests.num_examples_M.sum()) for share in shares]
            assert max(sizes) - min(sizes) <= 1
            bounds = [(s.requests.shard_M.min(), s.requests.shard_M.max()) for s in shares]
            assert bounds == sorted(bounds)
        assert sorted(sum(seen, [])) == expected


def test_a_downsampled_batch_is_cut_as_if_the_kept_were_spread_evenly() -> None:
    num_examples = np.array([30, 30, 30, 30, 2, 0, 28, 30])
    num_kept = np.array([10, 2, 30, 0, 1, 0, 20, 9])
    zeros, rows = np.zeros(8), np.arange(8)
    index = RequestIndex(zeros, rows, zeros, num_examples, zeros.astype(int), zeros, zeros)
    plan = EpochPlan(rows, np.array([0, 8]), zeros, num_kept, index)
    for world_size in (1, 2, 3, 7):
        shares = [plan.share(0, rank, world_size) for rank in range(world_size)]
        assert {share.num_global_candidates for share in shares} == {72}
        estimates = [
            (num_kept / np.maximum(num_examples, 1))[share.requests.row_M]
            @ share.requests.num_examples_M
            for share in shares
        ]
        assert np.allclose(estimates, 72 / world_size, atol=1.5)
        # the requests that keep nothing, of 30 and 0, are read by nobody
        assert sum(int(share.requests.num_examples_M.sum()) for share in shares) == 150


def loss_and_gradients(data: HomefeedDataModule, batch: Batch) -> tuple[float, list[torch.Tensor]]:
    module = RankerModule(data.config, data.statistics(), batch.users_RE.shape[1], 10)
    logits = module.ranker(batch, visible_actions(batch, 0.0))
    loss = weighted_loss(logits, batch, module.get_buffer("label_weights_HL"))
    return loss.item(), list(torch.autograd.grad(loss, list(module.parameters())))


def test_a_rank_without_candidates_takes_part_with_weight_zero(data) -> None:
    plan = data.plan(0)
    world_size = plan.share(0, 0, 1).num_global_candidates + 1
    shares = [plan.share(0, rank, world_size) for rank in range(world_size)]
    (without,) = (rank for rank, share in enumerate(shares) if share.weight == 0)
    assert len(shares[without].requests) == 1
    batch = rank_batch(data, 0, without, world_size)
    assert len(batch.labels_CH) > 0
    # every weight has a gradient, or the other ranks would wait for it
    loss, gradients = loss_and_gradients(data, batch)
    assert loss == 0.0 and all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("negative_keep_fraction", [1.0, 0.3])
def test_losses_and_gradients_of_the_ranks_add_up_to_those_of_one(
    planted, negative_keep_fraction: float
) -> None:
    data = data_of(planted, negative_keep_fraction=negative_keep_fraction)
    ranks = [(0, 1), *((rank, 3) for rank in range(3))]
    (whole_loss, whole), *parts = (
        loss_and_gradients(data, rank_batch(data, 1, *rank)) for rank in ranks
    )
    assert sum(loss for loss, _ in parts) == pytest.approx(whole_loss, abs=1e-6)
    for expected, *found in zip(whole, *(gradients for _, gradients in parts), strict=True):
        allowed = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(sum(found), expected, atol=allowed, rtol=0)


def test_epochs_differ_and_repeat_with_the_seed(data) -> None:
    first, again, second = data.plan(0), data.plan(0), data.plan(1)
    for name in ("order_M", "window_fraction_M"):
        assert (getattr(first, name) == getattr(again, name)).all()
        assert not (getattr(first, name) == getattr(second, name)).all()
    fractions = first.window_fraction_M  # every request has a window of its own
    assert len(np.unique(fractions)) > 0.99 * len(fractions)
    assert (fractions >= 0).all() and (fractions < 1).all()
    assert fractions.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("batch_size", [1, 40, 256, 10**6])
def test_batches_are_about_as_large_as_asked_and_none_is_empty(planted, batch_size: int) -> None:
    data = data_of(planted, batch_size=batch_size)
    plan = data.plan(0)
    sizes = [plan.share(b, 0, 1).num_global_candidates for b in range(len(data))]
    assert sum(sizes) == data.training_index.num_examples_M.sum()
    largest_request = int(data.training_index.num_examples_M.max())
    assert max(sizes) - min(sizes) <= 2 * largest_request
    assert (np.diff(plan.bounds_B1) > 0).all()


def test_downsampling_keeps_positives_and_a_share_of_the_rest(planted) -> None:
    data = data_of(planted, negative_keep_fraction=0.3)
    reader, index = data.reader, data.training_index
    is_positive = reader.labels(index).any(axis=1)
    kept = data.is_kept(index, epoch=0)
    assert kept is not None
    assert kept[is_positive].all()
    assert kept[~is_positive].mean() == pytest.approx(0.3, abs=0.03)
    assert (kept != data.is_kept(index, epoch=1)).any()
    # the choice belongs to the row, not to the batch that it is in
    rows = np.arange(len(index) // 2, len(index))
    half = data.is_kept(index.take(rows), epoch=0)
    assert half is not None
    assert (half == kept[-len(half) :]).all()
    plan = data.plan(0)
    sizes = [plan.share(b, 0, 1).num_global_candidates for b in range(len(data))]
    assert sum(sizes) == kept.sum()


def test_calibration_users_are_not_trained_on(data) -> None:
    training, calibration = data.training_index, data.calibration_index
    assert len(training) + len(calibration) == len(data.reader.index(SPLIT_TRAINING))
    assert len(calibration) > 0
    assert not set(training.user_id_M) & set(calibration.user_id_M)
