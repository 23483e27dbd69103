"""Every numeric feature again, in plain loops over the event log's rows: slow, and easy to check.

A function is given what a request asks about and returns the number, or None where it is missing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from pipelines.contracts.config import RunConfig
from pipelines.contracts.time import DAY_MS, HOUR_MS
from support.random_log import BRANDS, RandomLog, Row
from support.worlds import MINUTE_MS


@dataclass(frozen=True)
class Asked:
    """One example: who was shown which pin, when and in which request."""

    log: RandomLog
    config: RunConfig
    training_start_ms: int
    window_requests: dict[str, tuple[int, int, int]]  # id -> user, impressed_at, known_at
    request_id: str
    user_id: int
    pin_id: int
    at_ms: int

    @property
    def history(self) -> list[Row]:
        """The user's actions that were known before the request and lie in the history."""
        start_ms = self.training_start_ms - self.config.snapshot.history_days * DAY_MS
        return [
            row
            for row in self.log.actions
            if row["user_id"] == self.user_id
            and row["known_at"] < self.at_ms
            and row["acted_at"] >= start_ms
        ]

    def newest(self, count: int) -> list[Row]:
        """The newest of the history, in the order in which they became known."""
        types = self.config.features.action_types
        rows = sorted(
            self.history,
            key=lambda row: (
                row["known_at"],
                row["acted_at"],
                row["pin_id"],
                types.index(row["action_type"]),
            ),
        )
        return rows[-count:]

    def cosine(self, pin_id: int) -> float:
        one, two = (
            self.log.pins[pin]["embedding"].astype(np.float64) for pin in (self.pin_id, pin_id)
        )
        length = math.sqrt(one @ one) * math.sqrt(two @ two)
        return float(one @ two) / length if length else 0.0


def popularity(asked: Asked, days: int) -> float:
    today = asked.at_ms // DAY_MS
    count = 0
    for row in asked.log.actions:
        is_inside = today - days <= row["acted_at"] // DAY_MS < today
        count += is_inside and row["known_at"] // DAY_MS < today and row["pin_id"] == asked.pin_id
    return math.log1p(count)


def slope(asked: Asked) -> float:
    week = math.expm1(popularity(asked, 7))
    return popularity(asked, 1) - math.log1p(week / 7)


def age(asked: Asked) -> float | None:
    start_ms = (asked.at_ms // DAY_MS - 28) * DAY_MS
    seen = [
        row["known_at"]
        for rows, when in ((asked.log.impressions, "impressed_at"), (asked.log.actions, "acted_at"))
        for row in rows
        if row["pin_id"] == asked.pin_id and row[when] >= start_ms and row["known_at"] < asked.at_ms
    ]
    if not seen:
        return None
    return math.log1p((asked.at_ms - min(seen)) / HOUR_MS)


def age_by_column(asked: Asked) -> float | None:
    created_at = asked.log.pins[asked.pin_id]["created_at"]
    if created_at is None or created_at >= asked.at_ms:
        return None
    return math.log1p((asked.at_ms - created_at) / HOUR_MS)


def _since(asked: Asked, pins: set[int]) -> float | None:
    touched = [row["acted_at"] for row in asked.history if row["pin_id"] in pins]
    return math.log1p((asked.at_ms - max(touched)) / HOUR_MS) if touched else None


def since_pin(asked: Asked) -> float | None:
    return _since(asked, {asked.pin_id})


def since_category(asked: Asked) -> float | None:
    brand = asked.log.pins[asked.pin_id]["brand"]
    if brand not in BRANDS:
        return None
    return _since(asked, {row["pin_id"] for row in asked.log.pins if row["brand"] == brand})


def actions_of(asked: Asked, kind: str) -> float:
    return math.log1p(sum(row["action_type"] == kind for row in asked.history))


def activity(asked: Asked, days: float) -> float:
    start_ms = asked.at_ms - days * DAY_MS
    return math.log1p(sum(row["known_at"] >= start_ms for row in asked.history))


def best(asked: Asked, count: int = 50) -> float | None:
    return max((asked.cosine(row["pin_id"]) for row in asked.newest(count)), default=None)


def mean(asked: Asked, count: int = 50) -> float | None:
    found = [asked.cosine(row["pin_id"]) for row in asked.newest(count)]
    return sum(found) / len(found) if found else None


def decayed(asked: Asked, half_life_days: float = 7) -> float | None:
    rows = asked.newest(50)
    if not rows:
        return None
    weights = [0.5 ** ((asked.at_ms - row["acted_at"]) / (half_life_days * DAY_MS)) for row in rows]
    cosines = [asked.cosine(row["pin_id"]) for row in rows]
    return sum(w * c for w, c in zip(weights, cosines, strict=True)) / sum(weights)


def session(asked: Asked, gap_minutes: float) -> float:
    earlier = sorted(
        (
            at_ms
            for user_id, at_ms, known_at in asked.window_requests.values()
            if user_id == asked.user_id and known_at < asked.at_ms
        ),
        reverse=True,
    )
    count, last_ms = 0, asked.at_ms
    for at_ms in earlier:
        if last_ms - at_ms > gap_minutes * MINUTE_MS:
            break
        count, last_ms = count + 1, at_ms
    return math.log1p(count)


def hour_angle(asked: Asked) -> float:
    moment = datetime.fromtimestamp(asked.at_ms / 1000, tz=UTC)
    return 2 * math.pi * (moment.hour + moment.minute / 60) / 24


def weekday(asked: Asked) -> float:
    return float(datetime.fromtimestamp(asked.at_ms / 1000, tz=UTC).weekday())


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def price(asked: Asked) -> float | None:
    [row] = [
        row
        for row in asked.log.impressions
        if row["request_id"] == asked.request_id and row["pin_id"] == asked.pin_id
    ]
    return _number(row["price"])


def created_at(asked: Asked) -> float | None:
    return _number(asked.log.pins[asked.pin_id]["created_at"])


def spent(asked: Asked) -> float | None:
    rows = [
        row
        for row in asked.log.users
        if row["user_id"] == asked.user_id and row["as_of"] <= asked.at_ms
    ]
    return _number(max(rows, key=lambda row: row["as_of"])["spent"]) if rows else None


SLOW: dict[str, Callable[[Asked], float | None]] = {
    "pin_popularity": lambda asked: popularity(asked, asked.config.snapshot.popularity_days),
    "pin_popularity_1d": lambda asked: popularity(asked, 1),
    "pin_popularity_7d": lambda asked: popularity(asked, 7),
    "pin_popularity_28d": lambda asked: popularity(asked, 28),
    "pin_popularity_slope": slope,
    "pin_age": age,
    "past_engagements": lambda asked: math.log1p(
        sum(row["pin_id"] == asked.pin_id for row in asked.history)
    ),
    "since_last_touch_of_pin": since_pin,
    "since_last_touch_of_category": since_category,
    "user_actions:click": lambda asked: actions_of(asked, "click"),
    "user_activity": lambda asked: activity(asked, 7),
    "similarity_best": best,
    "similarity_mean": mean,
    "similarity_decayed": decayed,
    "session_position": lambda asked: session(asked, 600),
    "hour_sin": lambda asked: math.sin(hour_angle(asked)),
    "hour_cos": lambda asked: math.cos(hour_angle(asked)),
    "weekday": weekday,
    "impressions.price": price,
    "pins.created_at": created_at,
    "users.spent": spent,
}
"""The slow way by the feature's name, with the options that the test gives it."""
