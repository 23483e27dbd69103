"""Features of the request itself: its place in the session and in the day and week.

Not for what its user did: `of_users`. Tested in
tests/pipelines/snapshot/features/test_against_slow_reference.py.
"""

import math
from collections.abc import Callable

import numpy as np

from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Ints
from pipelines.snapshot.features.inputs import FeatureInputs, Floats, log1p
from pipelines.snapshot.features.sessions import count_earlier

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
    counts = count_earlier(requests.user_id, requests.impressed_at, seen.request_known_at, gap_ms)
    return seen.per_example(log1p(counts))


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
