"""The data module against the model's hunger.

All on the sample's training window with the sample's recipe, one thread, in turns.
"""

import time
from types import SimpleNamespace

import numpy as np
import torch
from record import Row, row
from sample import AS_OF, HOME, make_run, variant
from timed import in_turns

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.schemas import EMBEDDING_DIM
from pipelines.snapshot.build import write_snapshot
from training.data.batches import Batch
from training.data.data_module import HomefeedDataModule
from training.fitting.lightning_module import RankerModule

BENCH = HOME / "bench"
TURNS, NUM_BATCHES, NUM_STEPS = 5, 40, 4


def measure() -> list[Row]:
    """Return samples per second of the loader, against those of the training step."""
    torch.set_num_threads(1)
    run = make_run(variant(17), AS_OF, BENCH)
    snapshot = write_snapshot(run)
    folder = storage.local_path(snapshot.uri)
    data = HomefeedDataModule(snapshot, folder, run.config)
    rates = np.array([_turn(data, run) for _ in range(TURNS)])
    ratios = rates[:, 0] / rates[:, 1]
    what = "training step of the sample's recipe, one thread"
    return [
        row(
            "loader_vs_model",
            float(np.median(rates[:, 0])),
            "candidates/s",
            ratio=float(np.median(ratios)),
            peer=f"{what}, {np.median(rates[:, 1]):,.0f}/s",
            spread=in_turns(ratios),
            rows=len(ratios),
            seed="17",
        )
    ]


def _turn(data: HomefeedDataModule, run: ResolvedRun) -> tuple[float, float]:
    """Return samples per second of loader and training step."""
    data.trainer = SimpleNamespace(global_step=0, global_rank=0, world_size=1)
    iterator, samples = iter(data), 0
    batch = next(iterator)
    started = time.perf_counter()
    for _ in range(NUM_BATCHES):
        batch = next(iterator)
        samples += len(batch.labels_CH)
    return samples / (time.perf_counter() - started), _step_rate(data, run, batch)


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
