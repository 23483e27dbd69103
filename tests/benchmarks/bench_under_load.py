"""A training on two cores beside four processes that never rest, and the same one undisturbed.

The busy processes are pure Python at the same nice value. The peer is the training on the idle
machine. Under load it is measured with threads that wait as OpenMP has them wait as well: a wait
that spins for long is what makes the difference.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from record import Row, row
from sample import AS_OF, HOME, make_run, spec_of, variant
from timed import in_turns

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.snapshot.build import write_snapshot
from training.fitting.metrics_file import read_metrics
from training.launch import launcher

TURNS, TRAINING_DAYS, NUM_BUSY = 3, 2, 4
OPENMP_SPINS = "300000"
"""Value of GOMP_SPINCOUNT that GNU's OpenMP has by itself."""


def measure() -> list[Row]:
    """Return candidates per second under load and idle, each against the peer on an idle one."""
    config = _short()
    snapshot = write_snapshot(make_run(config, AS_OF, HOME / "bench"))
    idle, loaded = np.empty(TURNS), np.empty(TURNS)
    for turn in range(TURNS):
        idle[turn] = _rate(snapshot, config)
        with _busy_processes():
            loaded[turn] = _rate(snapshot, config)
    with _busy_processes():
        spinning = _rate(snapshot, config, OPENMP_SPINS)
    best = float(idle.max())
    under = f"GOMP_SPINCOUNT={OPENMP_SPINS}: {spinning:,.0f}/s"
    return [
        _row("train_under_load", loaded, loaded / best, f"best idle rate, {best:,.0f}/s", under),
        _row("train_idle", idle, idle / best, "the best of these turns", "no variable is set"),
    ]


def _row(name: str, rates: np.ndarray, ratios: np.ndarray, peer: str, note: str) -> Row:
    return row(
        name,
        float(np.median(rates)),
        "candidates/s",
        ratio=float(np.median(ratios)),
        peer=peer,
        spread=in_turns(ratios),
        rows=TURNS,
        seed="17",
        note=f"one process, one epoch of {TRAINING_DAYS} days of the sample; {NUM_BUSY} busy "
        f"processes where there is load; {note}",
    )


def _short() -> RunConfig:
    config = variant(17)
    return config.model_copy(
        update={
            "snapshot": config.snapshot.model_copy(update={"training_days": TRAINING_DAYS}),
            "training": config.training.model_copy(update={"num_epochs": 1}),
        }
    )


def _rate(snapshot: Snapshot, config: RunConfig, spins: str = "") -> float:
    """Return candidates per second, with threads that look so often before they sleep."""
    if spins:
        os.environ["GOMP_SPINCOUNT"] = spins
    try:
        with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as work_dir:
            result = launcher.train(spec_of(snapshot, config, work_dir))
            logged = read_metrics(Path(result.metrics_path))
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)
    return [each.value for each in logged if each.name == "training/candidates_per_s"][-1]


@contextlib.contextmanager
def _busy_processes() -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(NUM_BUSY)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
