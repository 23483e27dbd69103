"""Fifth step of the kernel: numbers computed from what was known before each request.

Not for categorical features: `pipelines.event_log.categories` encodes them as rows are read.
"""

import numpy as np
import numpy.typing as npt

from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import ActionTimes, EventIndex, Ints, has_recent_action
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import Counts, OrderedRows, PinIndex, Pointers


def count_features(
    ordered: OrderedRows, pointers: Pointers, pins: PinIndex, plan: SnapshotPlan
) -> Counts:
    """Return which requests are of core users, and the numeric features of each example.

    A core user did the main head's action in the `core_days` before the request. The number
    `pin_popularity` is log(1 + wanted actions on the pin in the days before the request's day);
    `past_engagements` is log(1 + the user's earlier actions on this very pin).
    """
    requests, request = ordered.requests, ordered.examples.request
    target_id = plan.action_type_ids[plan.features.main_head.action_type]
    repins = ordered.actions.where(ordered.actions.type_id == target_id)
    request_day = requests.impressed_at[request] // DAY_MS
    return Counts(
        is_core=has_recent_action(
            ActionTimes(repins.user_id, repins.acted_at, repins.known_at),
            requests.user_id,
            requests.impressed_at,
            plan.config.core_days * DAY_MS,
        ),
        numbers={
            "pin_popularity": _log_count(pins.popularity.of(request_day, pointers.example_pin_row)),
            "past_engagements": _log_count(_count_past_engagements(pointers, request)),
        },
    )


def _count_past_engagements(pointers: Pointers, request: Ints) -> Ints:
    """Return, per example, how many of the actions that its request sees are on its own pin."""
    timeline_rows = np.arange(len(pointers.timeline_pin_row), dtype=np.int64)
    index = EventIndex(pointers.timeline_pin_row, timeline_rows)
    start, end = pointers.timeline_start[request], pointers.timeline_end[request]
    return index.count(pointers.example_pin_row, start, end)


def _log_count(counts: Ints) -> npt.NDArray[np.float32]:
    """Return log(1 + count) as float32: finite, and 0 for nothing."""
    return np.log1p(counts.astype(np.float64)).astype(np.float32)
