"""A small random event log with everything that numeric features can trip over.

Rows reach the log late, times repeat, some users never acted, pins appear one after another, and
number columns have nulls. Not for training: that is `worlds`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import CategoricalFeature, NumericFeature, RunConfig
from pipelines.contracts.schemas import ACTIONS, EMBEDDING_DIM, IMPRESSIONS, PINS, USERS
from pipelines.contracts.time import DAY_MS, HOUR_MS, to_ms
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from support.runs import make_run
from support.tiny_log import action, impression
from support.worlds import MINUTE_MS, embedding_column, write_events, write_rows

AS_OF = datetime(2017, 3, 1, tzinfo=UTC)
NUM_DAYS, NUM_USERS, NUM_PINS = 45, 14, 28
START_MS = to_ms(AS_OF) - NUM_DAYS * DAY_MS
BRANDS = ("red", "blue")
Row = dict[str, Any]


@dataclass(frozen=True)
class RandomLog:
    """The rows as written."""

    impressions: list[Row]
    actions: list[Row]
    pins: list[Row]
    users: list[Row]


def config_of(*numeric: NumericFeature, **snapshot: Any) -> RunConfig:
    """Return `smoke()` with these features, a brand of pins, and windows of a few days."""
    base = smoke()
    features = base.features.model_dump(exclude={"numeric", "categorical"})
    brand = CategoricalFeature(name="brand", table="pins", values=BRANDS)
    windows = {"training_days": 7, "embargo_days": 1, "holdout_days": 2, "history_days": 20}
    windows |= {"popularity_days": 3, "core_days": 4, "num_shards": 2}
    update = {
        "features": type(base.features)(**features, categorical=(brand,), numeric=numeric),
        "snapshot": base.snapshot.model_copy(update=windows | snapshot),
    }
    return base.model_copy(update=update)


def build(folder: Path, config: RunConfig) -> Snapshot:
    """Return the snapshot of `<folder>/event_log`."""
    return write_snapshot(make_run(folder, config, AS_OF))


def write_random_log(
    folder: Path, change_pins: Callable[[list[Row]], list[Row]] | None = None
) -> RandomLog:
    """Write an event log below a folder and return its rows.

    Args:
        folder: Of the log.
        change_pins: Returns the pins' rows as they are written; with `known_at` they have a time.
    """
    rng = np.random.default_rng(1)
    impressions = _impressions(rng)
    actions, pins = _actions(rng, impressions), _pins(rng)
    log = RandomLog(impressions, actions, change_pins(pins) if change_pins else pins, _users(rng))
    shown = IMPRESSIONS.append(pa.field("price", pa.float32()))
    write_events(folder, "impressions", pa.Table.from_pylist(log.impressions, schema=shown))
    write_events(folder, "actions", pa.Table.from_pylist(log.actions, schema=ACTIONS))
    known = {"known_at": pa.int64()} if "known_at" in log.pins[0] else {}
    for table, schema, rows, extra in (
        ("pins", PINS, log.pins, known | {"brand": pa.string(), "created_at": pa.int64()}),
        ("users", USERS, log.users, {"spent": pa.int32()}),
    ):
        columns = {name: [row[name] for row in rows] for name in (*schema.names, *extra)}
        columns["embedding"] = embedding_column(np.array(columns["embedding"]))
        write_rows(folder, table, pa.table(columns, schema=pa.schema([*schema, *extra.items()])))
    return log


def _minute(rng: np.random.Generator, day: int) -> int:
    """Return an instant of a day on a grid of ten minutes, so that times repeat."""
    return START_MS + day * DAY_MS + int(rng.integers(0, 144)) * 10 * MINUTE_MS


def _delay(rng: np.random.Generator) -> int:
    """Return how late a row reaches the log: at once, minutes, or up to two days."""
    return int(rng.choice([0, 10 * MINUTE_MS, 5 * HOUR_MS, rng.integers(0, 2 * DAY_MS)]))


def _pin(rng: np.random.Generator, day: int) -> int:
    """Return one of the pins that are there by a day."""
    return int(rng.integers(0, min(NUM_PINS, 6 + day // 2)))


def _impressions(rng: np.random.Generator) -> list[Row]:
    """Return requests, half of which go on with the session of the one before.

    The newest pin stands first, so that a pin may first be known in the request's millisecond.
    """
    rows = []
    day = user_id = time_ms = 0
    for number in range(420):
        if number % 2 == 0:
            day, user_id = int(rng.integers(0, NUM_DAYS)), int(rng.integers(0, NUM_USERS))
            time_ms = _minute(rng, day)
        elif time_ms % DAY_MS < 23 * HOUR_MS:
            time_ms += 10 * MINUTE_MS
        known_at = _delay(rng)
        pins = sorted({_pin(rng, day) for _ in range(4)}, reverse=True)
        for position, pin_id in enumerate(pins):
            price = None if rng.random() < 0.3 else float(rng.integers(-5, 100))
            more = {"price": float("nan") if price == 50 else price}
            more["known_at"] = time_ms + known_at + position
            rows.append(impression(f"r{number}", user_id, pin_id, time_ms, position, **more))
    return rows


def _actions(rng: np.random.Generator, impressions: list[Row]) -> list[Row]:
    """Return actions at any time, a few repins of what was shown, and some a week before it."""
    rows = []
    for number in range(560):
        day = int(rng.integers(0, NUM_DAYS))
        user_id = int(rng.integers(0, NUM_USERS))
        pin_id, acted_at = _pin(rng, day), _minute(rng, day)
        kind = str(rng.choice(["repin", "click", "long_click", "save"]))
        if number % 8 == 0:
            shown = impressions[int(rng.integers(0, len(impressions)))]
            user_id, pin_id, kind = shown["user_id"], shown["pin_id"], "repin"
            acted_at = shown["impressed_at"] + 10 * MINUTE_MS
        elif number % 8 == 4:
            shown = impressions[int(rng.integers(0, len(impressions)))]
            user_id, acted_at = shown["user_id"], shown["impressed_at"] - 7 * DAY_MS
        known_at = acted_at + (0 if number % 8 == 4 else _delay(rng))
        rows.append(action(user_id, pin_id, kind, acted_at, known_at, None))
    return [row for row in rows if row["user_id"] < NUM_USERS - 3]  # three users never act


def _pins(rng: np.random.Generator) -> list[Row]:
    vectors = rng.normal(size=(NUM_PINS, EMBEDDING_DIM))
    vectors[3] = 0
    return [
        {
            "pin_id": pin_id,
            "embedding_version": "planted-1",
            "embedding": vectors[pin_id].astype(np.float32),
            "brand": [*BRANDS, "unlisted", None][pin_id % 4],
            "created_at": None if pin_id == 2 else START_MS + pin_id * 2 * DAY_MS,
        }
        for pin_id in range(NUM_PINS)
    ]


def _users(rng: np.random.Generator) -> list[Row]:
    return [
        {
            "user_id": user_id,
            "as_of": START_MS + (33 + 4 * week) * DAY_MS,
            "embedding": np.ones(EMBEDDING_DIM, dtype=np.float32),
            "state": "core",
            "location": None,
            "spent": None if rng.random() < 0.2 else int(rng.integers(0, 1000)),
        }
        for user_id in range(2, NUM_USERS)
        for week in range(3)
    ]
