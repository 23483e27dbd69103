"""Synthetic event logs of any size, for several benchmarks."""

import os
import shutil
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.schemas import ACTIONS, EMBEDDING_DIM, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS

SEED = 1


@dataclass(frozen=True)
class LogShape:
    """Sizes of a synthetic event log; each day's rows lie in some files."""

    num_impressions: int
    actions_per_impression: float
    num_users: int
    num_pins: int
    num_days: int
    candidates: int
    """Impressions of a request."""
    named_share: float = 1 / 3
    """Share of the actions that name an impression's request; the others are on any pin."""
    files_per_day: int = 1
    first: date = date(2026, 1, 1)
    version: str = "v1"


def write_log(folder: Path, shape: LogShape) -> int:
    """Write a log drawn from one seed; return its rows of impressions and actions."""
    shutil.rmtree(folder, ignore_errors=True)
    rng, written = np.random.default_rng(SEED), 0
    for number in range(shape.num_days * shape.files_per_day):
        day = shape.first + timedelta(days=number // shape.files_per_day)
        shown = _impressions(rng, shape, number, day)
        for table, rows in (("impressions", shown), ("actions", _actions(rng, shape, shown, day))):
            name = f"part-{number % shape.files_per_day}.parquet"
            _write(folder / table / f"day={day}" / name, rows)
            written += len(rows)
    pins = [np.arange(shape.num_pins), pa.repeat(shape.version, shape.num_pins)]
    _write(
        folder / "pins" / "part-0.parquet",
        pa.table([*pins, _embeddings(rng, shape.num_pins)], schema=PINS),
    )
    count = shape.num_users
    users = [np.arange(count), np.full(count, start_ms(shape.first)), _embeddings(rng, count)]
    users = pa.table([*users, pa.repeat("core", count), pa.nulls(count, pa.string())], schema=USERS)
    _write(folder / "users" / "part-0.parquet", users)
    an_hour_ago = time.time() - 3600  # as of a log whose files nobody is writing
    for path in folder.rglob("*.parquet"):
        os.utime(path, (an_hour_ago, an_hour_ago))
    return written


def _impressions(rng: np.random.Generator, shape: LogShape, number: int, day: date) -> pa.Table:
    num_files = shape.num_days * shape.files_per_day
    num_requests = shape.num_impressions // num_files // shape.candidates
    count = num_requests * shape.candidates
    request = np.repeat(np.arange(num_requests), shape.candidates)
    names = pa.array(np.char.add(f"{number:05d}-", np.arange(num_requests).astype(str)))
    at = start_ms(day) + rng.integers(0, DAY_MS - 3_600_000, num_requests)[request]
    columns = {
        "request_id": names.take(pa.array(request)),
        "user_id": rng.integers(0, shape.num_users, num_requests)[request],
        "pin_id": rng.integers(0, shape.num_pins, count),
        "impressed_at": at,
        "known_at": at + rng.integers(0, 600_000, num_requests)[request],
        "position": np.tile(np.arange(shape.candidates, dtype=np.int16), num_requests),
        "surface": pa.repeat("homefeed", count),
        "is_exploration": (rng.random(num_requests) < 0.05)[request],
        "propensity": pa.nulls(count, pa.float32()),
    }
    return pa.table(columns, schema=IMPRESSIONS)


def _actions(rng: np.random.Generator, shape: LogShape, shown: pa.Table, day: date) -> pa.Table:
    count = int(len(shown) * shape.actions_per_impression)
    named = rng.integers(0, len(shown), int(count * shape.named_share))
    others = count - len(named)
    chosen = shown.take(pa.array(named))
    at = np.concatenate([
        np.asarray(chosen["impressed_at"]) + rng.integers(1000, 1_700_000, len(named)),
        start_ms(day) + rng.integers(0, DAY_MS - 1, others),
    ])  # fmt: skip
    users = rng.integers(0, shape.num_users, others)
    pins = rng.integers(0, shape.num_pins, others)
    kinds = pa.array(["click", "repin", "hide"])
    columns = {
        "user_id": np.concatenate([np.asarray(chosen["user_id"]), users]),
        "pin_id": np.concatenate([np.asarray(chosen["pin_id"]), pins]),
        "action_type": kinds.take(pa.array(rng.integers(0, 3, count))),
        "acted_at": at,
        "known_at": at + rng.integers(0, 600_000, count),
        "request_id": pa.chunked_array(
            [*chosen["request_id"].chunks, pa.nulls(others, pa.string())]
        ),
    }
    return pa.table(columns, schema=ACTIONS)


def _write(path: Path, rows: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)


def start_ms(day: date) -> int:
    """Return the midnight (UTC) that starts a day, in milliseconds since the epoch."""
    return (day - date(1970, 1, 1)).days * DAY_MS


def _embeddings(rng: np.random.Generator, count: int) -> pa.Array:
    return to_list_column(rng.normal(size=(count, EMBEDDING_DIM)).astype(np.float32))
