"""`homefeed log check` on a synthetic log of 60 M impressions: seconds, and memory in all.

The log is written once, a day at a time, below .homefeed/bench (about 1.3 GB), and deleted when the
check has ended. `NUM_MILLIONS` in the environment makes a smaller one, whose row has its own name.
"""

import os
import shutil
import sys

from record import Row, row
from sample import HOME
from synthetic import SEED, LogShape, write_log
from timed import run_process

LOG = HOME / "bench" / "log_check"
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
        ran = run_process([sys.executable, "-m", "pipelines.cli", "log", "check", str(LOG)])
    finally:
        shutil.rmtree(LOG)
    return [
        row(
            f"log_check_{NUM_MILLIONS}m_s",
            ran.seconds,
            "s",
            ratio=ran.seconds / BOUND_S,
            peer=f"the bound of {BOUND_S} s for 60 M rows",
            rows=num_rows,
            seed=str(SEED),
            note=f"at most {ran.peak_mib:,.0f} MiB in all processes (bound {BOUND_MIB:,}), "
            f"{ran.cpu_s:.0f} s of the cores",
        )
    ]
