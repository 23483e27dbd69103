"""Fourth step of the kernel: for each head, which examples got its action in the label window.

Counts besides which actions fit no request, for the data gate. Not for what the model is told:
`features` counts only what was known before the request.
"""

from typing import NamedTuple

import numpy as np

from pipelines.contracts.artifacts import EventCounts
from pipelines.event_log.event_index import Bools, EventIndex, Ints
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import Labels, OrderedRows


class _Matching(NamedTuple):
    """One rule for which actions count: an action counts for the examples that have its key."""

    example_keys: Ints
    action_keys: Ints
    is_used: Bools  # which actions count in this way


def label_examples(ordered: OrderedRows, plan: SnapshotPlan) -> Labels:
    """Return 1 where the pin got the head's action within the label window of its impression.

    An action that names its request counts for that request alone; one that names none counts for
    every impression of the pin to the user within the window.
    """
    actions, start = ordered.actions, ordered.examples.impressed_at
    matchings = _matchings(ordered)
    labels = {}
    for head in plan.features.heads:
        is_type = actions.type_id == plan.action_type_ids[head.action_type]
        num_found = np.zeros(len(start), dtype=np.int64)
        for matching in matchings:
            is_counted = matching.is_used & is_type
            index = EventIndex(matching.action_keys[is_counted], actions.acted_at[is_counted])
            end = start + plan.label_window_ms
            num_found += index.count(matching.example_keys, start, end)
        labels[head.name] = (num_found > 0).astype(np.int8)
    return labels


def count_fits(ordered: OrderedRows, plan: SnapshotPlan) -> EventCounts:
    """Count the actions in the windows that do not fit the requests there.

    An action in the first label window of a window may well name a request from before it, and is
    not counted. An action without a request is early where the user was shown its pin within a
    label window after it and not before. As for the labels, a whole label window between the two
    is no longer within it.
    """
    actions, start = ordered.actions, ordered.examples.impressed_at
    is_inside, is_settled = (
        np.any([(actions.acted_at >= window.start_ms + skipped) & (actions.acted_at < window.end_ms)
                for window in plan.windows.values()], axis=0)
        for skipped in (0, plan.label_window_ms)
    )  # fmt: skip
    is_naming = actions.names_request & is_settled
    by_user = _matchings(ordered)[1]
    is_asked = by_user.is_used & is_inside
    shown, keys = EventIndex(by_user.example_keys, start), by_user.action_keys[is_asked]
    acted_at, span = actions.acted_at[is_asked], plan.label_window_ms
    is_before = shown.count(keys, acted_at - span + 1, acted_at + 1) > 0
    is_after = shown.count(keys, acted_at + 1, acted_at + span) > 0
    return EventCounts(
        num_naming=int(is_naming.sum()),
        num_naming_unknown=int((is_naming & (actions.request < 0)).sum()),
        num_near=int((is_before | is_after).sum()),
        num_early=int((is_after & ~is_before).sum()),
    )


def _matchings(ordered: OrderedRows) -> tuple[_Matching, _Matching]:
    """Return the matching by (request, pin) and, for actions without a request, by (user, pin)."""
    requests, examples, actions = ordered.requests, ordered.examples, ordered.actions
    all_pins = np.unique(np.concatenate([examples.pin_id, actions.pin_id]))
    pin = np.searchsorted(all_pins, examples.pin_id)
    acted_pin = np.searchsorted(all_pins, actions.pin_id)
    # Requests are sorted by user, so the first row of a user's requests is a key of the user.
    user = np.searchsorted(requests.user_id, requests.user_id)[examples.request]
    acted_user = np.searchsorted(requests.user_id, actions.user_id)
    return (
        _Matching(
            example_keys=examples.request * len(all_pins) + pin,
            action_keys=actions.request * len(all_pins) + acted_pin,
            is_used=actions.request >= 0,
        ),
        _Matching(
            example_keys=user * len(all_pins) + pin,
            action_keys=acted_user * len(all_pins) + acted_pin,
            is_used=~actions.names_request,
        ),
    )
