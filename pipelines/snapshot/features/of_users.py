"""Features of a user's own actions: how many there were, and how long ago the last one was.

They look at the timeline up to the request's pointer. Not for what the actions' pins are like:
`similarity`. Tested in tests/pipelines/snapshot/features/test_against_slow_reference.py.
"""

import numpy as np

from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import EventIndex
from pipelines.snapshot.features.inputs import FeatureInputs, Floats, Touches, log1p, log1p_hours


def past_engagements(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the user's earlier actions on this very pin."""
    return log1p(seen.pin_touches.count)


def since_last_touch_of_pin(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the hours since the user's last action on the pin, NaN if there was none."""
    return _since(seen, seen.pin_touches)


def since_last_touch_of_category(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the hours since the user's last action on a pin of the same category."""
    return _since(seen, seen.category_touches(str(feature.category)))


def user_actions(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the user's earlier actions of one type."""
    pointers = seen.pointers
    is_type = pointers.timeline.type_id == seen.plan.action_type_ids[str(feature.action_type)]
    before = np.concatenate([[0], np.cumsum(is_type)])
    counts = before[pointers.timeline_end] - before[pointers.timeline_start]
    return seen.per_example(log1p(counts))


def user_activity(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return log1p of the user's actions that became known in the days before the request."""
    requests, pointers = seen.ordered.requests, seen.pointers
    window_ms = round(float(feature.option("days")) * DAY_MS)
    index = EventIndex(pointers.timeline.user_id, pointers.timeline.known_at, is_sorted=True)
    start = index.position(requests.user_id, requests.impressed_at - window_ms)
    return seen.per_example(log1p(pointers.timeline_end - start))


def _since(seen: FeatureInputs, touches: Touches) -> Floats:
    passed_ms = np.where(touches.count > 0, seen.asked_at - touches.newest_acted_at, 0)
    return np.where(touches.count > 0, log1p_hours(passed_ms), np.float32(np.nan))
