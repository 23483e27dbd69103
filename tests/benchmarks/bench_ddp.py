"""Two processes of one core against one process of one core, same global batch, on the sample."""

import os
import tempfile
from pathlib import Path

import numpy as np
from record import Row, row
from sample import AS_OF, make_run, spec_of, variant

from pipelines.contracts.config import RunConfig
from pipelines.snapshot import build_snapshot
from training import launch

TURNS, TRAINING_DAYS = 3, 4


def measure() -> list[Row]:
    """Return candidates per second of two processes, and the ratio to one."""
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        rates = np.array([[_rate(processes) for processes in (1, 2)] for _ in range(TURNS)])
    finally:
        del os.environ["OMP_NUM_THREADS"]
    ratios = rates[:, 1] / rates[:, 0]
    return [
        row(
            "ddp_2_vs_1",
            float(np.median(rates[:, 1])),
            "candidates/s",
            ratio=float(np.median(ratios)),
            peer=f"one process of one core, {np.median(rates[:, 0]):,.0f}/s",
            spread=f"ratio {ratios.min():.2f} to {ratios.max():.2f} over {TURNS} turns",
            rows=TURNS,
            seed="17",
            note="time in the trainer's loop, without the start of the processes",
        )
    ]


def _short() -> RunConfig:
    config = variant(17)
    return config.model_copy(
        update={
            "snapshot": config.snapshot.model_copy(update={"training_days": TRAINING_DAYS}),
            "training": config.training.model_copy(update={"num_epochs": 1}),
        }
    )


def _rate(num_processes: int) -> float:
    config = _short()
    snapshot = build_snapshot(make_run(config, AS_OF, Path(".homefeed") / "bench"))
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as work_dir:
        result = launch.train(spec_of(snapshot, config, work_dir, num_processes))
    return result.num_training_examples * result.num_epochs / result.training_s
