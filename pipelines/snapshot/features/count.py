"""Fifth step of the kernel: numbers computed from what was known before each request.

One function for each feature, in the order of the catalogue: a function gets a shard and a feature,
and returns its number for each example, NaN where it is missing. Cosines (`similarity`) and the
recipe's own functions (`own`) have modules of their own. Not for categorical features:
`pipelines.event_log.reader` encodes them as rows are read. Not for what the numbers mean:
`pipelines.contracts.features`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.contracts.config import NumericFeature, flag_name, number_columns
from pipelines.contracts.errors import OwnFunctionError
from pipelines.contracts.features import LOG_TABLES
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.event_log.event_index import EventIndex
from pipelines.event_log.reader import raw_column
from pipelines.recipes.own_functions import require_unchanged
from pipelines.snapshot.features import own, similarity
from pipelines.snapshot.features.inputs import FeatureInputs, Floats, Touches
from pipelines.snapshot.features.sessions import count_earlier

_MINUTE_MS = 60_000
_MINUTES_PER_DAY = 1440
_WEEKDAY_OF_EPOCH = 3  # 1970-01-01 was a Thursday


def _popularity(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the wanted actions on the pin in the days before the request's day.

    The windows are those of `pin_popularity` (`snapshot.popularity_days`) and of
    `pin_popularity_1d`, `_7d` and `_28d`.
    """
    suffix = feature.name.removeprefix("pin_popularity").strip("_d")
    days = int(suffix) if suffix else seen.plan.config.popularity_days
    return _log1p(seen.popularity_of(days))


def _pin_age(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the hours since the pin's first appearance, NaN where it had none before.

    The first appearance is over all users, in the FIRST_SEEN_DAYS before the request's day and on
    that day. Every request looks back equally far, so that ages do not grow with the distance from
    the start of what was read. A column of pins is looked at however old its times are.
    """
    if feature.column is not None:
        passed_ms: npt.NDArray[Any] = seen.asked_at - seen.number_of_pin(feature.column)
    else:
        day_places = seen.request_day_place[seen.request]
        # NEVER_MS, of a pin that did not appear, is after every request.
        first_known_at = seen.pins.first_seen[seen.pointers.example_pin_row, day_places]
        passed_ms = seen.asked_at - first_known_at
    return _log1p_hours(passed_ms, passed_ms > 0)


def _since(seen: FeatureInputs, touches: Touches) -> Floats:
    return _log1p_hours(seen.asked_at - touches.newest_acted_at, touches.count > 0)


def _user_actions(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the user's earlier actions of one type."""
    pointers = seen.pointers
    is_type = pointers.timeline.type_id == seen.plan.action_type_ids[str(feature.action_type)]
    before = np.concatenate([[0], np.cumsum(is_type)])
    counts = before[pointers.timeline_end] - before[pointers.timeline_start]
    return seen.per_example(_log1p(counts))


def _user_activity(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the user's actions that became known in the days before the request."""
    requests, pointers = seen.ordered.requests, seen.pointers
    window_ms = round(float(feature.option("days")) * DAY_MS)
    index = EventIndex(pointers.timeline.user_id, pointers.timeline.known_at, is_sorted=True)
    start = index.position(requests.user_id, requests.impressed_at - window_ms)
    return seen.per_example(_log1p(pointers.timeline_end - start))


def _session_position(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the user's earlier requests in the session (`sessions.count_earlier`)."""
    requests = seen.ordered.requests
    gap_ms = round(float(feature.option("gap_minutes")) * _MINUTE_MS)
    counts = count_earlier(requests.user_id, requests.impressed_at, seen.request_known_at, gap_ms)
    return seen.per_example(_log1p(counts))


def _hour(function: Callable[[float], float]) -> Callable[[FeatureInputs, NumericFeature], Floats]:
    """Return a feature: a function of the hour of the day (UTC) as an angle, to the minute."""
    angles = [2 * math.pi * minute / _MINUTES_PER_DAY for minute in range(_MINUTES_PER_DAY)]
    of_minute = np.array([function(angle) for angle in angles])

    def compute(seen: FeatureInputs, feature: NumericFeature) -> Floats:
        minute = seen.ordered.requests.impressed_at % DAY_MS // _MINUTE_MS
        return seen.per_example(of_minute[minute])

    return compute


def _logged_of_user(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return the number of the user's newest row that is not after the request, or NaN."""
    row = seen.users.spilled_row
    of_requests = np.full(len(row), np.nan)
    if seen.spilled_users is not None:
        numbers = np.asarray(seen.spilled_users[raw_column(str(feature.column_of("users")))])
        of_requests[row >= 0] = numbers[row[row >= 0]]
    return seen.per_example(of_requests)


COMPUTATIONS: Mapping[str, Callable[[FeatureInputs, NumericFeature], Floats]] = {
    **dict.fromkeys((f"pin_popularity{days}" for days in ("", "_1d", "_7d", "_28d")), _popularity),
    # The last day's wanted actions against a week's daily mean.
    "pin_popularity_slope": lambda seen, _: (
        _log1p(seen.popularity_of(1)) - _log1p(seen.popularity_of(7) / 7)
    ),
    "pin_age": _pin_age,
    # The user's earlier actions on this very pin, and hours since the last of them; NaN if none.
    "past_engagements": lambda seen, _: _log1p(seen.pin_touches.count),
    "since_last_touch_of_pin": lambda seen, _: _since(seen, seen.pin_touches),
    "since_last_touch_of_category": lambda seen, feature: _since(
        seen, seen.category_touches(str(feature.category))
    ),
    "user_actions:<action_type>": _user_actions,
    "user_activity": _user_activity,
    "similarity_best": similarity.best,
    "similarity_mean": similarity.mean,
    "similarity_decayed": similarity.decayed,
    "session_position": _session_position,
    "hour_sin": _hour(math.sin),
    "hour_cos": _hour(math.cos),
    # 0 for Monday to 6 (UTC).
    "weekday": lambda seen, _: seen.per_example(
        (seen.ordered.requests.impressed_at // DAY_MS + _WEEKDAY_OF_EPOCH) % 7
    ),
    # As logged; NaN where the log has none, or of a pin had none before the request.
    "impressions.<column>": lambda seen, feature: np.asarray(
        seen.ordered.examples.rows[raw_column(str(feature.column_of("impressions")))]
    ),
    "pins.<column>": lambda seen, feature: seen.number_of_pin(str(feature.column_of("pins"))),
    "users.<column>": _logged_of_user,
    "<package.module>:<function>": own.compute,
}
"""How each feature of the catalogue is computed: [examples], NaN where it is missing."""


def compute_numbers(
    seen: FeatureInputs, numeric: Sequence[NumericFeature]
) -> dict[str, npt.NDArray[Any]]:
    """Return the numbers of some features, and their flags, each [examples].

    A number is 0 where it is missing, and then its flag, if it may be missing, is 1.

    Raises:
        ConfigurationError: one of the recipe's own functions is refused.
    """
    numbers: dict[str, npt.NDArray[Any]] = {}
    for feature in numeric:
        values = COMPUTATIONS[feature.meaning.name](seen, feature).astype(np.float32, copy=False)
        if feature.has_flag:
            is_missing = np.isnan(values)
            values = np.where(is_missing, np.float32(0), values)
            numbers[flag_name(feature.name)] = is_missing.astype(np.int8)
        numbers[feature.name] = values
    return numbers


def _log1p(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return log(1 + value) as float32: 0 for nothing."""
    return np.log1p(values.astype(np.float64)).astype(np.float32)


def _log1p_hours(passed_ms: npt.NDArray[Any], is_known: npt.NDArray[np.bool_]) -> Floats:
    """Return log(1 + hours) of durations in milliseconds, NaN where they are not known."""
    hours = np.where(is_known, passed_ms, 0) / HOUR_MS
    return np.where(is_known, _log1p(hours), np.float32(np.nan))


def function_problems(numeric: Sequence[NumericFeature]) -> Iterator[str]:
    """Yield, in sentences, which own functions this process cannot import or call."""
    for feature in numeric:
        try:
            require_unchanged([feature.as_asked])
        except OwnFunctionError as error:
            yield str(error)


def contract_problems(numeric: Sequence[NumericFeature]) -> Iterator[str]:
    """Yield, in sentences, which features are columns of the event log's contract."""
    for table in LOG_TABLES:
        contract = EVENT_LOG_TABLES[table].names
        for name in number_columns(numeric, table):
            if name in contract:
                yield (
                    f"features.numeric names the column {name!r} of {table}, which belongs to the "
                    f"contract of the event log; expected a column beyond {contract}, because "
                    f"these say what was shown and when, and not what is known of it; leave it out"
                )
