"""Columns of synthetic event logs, and the memory of a process tree, for several benchmarks."""

from datetime import date
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from pipelines.contracts.schemas import EMBEDDING_DIM
from pipelines.contracts.time import DAY_MS


def start_ms(day: date) -> int:
    """Return the midnight (UTC) that starts a day, in milliseconds since the epoch."""
    return (day - date(1970, 1, 1)).days * DAY_MS


def same(text: str, count: int) -> pa.Array:
    """Return a column of one text."""
    return pa.array([text]).take(pa.array(np.zeros(count, dtype=np.int64)))


def embeddings(rng: np.random.Generator, count: int) -> pa.Array:
    """Return a column of random embeddings."""
    numbers = rng.normal(size=count * EMBEDDING_DIM).astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers), EMBEDDING_DIM)


def private_bytes(process: psutil.Process) -> int:
    """Return the memory that a process and its children share with nobody."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().uss
        except psutil.Error:
            continue  # it has just ended
    return total


def anonymous_bytes(process: psutil.Process) -> int:
    """Return the memory of a process and its children that the kernel cannot take back at need."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            lines = Path(f"/proc/{each.pid}/status").read_text().splitlines()
        except (OSError, psutil.Error):
            continue  # it has just ended
        found = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
        total += sum(int(found[name].split()[0]) << 10 for name in ("RssAnon", "RssShmem") if found)
    return total
