"""Features of a pin over all users: how popular it is, how fast that changes, how old it is.

They come from what the first pass counted (`pipelines.snapshot.spill`). Not for numbers that the
log holds for a pin: `logged`. Tested in
tests/pipelines/snapshot/features/test_against_slow_reference.py.
"""

import numpy as np
import numpy.typing as npt

from pipelines.contracts.features.numeric import NumericFeature
from pipelines.event_log.popularity import Counts
from pipelines.snapshot.features.inputs import FeatureInputs, Floats, log1p, log1p_hours


def popularity(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the wanted actions on the pin in the days before the request's day.

    The windows are those of `pin_popularity` (`snapshot.popularity_days`) and of
    `pin_popularity_1d`, `_7d` and `_28d`.
    """
    suffix = feature.name.removeprefix("pin_popularity").strip("_d")
    return log1p(_count(seen, int(suffix) if suffix else seen.plan.config.popularity_days))


def slope(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the last day's wanted actions minus log1p of a week's daily mean."""
    return log1p(_count(seen, 1)) - log1p(_count(seen, 7) / 7)


def age(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the hours since the pin's first appearance, NaN where it had none before.

    The first appearance is over all users, in the FIRST_SEEN_DAYS before the request's day and on
    that day. Every request looks back equally far, so that ages do not grow with the distance from
    the start of what was read. A column of pins is looked at however old its times are.
    """
    if feature.column is not None:
        passed_ms = seen.asked_at - seen.number_of_pin(feature.column)
        return _positive_hours(passed_ms, passed_ms > 0)
    day_places = seen.request_day_place[seen.request]
    first_known_at = seen.pins.first_seen.at(day_places, seen.pointers.example_pin_row)
    # NEVER_MS, of a pin that did not appear, is after every request.
    seen_for_ms = seen.asked_at - first_known_at
    return _positive_hours(seen_for_ms, seen_for_ms > 0)


def _positive_hours(passed_ms: npt.NDArray, is_known: npt.NDArray[np.bool_]) -> Floats:
    return np.where(is_known, log1p_hours(np.where(is_known, passed_ms, 0)), np.float32(np.nan))


def _count(seen: FeatureInputs, trailing_days: int) -> Counts:
    return seen.pins.popularity.at(seen.popularity_place, trailing_days)
