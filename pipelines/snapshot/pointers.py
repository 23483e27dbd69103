"""Second step of the kernel: the timeline, and where requests and examples point into it.

A shard keeps every action once. A request does not copy its sequence: it says where its user's
actions begin and where those known before it end. Here too it is found which examples and actions
are of one user and one pin, which labels and features ask for. Not for user rows: `users`.
"""

import numpy as np

from pipelines.event_log.event_index import Bools, EventIndex, Ints, distinct
from pipelines.snapshot.shard import OrderedRows, Pairs, PinIndex, Pointers


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
    is_in_timeline = _timeline(ordered, history_start_ms)
    timeline = ordered.actions.where(is_in_timeline)
    action_pin_row = pins.places.find(ordered.actions.pin_id)
    timeline_pin_row = action_pin_row[is_in_timeline]
    assert len(timeline_pin_row) == 0 or timeline_pin_row.min() >= 0
    example_pin_row = pins.rows_of(ordered.examples.pin_id)
    index = EventIndex(timeline.user_id, timeline.known_at, is_sorted=True)
    return Pointers(
        timeline=timeline,
        timeline_pin_row=timeline_pin_row,
        timeline_start=index.first(requests.user_id),
        timeline_end=index.position(requests.user_id, requests.impressed_at),
        example_pin_row=example_pin_row,
        pairs=_pair(ordered, example_pin_row, action_pin_row, len(pins.pin_ids)),
        is_in_timeline=is_in_timeline,
    )


def _timeline(ordered: OrderedRows, history_start_ms: int) -> Bools:
    """Return which actions are in the history and were known before the user's last request."""
    actions, requests = ordered.actions, ordered.requests
    last_request = np.searchsorted(requests.user_id, actions.user_id, side="right") - 1
    is_known_in_time = actions.known_at < requests.impressed_at[last_request]
    return is_known_in_time & (actions.acted_at >= history_start_ms)


def _pair(
    ordered: OrderedRows, example_pin_row: Ints, action_pin_row: Ints, num_pins: int
) -> Pairs:
    """Return which examples and actions are of one user and one pin.

    Args:
        ordered: the shard's rows.
        example_pin_row: [examples]
        action_pin_row: [actions] -1 for a pin that the snapshot does not have.
        num_pins: of the snapshot.
    """
    requests, examples = ordered.requests, ordered.examples
    users = distinct(requests.user_id)
    user = np.searchsorted(users, requests.user_id)
    keys = user[examples.request] * num_pins + example_pin_row
    shown = EventIndex(keys, examples.impressed_at)
    of_example = np.empty(len(keys), dtype=np.int64)
    of_example[shown.order] = shown.ranks
    acted = np.searchsorted(users, ordered.actions.user_id) * num_pins + action_pin_row
    is_there = action_pin_row >= 0
    of_action = np.full(len(acted), -1)
    of_action[is_there] = shown.rank(acted[is_there])
    return Pairs(shown, of_example, of_action)
