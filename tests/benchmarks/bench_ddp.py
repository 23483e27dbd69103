"""Two processes of one core against one process of one core, same global batch, on the sample.

Per step the processes exchange 6 MB of gradients and pass over all weights, whatever the batch: at
the recipe's 512 candidates that is a tenth of the time, at the thousands of a larger sample little.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from record import Row, row
from sample import AS_OF, make_run, spec_of, variant

from pipelines.contracts.config import RunConfig
from pipelines.snapshot.build import write_snapshot
from training.launch import launcher

TURNS, TRAINING_DAYS = 3, 12
BATCHES = {"ddp_2_vs_1": 2048, "ddp_2_vs_1_small_batch": 512}
"""Row -> candidates of a global batch."""


def measure() -> list[Row]:
    """Return candidates per second of two processes, and the ratio to one, per batch size."""
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        return [_row(name, batch_size) for name, batch_size in BATCHES.items()]
    finally:
        del os.environ["OMP_NUM_THREADS"]


def _row(name: str, batch_size: int) -> Row:
    config = _short(batch_size)
    rates = np.array([[_rate(config, processes) for processes in (1, 2)] for _ in range(TURNS)])
    ratios = rates[:, 1] / rates[:, 0]
    return row(
        name,
        float(np.median(rates[:, 1])),
        "candidates/s",
        ratio=float(np.median(ratios)),
        peer=f"one process of one core, {np.median(rates[:, 0]):,.0f}/s",
        spread=f"ratio {ratios.min():.2f} to {ratios.max():.2f} over {TURNS} turns",
        rows=TURNS,
        seed="17",
        note=f"global batch of {batch_size} candidates, both in one epoch of {TRAINING_DAYS} days; "
        f"time in the trainer's loop, without the start of the processes",
    )


def _short(batch_size: int) -> RunConfig:
    config = variant(17)
    training = {"num_epochs": 1, "batch_size": batch_size}
    return config.model_copy(
        update={
            "snapshot": config.snapshot.model_copy(update={"training_days": TRAINING_DAYS}),
            "training": config.training.model_copy(update=training),
        }
    )


def _rate(config: RunConfig, num_processes: int) -> float:
    snapshot = write_snapshot(make_run(config, AS_OF, Path(".homefeed") / "bench"))
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as work_dir:
        result = launcher.train(spec_of(snapshot, config, work_dir, num_processes))
    return result.num_training_examples * result.num_epochs / result.training_s
