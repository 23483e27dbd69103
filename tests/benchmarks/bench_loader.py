"""The data module against a per-row `Dataset`, and against the model's hunger.

All on the sample's training window with the sample's recipe, one thread, in turns.
"""

import time
from types import SimpleNamespace

import numpy as np
import torch
from record import Row, row
from sample import AS_OF, HOME, make_run, variant
from timed import in_turns
from torch.utils.data import DataLoader, Dataset

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.schemas import EMBEDDING_DIM, SPLIT_TRAINING, categorical_column
from pipelines.snapshot.build import write_snapshot
from training.data.batches import Batch
from training.data.data_module import HomefeedDataModule
from training.data.reader import SnapshotReader, ragged_ranges
from training.fitting.lightning_module import RankerModule

BENCH = HOME / "bench"
TURNS, NUM_BATCHES, NUM_STEPS = 5, 40, 4


def measure() -> list[Row]:
    """Return samples per second of the loader, against the per-row peer and the training step."""
    torch.set_num_threads(1)
    run = make_run(variant(17), AS_OF, BENCH)
    snapshot = write_snapshot(run)
    folder = storage.local_path(snapshot.uri)
    data = HomefeedDataModule(snapshot, folder, run.config)
    dataset = PerRow(
        SnapshotReader(snapshot.shards, folder, run.config.features, run.config.model.max_actions)
    )
    peer = DataLoader(dataset, batch_size=run.config.training.batch_size, shuffle=True)
    rates = np.array([_turn(data, peer, run) for _ in range(TURNS)])
    peers = {
        "loader_vs_dataset": "per-row Dataset",
        "loader_vs_model": "training step of the sample's recipe, one thread",
    }
    return [
        row(
            name,
            float(np.median(rates[:, 0])),
            "candidates/s",
            ratio=float(np.median(rates[:, 0] / rates[:, place])),
            peer=f"{what}, {np.median(rates[:, place]):,.0f}/s",
            spread=in_turns(rates[:, 0] / rates[:, place]),
            rows=len(rates),
            seed="17",
        )
        for place, (name, what) in enumerate(peers.items(), 1)
    ]


class PerRow(Dataset):
    """One item per candidate, its sequence copied out of the timeline: the usual way."""

    def __init__(self, reader: SnapshotReader) -> None:
        self.reader, index = reader, reader.index(SPLIT_TRAINING)
        self.shard = np.repeat(index.shard_M, index.num_examples_M)
        self.request = np.repeat(index.row_M, index.num_examples_M)
        self.example = ragged_ranges(index.first_example_M, index.num_examples_M)

    def __len__(self) -> int:
        return len(self.example)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        reader, shard, request = self.reader, self.shard[row], self.request[row]
        example, size = self.example[row], self.reader.max_actions
        requests, timeline = reader.requests[shard], reader.timelines[shard]
        end, start = requests["timeline_end"][request], requests["timeline_start"][request]
        newest = slice(max(start, end - size), end)
        pin_rows = timeline["pin_row"][newest][::-1]
        types, ages = np.zeros((2, size), np.int64)
        pins = np.zeros((size, EMBEDDING_DIM), np.float32)
        types[: len(pin_rows)] = timeline["action_type_id"][newest][::-1]
        pins[: len(pin_rows)] = reader.pins["embedding"][pin_rows]
        acted_at = timeline["acted_at"][newest][::-1]
        ages[: len(pin_rows)] = requests["impressed_at"][request] - acted_at
        examples, shown = reader.examples[shard], reader.features.categorical_of("impressions")
        codes = [examples[categorical_column(each.name)][example] for each in shown]
        return {
            "types": types,
            "pins": pins,
            "ages": ages,
            "candidate": np.array(reader.pins["embedding"][examples["pin_row"][example]]),
            "user": np.array(reader.users[shard]["embedding"][requests["user_row"][request]]),
            "categorical": np.array(codes, np.int64),
            "labels": examples["label_repin"][example : example + 1].astype(np.int64),
        }


def _turn(data: HomefeedDataModule, peer: DataLoader, run: ResolvedRun) -> tuple[float, ...]:
    """Return samples per second of loader, peer and training step."""
    data.trainer = SimpleNamespace(global_step=0, global_rank=0, world_size=1)
    rates = list[float]()
    for batches, num_batches in ((peer, 3), (data, NUM_BATCHES)):
        iterator, samples = iter(batches), 0
        batch = next(iterator)
        started = time.perf_counter()
        for _ in range(num_batches):
            batch = next(iterator)
            samples += len(batch["types"]) if batches is peer else len(batch.labels_CH)
        rates.insert(0, samples / (time.perf_counter() - started))
    return *rates, _step_rate(data, run, batch)


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
