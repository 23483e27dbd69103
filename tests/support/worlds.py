"""Planted worlds: tiny event logs whose right answer is known, for the tests of every stage.

Not a model of people: users have a hidden taste vector, pins an embedding and an appeal, and the
chance of a repin is a formula of the two. What a user repinned before therefore predicts what they
repin next, and nothing but the sequence says so (user embeddings are noise).
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.schemas import (
    ACTIONS,
    EMBEDDING_DIM,
    IMPRESSIONS,
    PINS,
    USERS,
    with_embedding_dim,
)
from pipelines.contracts.time import DAY_MS, to_ms
from pipelines.sources.world.draws import unit_rows

MINUTE_MS = 60_000
PLANTED_VERSION = "planted-1"
PLANTED_START = datetime(2017, 1, 1, tzinfo=UTC)


def write_planted_world(
    folder: Path,
    *,
    num_users: int = 60,
    num_days: int = 60,
    start: datetime = PLANTED_START,
    requests_per_user_day: float = 0.3,
    candidates: int = 12,
    embedding_dim: int = EMBEDDING_DIM,
    seed: int = 3,
) -> None:
    """Write an event log for the recipe `smoke()`.

    A fifth of the users seldom repin and a fifth arrive in the last 16 days, so that a holdout
    has non-core users. Actions are known minutes later, one in twenty up to two days later.
    """
    rng, num_pins = np.random.default_rng(seed), 80
    taste_UE = unit_rows(rng.normal(size=(num_users, embedding_dim)))
    # Few directions, so that tastes and pins meet often enough for a tiny log to show it.
    topics = unit_rows(rng.normal(size=(6, embedding_dim)))
    taste_UE = unit_rows(topics[rng.integers(0, 6, num_users)] + 0.4 * taste_UE)
    topic_PE = topics[rng.integers(0, 6, num_pins)]
    pins_PE = unit_rows(topic_PE + 0.4 * unit_rows(rng.normal(size=(num_pins, embedding_dim))))
    appeal_P = rng.normal(size=num_pins)
    is_seldom_U = np.arange(num_users) % 5 == 1
    logit_UP = -2.6 + 4.0 * taste_UE @ pins_PE.T + 0.8 * appeal_P - 3.0 * is_seldom_U[:, None]
    probability_UP = 1.0 / (1.0 + np.exp(-logit_UP))

    requests = _draw_requests(rng, num_users, num_days, requests_per_user_day, to_ms(start))
    impressions = _draw_impressions(rng, requests, num_pins, candidates)
    actions = _draw_actions(rng, impressions, probability_UP)
    write_events(folder, "impressions", pa.table(impressions, schema=IMPRESSIONS))
    write_events(folder, "actions", pa.table(actions, schema=ACTIONS))
    write_rows(folder, "pins", pins_table(pins_PE))
    users = _users_table(rng, num_days, to_ms(start), is_seldom_U, embedding_dim)
    write_rows(folder, "users", users)


def embedding_column(rows: np.ndarray) -> pa.FixedSizeListArray:
    """Return a [n, width] array as an Arrow column."""
    return to_list_column(np.ascontiguousarray(rows, dtype=np.float32))


def pins_table(pins_PE: np.ndarray) -> pa.Table:
    """Return a pins table; pin_id is the row number."""
    num_pins = len(pins_PE)
    columns = [np.arange(num_pins), [PLANTED_VERSION] * num_pins, embedding_column(pins_PE)]
    return pa.table(columns, schema=with_embedding_dim(PINS, pins_PE.shape[1]))


def write_events(folder: Path, table: str, rows: pa.Table) -> None:
    """Write impressions or actions into day=... partitions by when they happened."""
    time_column = "impressed_at" if table == "impressions" else "acted_at"
    days = np.asarray(rows[time_column]) // DAY_MS
    for day in np.unique(days):
        name = f"day={date(1970, 1, 1) + timedelta(days=int(day))}"
        target = Path(folder) / table / name / "part-0.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.filter(pa.array(days == day)), target)


def write_rows(folder: Path, table: str, rows: pa.Table) -> None:
    """Write pins or users into one file."""
    target = Path(folder) / table / "part-0.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, target)


def _draw_requests(
    rng: np.random.Generator, num_users: int, num_days: int, rate: float, start_ms: int
) -> Mapping[str, np.ndarray]:
    """Return user_id and impressed_at of every request, by time."""
    counts_UD = rng.poisson(rate, size=(num_users, num_days))
    late = np.arange(num_users) % 5 == 2
    arrival_U = np.where(late, rng.integers(max(0, num_days - 16), num_days, num_users), 0)
    counts_UD[np.arange(num_days)[None, :] < arrival_U[:, None]] = 0
    user_id, day = (
        np.repeat(ids, counts_UD.ravel()) for ids in np.indices(counts_UD.shape).reshape(2, -1)
    )
    # Requests end an hour before midnight: their actions fall on the same day.
    impressed_at = start_ms + day * DAY_MS + rng.integers(0, 23 * 60 * MINUTE_MS, len(day))
    order = np.argsort(impressed_at, kind="stable")
    return {"user_id": user_id[order], "impressed_at": impressed_at[order]}


def _draw_impressions(
    rng: np.random.Generator, requests: Mapping[str, np.ndarray], num_pins: int, candidates: int
) -> dict[str, object]:
    """Return the columns of `impressions`; candidates are drawn evenly, without replacement."""
    num_requests = len(requests["user_id"])
    shown_RC = np.argsort(rng.random((num_requests, num_pins)), axis=1)[:, :candidates]
    impressed_at = np.repeat(requests["impressed_at"], candidates)
    return {
        "request_id": np.repeat([f"r{n:06d}" for n in range(num_requests)], candidates),
        "user_id": np.repeat(requests["user_id"], candidates),
        "pin_id": shown_RC.ravel(),
        "impressed_at": impressed_at,
        "known_at": impressed_at + _delays_ms(rng, len(impressed_at)),
        "position": np.tile(np.arange(candidates, dtype=np.int16), num_requests),
        "surface": np.full(len(impressed_at), "homefeed"),
        "is_exploration": np.repeat(rng.random(num_requests) < 0.05, candidates),
        "propensity": pa.nulls(len(impressed_at), pa.float32()),
    }


def _draw_actions(
    rng: np.random.Generator, impressions: Mapping[str, object], probability_UP: np.ndarray
) -> dict[str, object]:
    """Return the columns of `actions`: repins by the truth, some with more; a few stray clicks."""
    user_id = np.asarray(impressions["user_id"])
    pin_id = np.asarray(impressions["pin_id"])
    is_repin = rng.random(len(user_id)) < probability_UP[user_id, pin_id]
    chosen = {
        "repin": is_repin,
        "long_click": is_repin & (rng.random(len(user_id)) < 0.3),
        "save": is_repin & (rng.random(len(user_id)) < 0.05),
        "click": ~is_repin & (rng.random(len(user_id)) < 0.02),
    }
    rows = np.concatenate([np.flatnonzero(mask) for mask in chosen.values()])
    action_type = np.repeat(list(chosen), [int(mask.sum()) for mask in chosen.values()])
    acted_at = np.asarray(impressions["impressed_at"])[rows] + rng.integers(
        1000, 30 * MINUTE_MS, len(rows)
    )
    request_id = np.asarray(impressions["request_id"], dtype=object)[rows]
    request_id[action_type == "click"] = None  # clicks reach the log without their request
    return {
        "user_id": user_id[rows],
        "pin_id": pin_id[rows],
        "action_type": action_type,
        "acted_at": acted_at,
        "known_at": acted_at + _delays_ms(rng, len(rows)),
        "request_id": request_id,
    }


def _delays_ms(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return how long rows take to reach the log: minutes, one in twenty up to two days."""
    minutes = rng.integers(0, 10 * MINUTE_MS, count)
    return np.where(rng.random(count) < 0.05, rng.integers(0, 2 * DAY_MS, count), minutes)


def _users_table(
    rng: np.random.Generator,
    num_days: int,
    start_ms: int,
    is_seldom_U: np.ndarray,
    embedding_dim: int,
) -> pa.Table:
    """Return weekly rows per user; embeddings are noise, so that only the sequence knows tastes."""
    weeks, num_users = np.arange(0, num_days, 7), len(is_seldom_U)
    user_id = np.repeat(np.arange(num_users), len(weeks))
    noise = unit_rows(rng.normal(size=(len(user_id), embedding_dim)))
    columns = [
        user_id,
        start_ms + np.tile(weeks, num_users) * DAY_MS,
        embedding_column(noise),
        np.where(is_seldom_U[user_id], "non_core", "core"),
        pa.nulls(len(user_id), pa.string()),
    ]
    return pa.table(columns, schema=with_embedding_dim(USERS, embedding_dim))
