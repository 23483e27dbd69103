"""Fourth step of the kernel: for each head, which examples got its action in the label window.

Counts besides which actions fit no request, for the data gate. Not for what the model is told:
`features` counts only what was known before the request.
"""

from dataclasses import dataclass

import numpy as np

from pipelines.contracts.artifacts import EventCounts
from pipelines.event_log.event_index import Ints, order_by
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import Labels, OrderedRows, Pairs


@dataclass(frozen=True)
class Unnamed:
    """The actions that name no request and are on a pin that their user was shown some time.

    Each row of `rows` is the place of an action among the shard's. The others say where, among the
    examples of its user and pin by time (`Pairs.shown`), those begin that were shown less than a
    label window before it, those after it, and those a label window or more after it.
    """

    rows: Ints
    within: Ints
    later: Ints
    beyond: Ints


def find_unnamed(ordered: OrderedRows, pairs: Pairs, plan: SnapshotPlan) -> Unnamed:
    """Return the actions without a request, with the examples that they are near to."""
    rows = np.flatnonzero(~ordered.actions.names_request & (pairs.of_action >= 0))
    pair, acted_at, span = (
        pairs.of_action[rows],
        ordered.actions.acted_at[rows],
        plan.label_window_ms,
    )
    places = (pairs.shown.place(pair, acted_at + shift) for shift in (1 - span, 1, span))
    return Unnamed(rows, *places)


def label_examples(
    ordered: OrderedRows, pairs: Pairs, unnamed: Unnamed, plan: SnapshotPlan
) -> Labels:
    """Return 1 where the pin got the head's action within the label window of its impression.

    An action that names its request counts for that request alone; one that names none counts for
    every impression of the pin to the user within the window.
    """
    actions, num_examples = ordered.actions, len(ordered.examples.request)
    rows, example = _examples_of_named(ordered, pairs)
    passed_ms = actions.acted_at[rows] - ordered.examples.impressed_at[example]
    is_within = (passed_ms >= 0) & (passed_ms < plan.label_window_ms)
    rows, example = rows[is_within], example[is_within]
    labels = {}
    for head in plan.features.heads:
        type_id = plan.action_type_ids[head.action_type]
        label = np.zeros(num_examples, dtype=np.int8)
        label[example[actions.type_id[rows] == type_id]] = 1
        is_type = actions.type_id[unnamed.rows] == type_id
        # One more from where the examples within the window of an action begin, one less after.
        changes = np.bincount(unnamed.within[is_type], minlength=num_examples + 1)
        changes -= np.bincount(unnamed.later[is_type], minlength=num_examples + 1)
        label[pairs.shown.order[np.cumsum(changes[:-1]) > 0]] = 1
        labels[head.name] = label
    return labels


def _examples_of_named(ordered: OrderedRows, pairs: Pairs) -> tuple[Ints, Ints]:
    """Return the actions that name a request that showed their pin, and the example of each."""
    actions, examples = ordered.actions, ordered.examples
    rows = np.flatnonzero((actions.request >= 0) & (pairs.of_action >= 0))
    keys = examples.request * pairs.num_pairs + pairs.of_example
    order = order_by(keys)
    wanted = actions.request[rows] * pairs.num_pairs + pairs.of_action[rows]
    place = np.minimum(np.searchsorted(keys[order], wanted), len(order) - 1)
    example = order[place]
    is_there = keys[example] == wanted
    return rows[is_there], example[is_there]


def count_fits(ordered: OrderedRows, unnamed: Unnamed, plan: SnapshotPlan) -> EventCounts:
    """Count the actions in the windows that do not fit the requests there.

    An action in the first label window of a window may well name a request from before it, and is
    not counted. An action without a request is early where the user was shown its pin within a
    label window after it and not before. As for the labels, a whole label window between the two
    is no longer within it.
    """
    actions = ordered.actions
    is_inside, is_settled = (
        np.any([(actions.acted_at >= window.start_ms + skipped) & (actions.acted_at < window.end_ms)
                for window in plan.windows.values()], axis=0)
        for skipped in (0, plan.label_window_ms)
    )  # fmt: skip
    is_naming = actions.names_request & is_settled
    is_asked = is_inside[unnamed.rows]
    is_before = (unnamed.later > unnamed.within)[is_asked]
    is_after = (unnamed.beyond > unnamed.later)[is_asked]
    return EventCounts(
        num_naming=int(is_naming.sum()),
        num_naming_unknown=int((is_naming & (actions.request < 0)).sum()),
        num_near=int((is_before | is_after).sum()),
        num_early=int((is_after & ~is_before).sum()),
    )
