"""A training on two cores beside four processes that never rest, and the same one undisturbed.

The busy processes are pure Python at the same nice value. The peer is the same training on the idle
machine with libgomp's own spin count, which is how it ran before one was chosen for it; under load
that peer is measured as well, since a wait that spins is what made the difference.
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
from sample import AS_OF, make_run, spec_of, variant

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.snapshot.build import write_snapshot
from training.launch import launcher
from training.thread_waits import LOOK_EVERY_S

TURNS, TRAINING_DAYS, NUM_BUSY = 3, 2, 4
OWN_SPIN_COUNT = "300000"
"""libgomp's, where neither OMP_WAIT_POLICY nor GOMP_SPINCOUNT is set."""


def measure() -> list[Row]:
    """Return candidates per second under load and idle, each against the peer on an idle one."""
    config = _short()
    snapshot = write_snapshot(make_run(config, AS_OF, Path(".homefeed") / "bench"))
    idle, was_idle, loaded = (np.empty(TURNS) for _ in range(3))
    for turn in range(TURNS):
        idle[turn] = _rate(snapshot, config, None)
        was_idle[turn] = _rate(snapshot, config, OWN_SPIN_COUNT)
        with _busy_processes():
            loaded[turn] = _rate(snapshot, config, None)
    with _busy_processes():
        was_loaded = _rate(snapshot, config, OWN_SPIN_COUNT)
    best = float(was_idle.max())
    peer = f"best idle rate with libgomp's own spin count, {best:,.0f}/s"
    chosen = f"the load is looked at every {LOOK_EVERY_S} s"
    under = f"that peer under load: {was_loaded:,.0f}/s"
    of_its_turn = f"libgomp's own spin count in the same turn, {np.median(was_idle):,.0f}/s"
    return [
        _row("train_under_load", loaded, loaded / best, peer, under),
        _row("train_idle", idle, idle / was_idle, of_its_turn, chosen),
    ]


def _row(name: str, rates: np.ndarray, ratios: np.ndarray, peer: str, note: str) -> Row:
    return row(
        name,
        float(np.median(rates)),
        "candidates/s",
        ratio=float(np.median(ratios)),
        peer=peer,
        spread=f"ratio {ratios.min():.2f} to {ratios.max():.2f} over {TURNS} turns",
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


def _rate(snapshot: Snapshot, config: RunConfig, own_count: str | None) -> float:
    """Return candidates per second with a spin count, or with the one that is chosen by us."""
    if own_count is not None:
        os.environ["GOMP_SPINCOUNT"] = own_count
    try:
        with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as work_dir:
            result = launcher.train(spec_of(snapshot, config, work_dir))
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)
    return result.num_training_examples * result.num_epochs / result.training_s


@contextlib.contextmanager
def _busy_processes() -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(NUM_BUSY)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
