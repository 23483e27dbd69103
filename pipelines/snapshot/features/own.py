"""Own functions of a recipe: given arrays of one shard, judged by what they return and look at.

A function returns one number for each example, and that number may depend only on

- the example's request and candidate, and the other candidates of the same request,
- the actions of the request's user in rows [timeline_start, timeline_end) of `actions`, which are
  those that were known strictly before the request,
- the user's earlier requests with a `known_at` before the request, the user's rows up to the
  request's, and the pins of all these.

The arrays (`Seen`) hold more, because a shard is computed at once: later actions and requests, and
those of other users, but no label. All are read-only. `check_no_leak` tells a function that looks
at them: it is called again on some users of the shard. First with all of their rows, and without
anybody else's: a number that changes depends on other users, and so on how the users were dealt
out. Then with the rows cut to what was known before one request of each user: a number that changes
depends on what came later. A tolerance of a millionth, of the number and of how widely the shard's
numbers are spread, leaves room for sums that are added up in another order. Functions are found by
`pipelines.recipes.own_functions`.
"""

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.config import CategoricalFeature, NumericFeature
from pipelines.contracts.errors import OwnFunctionError
from pipelines.contracts.schemas import categorical_column
from pipelines.event_log.event_index import Ints, ranges
from pipelines.recipes.own_functions import load
from pipelines.snapshot.features.inputs import FeatureInputs, Floats

Array = npt.NDArray[Any]
NUM_USERS = 64
"""Users of a shard that a function is called again on: those with the most requests, and others."""
CUTS = (0.0, 0.5)
"""The request of each user before which the rows are cut: the first, and the one in the middle."""
_ONE_AT_A_TIME = threading.Lock()
"""Shards are built side by side in threads; nobody who writes a function need think of them."""


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


def compute(seen: FeatureInputs, feature: NumericFeature) -> Floats:
    """Return what an own function returns for a shard, checked for leaks on some of its users.

    Raises:
        OwnFunctionError: the function cannot be imported, raises, returns something else than a
            number for each example, is not deterministic, or looks at what it may not know.
    """
    call, view = functools.partial(_call, load(feature.name), feature), make_view(seen)
    with _ONE_AT_A_TIME:
        values = call(view)
        check_no_leak(feature.name, call, view, values)
    return values


def _call(function: Callable[[Seen], Any], feature: NumericFeature, given: Seen) -> Floats:
    """Return what a function returns as float32 [examples], or refuse it."""
    name, num_examples = feature.name, len(given.examples.request)
    try:
        returned = function(given)
    except Exception as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise OwnFunctionError(
            f"features.numeric: {name} raised {told} on {num_examples} examples; expected a number "
            f"for each, also for rows that are cut to what was known before a request; correct the "
            f"function"
        ) from error
    values = np.asarray(returned)
    if values.dtype.kind not in "fiub" or values.shape != (num_examples,):
        raise OwnFunctionError(
            f"features.numeric: {name} returned {type(returned).__name__} of shape {values.shape} "
            f"and type {values.dtype}; expected float32 numbers of shape ({num_examples},), one "
            f"for each row of `examples`; correct the function"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    is_bad = np.isinf(values) if feature.has_flag else ~np.isfinite(values)
    if is_bad.any():
        found = "inf" if np.isinf(values[is_bad]).any() else "NaN"
        hint = "" if feature.has_flag else ", or set may_be_missing=True, and NaN means 'not known'"
        raise OwnFunctionError(
            f"features.numeric: {name} returned {found} for {int(is_bad.sum())} of {len(values)} "
            f"examples; expected finite float32 numbers; return a number{hint}"
        )
    return values


def check_no_leak(name: str, call: Callable[[Seen], Floats], seen: Seen, values: Floats) -> None:
    """Refuse a function whose numbers depend on what it may not look at.

    Args:
        name: The function's, for the message.
        call: The function.
        seen: The shard.
        values: [examples] what it returned for the shard.

    Raises:
        OwnFunctionError: it is not deterministic, depends on other users or looks ahead.
    """
    of = seen.requests
    _, first, counts = np.unique(of.user_id, return_index=True, return_counts=True)
    # Half of the users are those with the most requests, the others are evenly spread.
    busiest = np.argsort(-counts, kind="stable")[: NUM_USERS // 2]
    spread = np.linspace(0, len(counts) - 1, NUM_USERS // 2).astype(np.int64)
    chosen = np.unique(np.concatenate([busiest, spread]))
    first, counts = first[chosen], counts[chosen]
    rows, last = ranges(first, counts), np.repeat(first + counts - 1, counts)
    alone = cut_view(seen, rows, last, tells_last_known_at=True)
    found = call(alone)
    if not np.array_equal(found, call(alone), equal_nan=True):
        raise OwnFunctionError(
            f"features.numeric: {name} is not deterministic: called twice with the same rows, it "
            f"returned other numbers; expected the same; give its generator a fixed seed, or take "
            f"the clock and global state out of it"
        )
    differs = functools.partial(_difference, seen, values)
    if told := differs(rows, found):
        raise OwnFunctionError(
            f"features.numeric: {name} depends on rows beyond its user's, or on the row numbers of "
            f"pins: {told} without the other users; expected the same, because users are dealt out "
            f"to shards; look only at the rows of `actions` from timeline_start to timeline_end "
            f"(exclusive) of the request"
        )
    for cut in CUTS:
        at = first + (cut * (counts - 1)).astype(np.int64)
        # Of each user that request, and those of the earlier ones that were known before it.
        rows, last = ranges(first, at - first + 1), np.repeat(at, at - first + 1)
        stays = (of.known_at[rows] < of.impressed_at[last]) | (rows == last)
        rows, last = rows[stays], last[stays]
        if told := differs(rows, call(cut_view(seen, rows, last))):
            raise OwnFunctionError(
                f"features.numeric: {name} looks ahead: {told} without the actions and requests "
                f"that were not known before that request, and its own known_at; expected the "
                f"same; look only at the rows of `actions` from timeline_start to timeline_end "
                f"(exclusive) of the request, at the impressed_at of the request itself, and at "
                f"earlier requests with their known_at"
            )


def _difference(seen: Seen, values: Floats, requests: Ints, found: Floats) -> str | None:
    """Return a phrase about the first example of some requests that got another number than before.

    The difference that passes as one of rounding, also between numbers close to 0, is a millionth
    of the mean distance of the shard's numbers from their median, and at most a millionth. So the
    numbers may be of any scale, and a few large ones among them hide nothing.

    Args:
        seen: the shard.
        values: [examples] the numbers of the shard.
        requests: rows of some of the shard's requests.
        found: the numbers of their examples, one request after another.
    """
    of, numbers = seen.requests, values[~np.isnan(values)].astype(np.float64)
    spread = np.abs(numbers - np.median(numbers)).mean() if len(numbers) else 0.0
    tolerance = 1e-6 * min(1.0, float(spread))
    examples = ranges(of.first_example[requests], of.num_examples[requests])
    is_close = np.isclose(found, values[examples], rtol=1e-6, atol=tolerance, equal_nan=True)
    if is_close.all():
        return None
    row = int(np.argmin(is_close))
    example = examples[row]
    request = seen.examples.request[example]
    return (
        f"for pin {seen.pins.pin_id[seen.examples.pin_row[example]]} in the request of user "
        f"{of.user_id[request]} at {of.impressed_at[request]} it returned {values[example]:g}, and "
        f"{found[row]:g}"
    )
