"""Features of the request itself: its place in the session and in the day and week.

Not for what its user did: `of_users`. Tested in
tests/pipelines/snapshot/features/test_against_slow_reference.py.
"""

import math
from collections.abc import Callable

import numpy as np

from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Bools, Ints
from pipelines.snapshot.features.inputs import FeatureInputs, Floats, log1p

_MINUTE_MS = 60_000
_MINUTES_PER_DAY = 1440
_WEEKDAY_OF_EPOCH = 3  # 1970-01-01 was a Thursday


def session_position(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the user's earlier requests in the session, as known before the request.

    From a request one goes back over the user's earlier requests that the log knew of before it,
    as long as each is at most the gap before the one that was counted last.
    """
    requests = seen.ordered.requests
    gap_ms = round(float(feature.option("gap_minutes")) * _MINUTE_MS)
    counts = _count_back(requests.user_id, requests.impressed_at, seen.request_known_at, gap_ms)
    return seen.per_example(log1p(counts))


def _count_back(user_id: Ints, impressed_at: Ints, known_at: Ints, gap_ms: int) -> Ints:
    """Return the earlier known requests of each request's session; requests by user and time."""
    counts = np.zeros(len(user_id), dtype=np.int64)
    waiting = np.arange(len(user_id))  # the requests whose session may reach further back
    last_at = impressed_at.copy()  # of the earliest request that was counted for each
    distance = 0
    while len(waiting):
        distance += 1
        waiting = waiting[waiting >= distance]
        earlier = waiting - distance
        goes_on: Bools = (user_id[earlier] == user_id[waiting]) & (
            last_at[waiting] - impressed_at[earlier] <= gap_ms
        )
        waiting, earlier = waiting[goes_on], earlier[goes_on]
        is_known = known_at[earlier] < impressed_at[waiting]
        counted = waiting[is_known]
        counts[counted] += 1
        last_at[counted] = impressed_at[earlier[is_known]]
    return counts


def hour_sin(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return the sine of the hour of the day (UTC) as an angle, to the minute."""
    return seen.per_example(_of_minute(math.sin)[_minute(seen)])


def hour_cos(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return the cosine of the hour of the day (UTC) as an angle, to the minute."""
    return seen.per_example(_of_minute(math.cos)[_minute(seen)])


def weekday(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return the day of the week (UTC), 0 for Monday to 6."""
    days = seen.ordered.requests.impressed_at // DAY_MS
    return seen.per_example(((days + _WEEKDAY_OF_EPOCH) % 7).astype(np.float32))


def _minute(seen: FeatureInputs) -> Ints:
    """Return the minute of the day of each request."""
    return seen.ordered.requests.impressed_at % DAY_MS // _MINUTE_MS


def _of_minute(function: Callable[[float], float]) -> Floats:
    angles = [2 * math.pi * minute / _MINUTES_PER_DAY for minute in range(_MINUTES_PER_DAY)]
    return np.array([function(angle) for angle in angles])
