"""`homefeed log check` on a synthetic log of 60 M impressions: seconds, and memory in all.

The log is written once, a day at a time, below .homefeed/bench (about 1.3 GB), and deleted when the
check has ended. `NUM_MILLIONS` in the environment makes a smaller one, whose row has its own name.
"""

import os
import shutil
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from record import Row, row
from synthetic import embeddings, private_bytes, same, start_ms

from pipelines.contracts.schemas import ACTIONS, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS

LOG = Path(".homefeed") / "bench" / "log_check"
NUM_MILLIONS = int(os.environ.get("NUM_MILLIONS", "60"))
NUM_DAYS, CANDIDATES, NUM_USERS, NUM_PINS = 14, 30, 400_000, 500_000
FIRST = date(2026, 1, 1)
BOUND_S, BOUND_MIB = 120, 2048


def measure() -> list[Row]:
    """Return the time that a check takes, with the peak of its memory."""
    shutil.rmtree(LOG, ignore_errors=True)
    num_rows = write_log(NUM_MILLIONS * 1_000_000)
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
            seed="1",
            note=f"at most {peak_mib:,.0f} MiB in all processes (bound {BOUND_MIB:,}), "
            f"{cpu_s:.0f} s of the cores",
        )
    ]


def write_log(num_rows: int) -> int:
    """Write a log of some impressions over two weeks; return how many there are."""
    rng, written = np.random.default_rng(1), 0
    for number in range(NUM_DAYS):
        day = FIRST + timedelta(days=number)
        shown = _impressions(rng, day, num_rows // NUM_DAYS // CANDIDATES)
        _write(f"impressions/day={day}", shown)
        _write(f"actions/day={day}", _actions(rng, shown, day))
        written += len(shown)
    times = np.full(NUM_USERS, start_ms(FIRST))
    states = same("core", NUM_USERS)
    pins = [np.arange(NUM_PINS), same("v1", NUM_PINS), embeddings(rng, NUM_PINS)]
    users = [np.arange(NUM_USERS), times, embeddings(rng, NUM_USERS), states]
    _write("pins", pa.table(pins, schema=PINS))
    _write("users", pa.table([*users, pa.nulls(NUM_USERS, pa.string())], schema=USERS))
    return written


def _impressions(rng: np.random.Generator, day: date, num_requests: int) -> pa.Table:
    count = num_requests * CANDIDATES
    request = np.repeat(np.arange(num_requests), CANDIDATES)
    names = pa.array(np.char.add(f"{day}-", np.arange(num_requests).astype(str)))
    at = start_ms(day) + rng.integers(0, DAY_MS - 1_800_000, num_requests)[request]
    columns = {
        "request_id": names.take(pa.array(request)),
        "user_id": rng.integers(0, NUM_USERS, num_requests)[request],
        "pin_id": rng.integers(0, NUM_PINS, count),
        "impressed_at": at,
        "known_at": at + rng.integers(0, 600_000, count),
        "position": np.tile(np.arange(CANDIDATES, dtype=np.int16), num_requests),
        "surface": same("homefeed", count),
        "is_exploration": (rng.random(num_requests) < 0.05)[request],
        "propensity": pa.nulls(count, pa.float32()),
    }
    return pa.table(columns, schema=IMPRESSIONS)


def _actions(rng: np.random.Generator, shown: pa.Table, day: date) -> pa.Table:
    """Return actions on 5 % of the impressions, a fifth of them without their request."""
    rows = np.flatnonzero(rng.random(len(shown)) < 0.05)
    chosen = shown.take(pa.array(rows))
    at = np.asarray(chosen["impressed_at"]) + rng.integers(1000, 1_700_000, len(rows))
    is_unnamed = pa.array(rng.random(len(rows)) < 0.2)
    columns = {
        "user_id": chosen["user_id"],
        "pin_id": chosen["pin_id"],
        "action_type": pa.array(["click", "repin", "hide"]).take(
            pa.array(rng.integers(0, 3, len(rows)))
        ),
        "acted_at": at,
        "known_at": at + rng.integers(0, 600_000, len(rows)),
        "request_id": pc.if_else(is_unnamed, pa.scalar(None, pa.string()), chosen["request_id"]),
    }
    assert int(at.max()) < start_ms(day) + DAY_MS
    return pa.table(columns, schema=ACTIONS)


def _write(folder: str, rows: pa.Table) -> None:
    (LOG / folder).mkdir(parents=True)
    pq.write_table(rows, LOG / folder / "part-0.parquet")


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
