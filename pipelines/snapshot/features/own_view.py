"""What a recipe's own function is given: arrays of one shard, and nothing of the labels.

A function returns one number for each example, and that number may depend only on

- the example's request and candidate, and the other candidates of the same request,
- the actions of the request's user in rows [timeline_start, timeline_end) of `actions`, which are
  those that were known strictly before the request,
- the user's earlier requests with a `known_at` before the request, the user's rows up to the
  request's, and the pins of all these.

The arrays hold more, because a shard is computed at once: later actions and requests, and those of
other users. `leak_check` tells a function that looks at them. All arrays are read-only. Tested in
tests/pipelines/snapshot/features/test_own.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.schemas import categorical_column
from pipelines.event_log.event_index import Ints, ranges
from pipelines.snapshot.features.inputs import FeatureInputs

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SeenRequests:
    """The shard's requests by (user_id, impressed_at)."""

    user_id: Ints
    impressed_at: Ints  # milliseconds
    known_at: Ints  # when the log knew of the request; an earlier one may be known too late
    timeline_start: Ints  # first row of the user in `actions`
    timeline_end: Ints  # one past the newest action known before the request
    user_row: Ints  # row of `users`
    first_example: Ints
    num_examples: Ints


@dataclass(frozen=True)
class SeenExamples:
    """The candidates, request by request."""

    request: Ints  # row of `requests`, ascending
    pin_row: Ints  # row of `pins`


@dataclass(frozen=True)
class SeenActions:
    """The actions by (user, known_at, acted_at)."""

    pin_row: Ints
    action_type_id: Ints  # counted from 1; see `Seen.action_type_ids`
    acted_at: Ints
    known_at: Ints


@dataclass(frozen=True)
class SeenPins:
    """The pins by pin_id. Which rows there are, and their numbers, may differ from call to call.

    Where pins have a time (PIN_TIME), one whose row was not known before the training window began
    has an embedding of zeros and codes of 0 in every request: a function is given each pin once,
    and could not tell before which request it was known.
    """

    pin_id: Ints
    embedding: Array  # float32 [pins, E]
    codes: Mapping[str, Array]  # of the recipe's categorical features; 0 is an unknown value


@dataclass(frozen=True)
class SeenUsers:
    """The user rows that requests point to; as_of is 0 for a user who had none yet."""

    user_id: Ints
    as_of: Ints
    embedding: Array  # float32 [users, E]
    codes: Mapping[str, Array]


@dataclass(frozen=True)
class Seen:
    """The arguments of a recipe's own function, as one value."""

    requests: SeenRequests
    examples: SeenExamples
    actions: SeenActions
    pins: SeenPins
    users: SeenUsers
    action_type_ids: Mapping[str, int]


def make_view(inputs: FeatureInputs) -> Seen:
    """Return what an own function may look at in a shard."""
    requests, pointers, features = inputs.ordered.requests, inputs.pointers, inputs.plan.features
    users = inputs.users.table
    actions = pointers.timeline
    return Seen(
        requests=SeenRequests(
            user_id=_frozen(requests.user_id),
            impressed_at=_frozen(requests.impressed_at),
            known_at=_frozen(inputs.request_known_at),
            timeline_start=_frozen(pointers.timeline_start),
            timeline_end=_frozen(pointers.timeline_end),
            user_row=_frozen(inputs.users.user_row),
            first_example=_frozen(requests.first_example),
            num_examples=_frozen(requests.num_examples),
        ),
        examples=SeenExamples(_frozen(inputs.request), _frozen(pointers.example_pin_row)),
        actions=SeenActions(
            pin_row=_frozen(pointers.timeline_pin_row),
            action_type_id=_frozen(actions.type_id),
            acted_at=_frozen(actions.acted_at),
            known_at=_frozen(actions.known_at),
        ),
        pins=_pins(inputs),
        users=SeenUsers(
            user_id=_frozen(to_numpy(users["user_id"])),
            as_of=_frozen(to_numpy(users["as_of"])),
            embedding=_frozen(to_numpy(users["embedding"])),
            codes=_codes(users, [f.name for f in features.categorical_of("users")]),
        ),
        action_type_ids=inputs.plan.action_type_ids,
    )


def _pins(inputs: FeatureInputs) -> SeenPins:
    pins, names = inputs.pins.table, inputs.plan.features.categorical_of("pins")
    embedding, codes = to_numpy(pins["embedding"]), _codes(pins, [f.name for f in names])
    rows = np.arange(len(pins))
    is_late = inputs.is_late(rows, np.full(len(rows), inputs.plan.training.start_ms))
    if is_late is not None:
        embedding = _frozen(np.where(is_late[:, None], np.float32(0), embedding))
        codes = {name: _frozen(np.where(is_late, 0, found)) for name, found in codes.items()}
    return SeenPins(_frozen(to_numpy(pins["pin_id"])), _frozen(embedding), codes)


def cut_view(seen: Seen, requests: Ints, last: Ints, tells_last_known_at: bool = False) -> Seen:
    """Return the view that has only some requests, and of each user only what one of them sees.

    Args:
        seen: The whole view.
        requests: [kept] rows of the requests that stay, ascending.
        last: [kept] for each, the request of the same user whose knowledge the user's rows are cut
            to. It is the latest of those that stay.
        tells_last_known_at: When the log knew of that latest request is told too; otherwise the
            request's own time stands there.
    """
    of = seen.requests
    examples = ranges(of.first_example[requests], of.num_examples[requests])
    user_id = of.user_id[requests]
    is_new_user = np.ones(len(user_id), dtype=bool)
    is_new_user[1:] = user_id[1:] != user_id[:-1]
    lengths = (of.timeline_end - of.timeline_start)[last]
    ends = np.cumsum(np.where(is_new_user, lengths, 0))
    start = ends - lengths
    actions = ranges(of.timeline_start[last[is_new_user]], lengths[is_new_user])
    num_examples = of.num_examples[requests]
    pin_rows = np.concatenate([seen.examples.pin_row[examples], seen.actions.pin_row[actions]])
    pins, places = np.unique(pin_rows, return_inverse=True)
    is_hidden = (requests == last) & (not tells_last_known_at)
    known_at = np.where(is_hidden, of.impressed_at[requests], of.known_at[requests])
    users, user_row = np.unique(of.user_row[requests], return_inverse=True)
    return Seen(
        requests=SeenRequests(
            user_id=_frozen(user_id),
            impressed_at=_frozen(of.impressed_at[requests]),
            known_at=_frozen(known_at),
            timeline_start=_frozen(start),
            timeline_end=_frozen(start + (of.timeline_end - of.timeline_start)[requests]),
            user_row=_frozen(user_row),
            first_example=_frozen(np.cumsum(num_examples) - num_examples),
            num_examples=_frozen(num_examples),
        ),
        examples=SeenExamples(
            _frozen(np.repeat(np.arange(len(requests)), num_examples)),
            _frozen(places[: len(examples)]),
        ),
        actions=SeenActions(
            pin_row=_frozen(places[len(examples) :]),
            action_type_id=_frozen(seen.actions.action_type_id[actions]),
            acted_at=_frozen(seen.actions.acted_at[actions]),
            known_at=_frozen(seen.actions.known_at[actions]),
        ),
        pins=SeenPins(
            _frozen(seen.pins.pin_id[pins]),
            _frozen(seen.pins.embedding[pins]),
            {name: _frozen(codes[pins]) for name, codes in seen.pins.codes.items()},
        ),
        users=SeenUsers(
            _frozen(seen.users.user_id[users]),
            _frozen(seen.users.as_of[users]),
            _frozen(seen.users.embedding[users]),
            {name: _frozen(codes[users]) for name, codes in seen.users.codes.items()},
        ),
        action_type_ids=seen.action_type_ids,
    )


def _codes(table: pa.Table, names: list[str]) -> Mapping[str, Array]:
    return {name: _frozen(to_numpy(table[categorical_column(name)])) for name in names}


def _frozen(values: Array) -> Array:
    """Return the same numbers, which nobody can change through what is returned."""
    view = values.view()
    view.flags.writeable = False
    return view
