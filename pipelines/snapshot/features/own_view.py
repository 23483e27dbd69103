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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.schemas import categorical_column
from pipelines.event_log.event_index import Ints, ranges
from pipelines.snapshot.features.inputs import FeatureInputs

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Rows:
    """Columns of as many rows each; nobody can change them through what is given."""

    def __post_init__(self) -> None:
        for name, values in self._each(np.ndarray.view).items():
            object.__setattr__(self, name, values)
            for array in values.values() if isinstance(values, dict) else [values]:
                array.flags.writeable = False

    def take(self, rows: Ints) -> Self:
        """Return some of the rows."""
        return type(self)(**self._each(lambda values: values[rows]))

    def _each(self, change: Callable[[Array], Array]) -> dict[str, Any]:
        return {
            name: {code: change(each) for code, each in values.items()}
            if isinstance(values, Mapping)
            else change(values)
            for name, values in vars(self).items()
        }


@dataclass(frozen=True)
class SeenRequests(_Rows):
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
class SeenExamples(_Rows):
    """The candidates, request by request."""

    request: Ints  # row of `requests`, ascending
    pin_row: Ints  # row of `pins`


@dataclass(frozen=True)
class SeenActions(_Rows):
    """The actions by (user, known_at, acted_at)."""

    pin_row: Ints
    action_type_id: Ints  # counted from 1; see `Seen.action_type_ids`
    acted_at: Ints
    known_at: Ints


@dataclass(frozen=True)
class SeenPins(_Rows):
    """The pins by pin_id. Which rows there are, and their numbers, may differ from call to call.

    Where pins have a time (PIN_TIME), one whose row was not known before the training window began
    has an embedding of zeros and codes of 0 in every request: a function is given each pin once,
    and could not tell before which request it was known.
    """

    pin_id: Ints
    embedding: Array  # float32 [pins, E]
    codes: Mapping[str, Array]  # of the recipe's categorical features; 0 is an unknown value


@dataclass(frozen=True)
class SeenUsers(_Rows):
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
    users, pins = inputs.users.table, inputs.pins.table
    embedding, codes = to_numpy(pins["embedding"]), _codes(pins, features.categorical_of("pins"))
    rows = np.arange(len(pins))
    is_late = inputs.is_late(rows, np.full(len(rows), inputs.plan.training.start_ms))
    if is_late is not None:
        embedding = np.where(is_late[:, None], np.float32(0), embedding)
        codes = {name: np.where(is_late, 0, found) for name, found in codes.items()}
    return Seen(
        requests=SeenRequests(
            user_id=requests.user_id,
            impressed_at=requests.impressed_at,
            known_at=inputs.request_known_at,
            timeline_start=pointers.timeline_start,
            timeline_end=pointers.timeline_end,
            user_row=inputs.users.user_row,
            first_example=requests.first_example,
            num_examples=requests.num_examples,
        ),
        examples=SeenExamples(inputs.request, pointers.example_pin_row),
        actions=SeenActions(
            pin_row=pointers.timeline_pin_row,
            action_type_id=pointers.timeline.type_id,
            acted_at=pointers.timeline.acted_at,
            known_at=pointers.timeline.known_at,
        ),
        pins=SeenPins(to_numpy(pins["pin_id"]), embedding, codes),
        users=SeenUsers(
            user_id=to_numpy(users["user_id"]),
            as_of=to_numpy(users["as_of"]),
            embedding=to_numpy(users["embedding"]),
            codes=_codes(users, features.categorical_of("users")),
        ),
        action_type_ids=inputs.plan.action_type_ids,
    )


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
    of, kept = seen.requests, seen.requests.take(requests)
    examples = ranges(kept.first_example, kept.num_examples)
    is_new_user = np.append(True, kept.user_id[1:] != kept.user_id[:-1])
    lengths = (of.timeline_end - of.timeline_start)[last]
    start = np.cumsum(np.where(is_new_user, lengths, 0)) - lengths
    actions = ranges(of.timeline_start[last[is_new_user]], lengths[is_new_user])
    pin_rows = np.concatenate([seen.examples.pin_row[examples], seen.actions.pin_row[actions]])
    pins, places = np.unique(pin_rows, return_inverse=True)
    users, user_row = np.unique(kept.user_row, return_inverse=True)
    is_hidden = (requests == last) & (not tells_last_known_at)
    return Seen(
        requests=replace(
            kept,
            known_at=np.where(is_hidden, kept.impressed_at, kept.known_at),
            timeline_start=start,
            timeline_end=start + kept.timeline_end - kept.timeline_start,
            user_row=user_row,
            first_example=np.cumsum(kept.num_examples) - kept.num_examples,
        ),
        examples=SeenExamples(
            np.repeat(np.arange(len(requests)), kept.num_examples), places[: len(examples)]
        ),
        actions=replace(seen.actions.take(actions), pin_row=places[len(examples) :]),
        pins=seen.pins.take(pins),
        users=seen.users.take(users),
        action_type_ids=seen.action_type_ids,
    )


def _codes(table: pa.Table, features: Iterable[CategoricalFeature]) -> dict[str, Array]:
    return {each.name: to_numpy(table[categorical_column(each.name)]) for each in features}
