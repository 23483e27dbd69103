"""The data module against a per-row `Dataset` with a `collate_fn`, and against the model's hunger.

All on the sample's training window with the sample's recipe, one thread, in turns.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import numpy as np
import torch
from record import Row, row
from sample import AS_OF, HOME, make_run, variant
from timed import in_turns
from torch.utils.data import DataLoader, Dataset

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.schemas import EMBEDDING_DIM, SPLIT_TRAINING, categorical_column
from pipelines.snapshot.build import write_snapshot
from training.data.batches import Batch
from training.data.data_module import HomefeedDataModule
from training.data.reader import SnapshotReader, ragged_ranges
from training.fitting.lightning_module import RankerModule

BENCH = HOME / "bench"
Item = TypeVar("Item")
TURNS, NUM_BATCHES, NUM_STEPS = 5, 40, 4


def measure() -> list[Row]:
    """Return samples per second of the loader, of the per-row peer and of the training step."""
    torch.set_num_threads(1)
    run = make_run(variant(17), AS_OF, BENCH)
    snapshot = write_snapshot(run)
    folder = storage.local_path(snapshot.uri)
    data = HomefeedDataModule(snapshot, folder, run.config)
    peer = DataLoader(
        PerRow(snapshot, folder, run),
        batch_size=run.config.training.batch_size,
        shuffle=True,
        collate_fn=collate,
    )
    rates = np.array([_turn(data, peer, run) for _ in range(TURNS)])
    return [
        _row("loader_vs_dataset", rates, 1, "per-row Dataset with collate_fn"),
        _row("loader_vs_model", rates, 2, "training step of the sample's recipe, one thread"),
    ]


class PerRow(Dataset):
    """One item per candidate, its sequence copied out of the timeline: the usual way."""

    def __init__(self, snapshot: Snapshot, folder: Path, run: ResolvedRun) -> None:
        features, max_actions = run.config.features, run.config.model.max_actions
        self.reader = SnapshotReader(snapshot, folder, features, max_actions)
        index = self.reader.index(SPLIT_TRAINING)
        self.shard = np.repeat(index.shard_M, index.num_examples_M)
        self.request = np.repeat(index.row_M, index.num_examples_M)
        self.example = ragged_ranges(index.first_example_M, index.num_examples_M)

    def __len__(self) -> int:
        return len(self.example)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        reader, shard, request = self.reader, self.shard[row], self.request[row]
        example, size = self.example[row], self.reader.max_actions
        requests, timeline = reader.requests[shard], reader.timelines[shard]
        end, start = requests["timeline_end"][request], requests["timeline_start"][request]
        newest = slice(max(start, end - size), end)
        pin_rows = timeline["pin_row"][newest][::-1]
        types, pins = np.zeros(size, np.int64), np.zeros((size, EMBEDDING_DIM), np.float32)
        ages = np.zeros(size, np.int64)
        types[: len(pin_rows)] = timeline["action_type_id"][newest][::-1]
        pins[: len(pin_rows)] = reader.pins["embedding"][pin_rows]
        acted_at = timeline["acted_at"][newest][::-1]
        ages[: len(pin_rows)] = requests["impressed_at"][request] - acted_at
        examples, features = reader.examples[shard], reader.features
        shown = features.categorical_of("impressions")
        codes = [examples[categorical_column(each.name)][example] for each in shown]
        return {
            "types": torch.from_numpy(types),
            "pins": torch.from_numpy(pins),
            "ages": torch.from_numpy(ages),
            "candidate": torch.tensor(reader.pins["embedding"][examples["pin_row"][example]]),
            "user": torch.tensor(reader.users[shard]["embedding"][requests["user_row"][request]]),
            "categorical": torch.tensor(np.array(codes, dtype=np.int64)),
            "labels": torch.tensor([int(examples["label_repin"][example])]),
        }


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack every field."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _turn(data: HomefeedDataModule, peer: DataLoader, run: ResolvedRun) -> tuple[float, ...]:
    """Return samples per second of loader, peer and training step."""
    data.trainer = SimpleNamespace(global_step=0, global_rank=0, world_size=1)
    own, batch = _rate(data, NUM_BATCHES, lambda batch: len(batch.labels_CH))
    theirs, _ = _rate(peer, 3, lambda rows: len(rows["types"]))
    return own, theirs, _step_rate(data, run, batch)


def _rate(
    batches: Iterable[Item], num_batches: int, count: Callable[[Item], int]
) -> tuple[float, Item]:
    """Return samples per second over some batches, and the last of them."""
    iterator = iter(batches)
    last = next(iterator)
    started, samples = time.perf_counter(), 0
    for _ in range(num_batches):
        last = next(iterator)
        samples += count(last)
    return samples / (time.perf_counter() - started), last


def _step_rate(data: HomefeedDataModule, run: ResolvedRun, batch: Batch) -> float:
    """Return samples per second of forward, backward and optimizer on one batch in memory."""
    module = RankerModule(run.config, data.statistics(), EMBEDDING_DIM, 100).train()
    optimizer = module.configure_optimizers()["optimizer"]
    times = []
    for _ in range(NUM_STEPS):
        started = time.perf_counter()
        optimizer.zero_grad()
        is_visible_RS = batch.action_types_RS > 0
        logits_CH = module.ranker(batch, is_visible_RS)
        torch.nn.functional.binary_cross_entropy_with_logits(logits_CH, batch.labels_CH).backward()
        optimizer.step()
        times.append(time.perf_counter() - started)
    return len(batch.labels_CH) / float(np.median(times))


def _row(name: str, rates: np.ndarray, peer: int, what: str) -> Row:
    ratios = rates[:, 0] / rates[:, peer]
    return row(
        name,
        float(np.median(rates[:, 0])),
        "candidates/s",
        ratio=float(np.median(ratios)),
        peer=f"{what}, {np.median(rates[:, peer]):,.0f}/s",
        spread=in_turns(ratios),
        rows=len(ratios),
        seed="17",
    )
