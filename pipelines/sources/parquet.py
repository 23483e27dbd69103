"""Parquet files of an event log: one folder per UTC day where a table has times.

Not for what the tables hold, nor for reading: `pipelines.event_log` reads what this writes.
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts.time import DAY_MS


def write_part(folder: Path, rows: pa.Table, part: str) -> None:
    """Write rows to `<folder>/part-<part>.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, folder / f"part-{part}.parquet")


def write_days(folder: Path, rows: pa.Table, time_column: str, part: str) -> dict[str, int]:
    """Write rows, sorted by a time in milliseconds, to one file per UTC day that has any.

    Returns:
        For each of these days, as YYYY-MM-DD, how many rows it got.
    """
    days = np.asarray(rows[time_column]) // DAY_MS
    found, starts, counts = np.unique(days, return_index=True, return_counts=True)
    written = {}
    for day, start, count in zip(found, starts, counts, strict=True):
        name = str(date(1970, 1, 1) + timedelta(days=int(day)))
        write_part(folder / f"day={name}", rows.slice(start, count), part)
        written[name] = int(count)
    return written
