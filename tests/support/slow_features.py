"""Every numeric feature again, in plain loops over the event log's rows: slow, and easy to check.

A function is given what a request asks about and returns the number, or None where it is missing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import log1p
from typing import NamedTuple

import numpy as np

from pipelines.contracts.config import RunConfig
from pipelines.contracts.time import DAY_MS, HOUR_MS
from support.random_log import BRANDS, RandomLog, Row
from support.worlds import MINUTE_MS

Slow = Callable[["Asked"], float | None]


class AskedRequest(NamedTuple):
    """A request of the snapshot's windows."""

    request_id: str
    user_id: int
    at_ms: int
    known_at: int


@dataclass(frozen=True)
class Asked:
    """One example: who was shown which pin, when and in which request."""

    log: RandomLog
    config: RunConfig
    training_start_ms: int
    requests: list[AskedRequest]
    request: AskedRequest
    pin_id: int

    @property
    def at_ms(self) -> int:
        return self.request.at_ms

    @property
    def pin(self) -> Row:
        return self.log.pins[self.pin_id]

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.at_ms / 1000, tz=UTC)

    @property
    def history(self) -> list[Row]:
        """The user's actions that were known before the request and lie in the history."""
        start_ms = self.training_start_ms - self.config.snapshot.history_days * DAY_MS
        return [
            row
            for row in self.log.actions
            if row["user_id"] == self.request.user_id
            and row["known_at"] < self.at_ms
            and row["acted_at"] >= start_ms
        ]

    def newest(self, count: int) -> list[Row]:
        """The newest of the history, in the order in which they became known."""
        types = self.config.features.action_types

        def key(row: Row) -> tuple[int, ...]:
            kind = types.index(row["action_type"])
            return row["known_at"], row["acted_at"], row["pin_id"], kind

        return sorted(self.history, key=key)[-count:]

    def cosines(self, rows: list[Row]) -> list[float]:
        """The cosines of the pin with those of some actions."""
        found = []
        for row in rows:
            pins = (self.pin, self.log.pins[row["pin_id"]])
            one, two = (each["embedding"].astype(np.float64) for each in pins)
            length = math.sqrt(one @ one) * math.sqrt(two @ two)
            found.append(float(one @ two) / length if length else 0.0)
        return found


def popularity(asked: Asked, days: int) -> float:
    today = asked.at_ms // DAY_MS
    count = 0
    for row in asked.log.actions:
        is_inside = today - days <= row["acted_at"] // DAY_MS < today
        count += is_inside and row["known_at"] // DAY_MS < today and row["pin_id"] == asked.pin_id
    return log1p(count)


def hours_since(asked: Asked, times_ms: list[int], earliest: bool = False) -> float | None:
    if not times_ms:
        return None
    time_ms = min(times_ms) if earliest else max(times_ms)
    return log1p((asked.at_ms - time_ms) / HOUR_MS)


def age(asked: Asked) -> float | None:
    start_ms = (asked.at_ms // DAY_MS - 28) * DAY_MS
    seen = [
        row["known_at"]
        for rows, when in ((asked.log.impressions, "impressed_at"), (asked.log.actions, "acted_at"))
        for row in rows
        if row["pin_id"] == asked.pin_id and row[when] >= start_ms and row["known_at"] < asked.at_ms
    ]
    return hours_since(asked, seen, earliest=True)


def age_by_column(asked: Asked) -> float | None:
    created_at = asked.pin["created_at"]
    is_known = created_at is not None and created_at < asked.at_ms
    return hours_since(asked, [created_at] if is_known else [])


def since_pin(asked: Asked) -> float | None:
    touched = [row["acted_at"] for row in asked.history if row["pin_id"] == asked.pin_id]
    return hours_since(asked, touched)


def since_category(asked: Asked) -> float | None:
    brand = asked.pin["brand"]
    alike = {row["pin_id"] for row in asked.log.pins if row["brand"] == brand and brand in BRANDS}
    return hours_since(asked, [row["acted_at"] for row in asked.history if row["pin_id"] in alike])


def activity(asked: Asked, days: float) -> float:
    start_ms = asked.at_ms - days * DAY_MS
    return log1p(sum(row["known_at"] >= start_ms for row in asked.history))


def best(asked: Asked, count: int = 50) -> float | None:
    return max(asked.cosines(asked.newest(count)), default=None)


def mean(asked: Asked, count: int = 50) -> float | None:
    found = asked.cosines(asked.newest(count))
    return sum(found) / len(found) if found else None


def decayed(asked: Asked, half_life_days: float = 7) -> float | None:
    if not (rows := asked.newest(50)):
        return None
    weights = [0.5 ** ((asked.at_ms - row["acted_at"]) / (half_life_days * DAY_MS)) for row in rows]
    return sum(w * c for w, c in zip(weights, asked.cosines(rows), strict=True)) / sum(weights)


def session(asked: Asked, gap_minutes: float) -> float:
    count, last_ms = 0, asked.at_ms
    for earlier in sorted(asked.requests, key=lambda each: each.at_ms, reverse=True):
        if earlier.user_id != asked.request.user_id or earlier.known_at >= asked.at_ms:
            continue
        if last_ms - earlier.at_ms > gap_minutes * MINUTE_MS:
            break
        count, last_ms = count + 1, earlier.at_ms
    return log1p(count)


def hour_angle(asked: Asked) -> float:
    return 2 * math.pi * (asked.moment.hour + asked.moment.minute / 60) / 24


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def price(asked: Asked) -> float | None:
    wanted = (asked.request.request_id, asked.pin_id)
    rows = asked.log.impressions
    [row] = [row for row in rows if (row["request_id"], row["pin_id"]) == wanted]
    return _number(row["price"])


def spent(asked: Asked) -> float | None:
    own = [row for row in asked.log.users if row["user_id"] == asked.request.user_id]
    rows = [row for row in own if row["as_of"] <= asked.at_ms]
    return _number(max(rows, key=lambda row: row["as_of"])["spent"]) if rows else None


SLOW: dict[str, Slow] = {
    "pin_popularity": lambda asked: popularity(asked, asked.config.snapshot.popularity_days),
    "pin_popularity_1d": lambda asked: popularity(asked, 1),
    "pin_popularity_7d": lambda asked: popularity(asked, 7),
    "pin_popularity_28d": lambda asked: popularity(asked, 28),
    "pin_popularity_slope": lambda asked: (
        popularity(asked, 1) - log1p(math.expm1(popularity(asked, 7)) / 7)
    ),
    "pin_age": age,
    "past_engagements": lambda asked: log1p(
        sum(row["pin_id"] == asked.pin_id for row in asked.history)
    ),
    "since_last_touch_of_pin": since_pin,
    "since_last_touch_of_category": since_category,
    "user_actions:click": lambda asked: log1p(
        sum(row["action_type"] == "click" for row in asked.history)
    ),
    "user_activity": lambda asked: activity(asked, 7),
    "similarity_best": best,
    "similarity_mean": mean,
    "similarity_decayed": decayed,
    "session_position": lambda asked: session(asked, 600),
    "hour_sin": lambda asked: math.sin(hour_angle(asked)),
    "hour_cos": lambda asked: math.cos(hour_angle(asked)),
    "weekday": lambda asked: float(asked.moment.weekday()),
    "impressions.price": price,
    "pins.created_at": lambda asked: _number(asked.pin["created_at"]),
    "users.spent": spent,
}
"""The slow way by the feature's name, with the options that the test gives it."""
