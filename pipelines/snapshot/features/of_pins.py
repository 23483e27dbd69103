"""Features of a pin over all users: how popular it is, how fast that changes, how old it is.

They come from what the first pass counted (`pipelines.snapshot.spill`). Not for numbers that the
log holds for a pin: `logged`. Tested in
tests/pipelines/snapshot/features/test_against_slow_reference.py.
"""

import numpy as np
import numpy.typing as npt

from pipelines.contracts.features.catalogue import FIRST_SEEN_DAYS
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Ints
from pipelines.event_log.first_seen import NEVER_MS
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

    The first appearance is over all users, and lies within what was read. A pin that appeared
    longer ago than FIRST_SEEN_DAYS has that age, because it may be older still: otherwise ages
    would grow with the distance from the start of what was read. A column of pins is not cut.
    """
    if feature.column is not None:
        passed_ms = seen.asked_at - seen.number_of_pin(feature.column)
        return _positive_hours(passed_ms, passed_ms > 0)
    first_known_at = seen.pins.first_known_at[seen.pointers.example_pin_row]
    is_seen = (first_known_at != NEVER_MS) & (first_known_at < seen.asked_at)
    passed_ms = np.where(is_seen, seen.asked_at - first_known_at, 0)
    return _positive_hours(np.minimum(passed_ms, FIRST_SEEN_DAYS * DAY_MS), is_seen)


def _positive_hours(passed_ms: npt.NDArray, is_known: npt.NDArray[np.bool_]) -> Floats:
    return np.where(is_known, log1p_hours(np.where(is_known, passed_ms, 0)), np.float32(np.nan))


def _count(seen: FeatureInputs, trailing_days: int) -> Ints:
    return seen.pins.popularity.at(seen.popularity_place, trailing_days)
