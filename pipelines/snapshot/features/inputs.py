"""What the features of one shard are computed from, and the searches that several of them share.

Every search is made when a feature first needs it, and kept. Not for own functions of a recipe,
which see less: `own_view`. Tested in
tests/pipelines/snapshot/features/test_against_slow_reference.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.schemas import PIN_TIME, categorical_column, is_known_late
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.event_log.event_index import Bools, Ints, order_by
from pipelines.snapshot.features.vectors import UnitVectors
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import OrderedRows, PinIndex, Pointers, UserRows

Floats = npt.NDArray[np.floating[Any]]
Value = TypeVar("Value")


class kept(Generic[Value]):  # noqa: N801  it is used as a decorator
    """A property that is computed once for each object, by the one thread that the object is of.

    Python 3.11's `cached_property` has one lock for all objects of a class, so that threads which
    build shards side by side would wait for each other.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> "kept[Value]": ...
    @overload
    def __get__(self, owner: object, kind: type) -> Value: ...
    def __get__(self, owner: object | None, kind: type) -> "Value | kept[Value]":
        """Return the value, computed where this is the first look at it."""
        if owner is None:
            return self
        value = self._compute(owner)
        # What stands in the object's own dictionary is found before this descriptor.
        owner.__dict__[self._compute.__name__] = value
        return value


@dataclass(frozen=True)
class Touches:
    """The actions that each example's request sees and that share a key with the example."""

    count: Ints  # [examples]
    newest_acted_at: Ints  # [examples] the latest of them; undefined where there is none


@dataclass(frozen=True)
class FeatureInputs:
    """A shard's rows after the kernel's first three steps; the labels are not among them."""

    ordered: OrderedRows
    pointers: Pointers
    users: UserRows
    spilled_users: pa.Table | None
    pins: PinIndex
    plan: SnapshotPlan

    @property
    def request(self) -> Ints:
        """The request of each example, [examples]."""
        return self.ordered.examples.request

    @kept
    def asked_at(self) -> Ints:
        """The time of each example's request, [examples] milliseconds."""
        return self.ordered.requests.impressed_at[self.request]

    @kept
    def request_known_at(self) -> Ints:
        """When the log first knew of an impression of each request, [requests] milliseconds."""
        known_at = np.asarray(self.ordered.examples.rows["known_at"])
        return np.minimum.reduceat(known_at, self.ordered.requests.first_example)

    @kept
    def request_day_place(self) -> Ints:
        """The position of each request's day among the plan's days with requests, [requests]."""
        return np.searchsorted(self.plan.request_days, self.ordered.requests.impressed_at // DAY_MS)

    @kept
    def popularity_place(self) -> Ints:
        """Where each example's pin and day stand in the pins' popularity, [examples]."""
        day_place = self.request_day_place[self.request]
        return self.pins.popularity.places_of(day_place, self.pointers.example_pin_row)

    @kept
    def pin_touches(self) -> Touches:
        """The actions on each example's own pin."""
        pointers = self.pointers
        acted = pointers.pairs.of_action[pointers.is_in_timeline]
        return self._touches(acted, pointers.pairs.of_example)

    @kept
    def unit_vectors(self) -> UnitVectors:
        """The directions of the pins that the shard's examples and actions are about."""
        used = (self.pointers.timeline_pin_row, self.pointers.example_pin_row)
        return UnitVectors.of_pins(to_numpy(self.pins.table["embedding"]), used)

    def category_touches(self, category: str) -> Touches:
        """Return the actions on pins that share the example's value of a categorical feature.

        A value that is not in the closed list is shared with no pin. Nor is one that was not known
        before: of a candidate, before its request; of an action's pin, before the action was.
        """
        codes = to_numpy(self.pins.table[categorical_column(category)]).astype(np.int64)
        shown, acted = self.pointers.example_pin_row, self.pointers.timeline_pin_row
        of_examples, of_actions = codes[shown], codes[acted]
        is_known = of_examples > 0
        if (is_late := self.is_late(shown, self.asked_at)) is not None:
            is_known &= ~is_late
        if (is_late := self.is_late(acted, self.pointers.timeline.known_at)) is not None:
            of_actions[is_late] = 0
        of_examples[~is_known] = -1
        return self._touches(of_actions, of_examples)

    def number_of_pin(self, column: str) -> npt.NDArray[np.float64]:
        """Return the candidates' number in a column of pins, [examples].

        It is NaN where the log has none, or had none before the request.
        """
        found = self.pins.numbers[column][self.pointers.example_pin_row]
        is_late = self.is_late(self.pointers.example_pin_row, self.asked_at)
        return found if is_late is None else np.where(is_late, np.nan, found)

    def is_late(self, pin_rows: Ints, times_ms: Ints) -> Bools | None:
        """Return which pins' rows were not known before a time; None where pins have no PIN_TIME.

        Args:
            pin_rows: rows of the snapshot's pins, of any shape.
            times_ms: one for each, or of a shape that broadcasts.
        """
        if PIN_TIME.name not in self.pins.table.column_names:
            return None
        return is_known_late(self._pin_known_at[pin_rows], times_ms)

    @kept
    def _pin_known_at(self) -> Ints:
        return to_numpy(self.pins.table[PIN_TIME.name])

    def per_example(self, of_requests: Floats) -> Floats:
        """Return a number of each request for each of its examples."""
        return of_requests.astype(np.float32)[self.request]

    def _touches(self, timeline_keys: Ints, example_keys: Ints) -> Touches:
        """Return the actions that share an example's key; a negative key is shared with nothing.

        Keys are small: pairs, or codes of a categorical feature.
        """
        timeline, pointers = self.pointers.timeline, self.pointers
        num_rows, num_keys = len(timeline_keys), int(example_keys.max(initial=-1)) + 1
        count, newest = (np.zeros(len(example_keys), dtype=np.int64) for _ in range(2))
        # Users stand one after another in the timeline. So, of the rows with one key in the order
        # of the timeline, those that a request sees stand together.
        rows = np.flatnonzero((timeline_keys >= 0) & (timeline_keys < num_keys))
        if len(rows) == 0:
            return Touches(count, newest)
        rows = rows[order_by(timeline_keys[rows])]
        keys = timeline_keys[rows]
        packed = keys * num_rows + rows
        is_touched = np.zeros(num_keys + 1, dtype=bool)
        is_touched[keys] = True
        asked = np.flatnonzero(is_touched[example_keys])  # the last one is of negative keys
        base, request = example_keys[asked] * num_rows, self.request[asked]
        first = np.searchsorted(packed, base + pointers.timeline_start[request])
        end = np.searchsorted(packed, base + pointers.timeline_end[request])
        running = _running_maximum(timeline.acted_at[rows], keys, timeline.user_id[rows])
        count[asked], newest[asked] = end - first, running[np.maximum(end - 1, 0)]
        return Touches(count, newest)


def log1p(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return log(1 + value) as float32: 0 for nothing."""
    return np.log1p(values.astype(np.float64)).astype(np.float32)


def log1p_hours(durations_ms: Ints) -> npt.NDArray[np.float32]:
    """Return log(1 + hours) of durations in milliseconds."""
    return log1p(durations_ms / HOUR_MS)


def _running_maximum(times_ms: Ints, keys: Ints, user_ids: Ints) -> Ints:
    """Return the largest time so far, beginning anew with each key and with each user."""
    is_new = (np.diff(keys, prepend=keys[0]) != 0) | (np.diff(user_ids, prepend=user_ids[0]) != 0)
    # Each run's times are lifted above those of all runs before.
    base = int(times_ms.min())
    lift = np.cumsum(is_new) * (int(times_ms.max()) - base + 1)
    return np.maximum.accumulate(times_ms - base + lift) - lift + base
