"""`homefeed log check` on a synthetic log of 60 M impressions: seconds, and memory in all.

The log is written once, a day at a time, below .homefeed/bench (about 1.3 GB), and deleted when the
check has ended. `NUM_MILLIONS` in the environment makes a smaller one, whose row has its own name.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
from record import Row, row
from synthetic import SEED, LogShape, private_bytes, write_log

LOG = Path(".homefeed") / "bench" / "log_check"
NUM_MILLIONS = int(os.environ.get("NUM_MILLIONS", "60"))
SHAPE = LogShape(
    num_impressions=NUM_MILLIONS * 1_000_000,
    actions_per_impression=0.05,
    num_users=400_000,
    num_pins=500_000,
    num_days=14,
    candidates=30,
    named_share=0.8,
)
BOUND_S, BOUND_MIB = 120, 2048


def measure() -> list[Row]:
    """Return the time that a check takes, with the peak of its memory."""
    num_rows = write_log(LOG, SHAPE)
    try:
        seconds, peak_mib, cpu_s = check()
    finally:
        shutil.rmtree(LOG)
    return [
        row(
            f"log_check_{NUM_MILLIONS}m_s",
            seconds,
            "s",
            ratio=seconds / BOUND_S,
            peer=f"the bound of {BOUND_S} s for 60 M rows",
            spread="one run",
            rows=num_rows,
            seed=str(SEED),
            note=f"at most {peak_mib:,.0f} MiB in all processes (bound {BOUND_MIB:,}), "
            f"{cpu_s:.0f} s of the cores",
        )
    ]


def check() -> tuple[float, float, float]:
    """Run the check as people do; return seconds, peak memory (MiB) and seconds of the cores."""
    command = [sys.executable, "-m", "pipelines.cli", "log", "check", str(LOG)]
    started, peak = time.perf_counter(), 0
    before = os.times()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, private_bytes(psutil.Process(process.pid)))
            time.sleep(0.2)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise RuntimeError(f"the check ended with {process.returncode}")
    after = os.times()
    cpu_s = after.children_user + after.children_system
    cpu_s -= before.children_user + before.children_system
    return seconds, peak / 2**20, cpu_s
