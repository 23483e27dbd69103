"""Second step of the kernel: the timeline, and where requests and examples point into it.

A shard keeps every action once. A request does not copy its sequence: it says where its user's
actions begin and where those known before it end. Not for user rows: `users`.
"""

import numpy as np

from pipelines.event_log.event_index import EventIndex
from pipelines.snapshot.shard import Actions, OrderedRows, PinIndex, Pointers


def point(ordered: OrderedRows, pins: PinIndex, history_start_ms: int) -> Pointers:
    """Return the timeline and the rows that point into it and into the pins.

    The actions that a request sees were known strictly before it: what became known in the same
    millisecond is not seen. The event log holds acted_at <= known_at, so what was known before the
    request also happened before it.

    Args:
        ordered: the shard's rows.
        pins: the snapshot's pins.
        history_start_ms: the timeline holds no action that happened before this.
    """
    requests = ordered.requests
    timeline = _cut_timeline(ordered, history_start_ms)
    index = EventIndex(timeline.user_id, timeline.known_at)
    return Pointers(
        timeline=timeline,
        timeline_pin_row=pins.rows_of(timeline.pin_id),
        timeline_start=index.first(requests.user_id),
        timeline_end=index.position(requests.user_id, requests.impressed_at),
        example_pin_row=pins.rows_of(ordered.examples.pin_id),
    )


def _cut_timeline(ordered: OrderedRows, history_start_ms: int) -> Actions:
    """Keep the actions in the history that were known before the user's last request."""
    actions, requests = ordered.actions, ordered.requests
    last_request = np.searchsorted(requests.user_id, actions.user_id, side="right") - 1
    is_known_in_time = actions.known_at < requests.impressed_at[last_request]
    return actions.where(is_known_in_time & (actions.acted_at >= history_start_ms))
