"""What the features of one shard are computed from, and the searches that several of them share.

Every search is made when a feature first needs it, and kept. Not for own functions of a recipe,
which see less: `own`. Tested in
tests/pipelines/snapshot/features/test_count.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.arrow import to_numpy
from pipelines.contracts.schemas import PIN_TIME, categorical_column, is_known_late
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import Bools, Ints, order_by
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import OrderedRows, PinIndex, Pointers, UserRows

Floats = npt.NDArray[np.floating[Any]]
Value = TypeVar("Value")
STEPS = 2.0**11
"""The component of a unit vector is a multiple of 1 / STEPS. A cosine moves by less than 0.001 by
that, as a rule."""


def kept(compute: Callable[[Any], Value]) -> Value:
    """Return a property that is computed once for each object, by the one thread that it is of.

    Python 3.11's `cached_property` has one lock for all objects of a class, so that threads which
    build shards side by side would wait for each other.
    """
    name = f"kept {compute.__name__}"

    def get(owner: Any) -> Value:
        if name not in owner.__dict__:
            owner.__dict__[name] = compute(owner)
        found: Value = owner.__dict__[name]
        return found

    return cast(Value, property(get, doc=compute.__doc__))


@dataclass(frozen=True)
class Touches:
    """The actions that each example's request sees and that share a key with the example."""

    count: Ints  # [examples]
    newest_acted_at: Ints  # [examples] the latest of them; undefined where there is none


@dataclass(frozen=True)
class UnitVectors:
    """Unit vectors of some pins; the vector of an embedding of zeros is zero.

    Their products and sums are exact in floating point; `similarity` says why.
    """

    matrix: npt.NDArray[np.float32]  # [used pins, E]
    place: Ints  # [pins] row of the matrix; undefined for a pin that is not used

    @staticmethod
    def of_pins(embedding: npt.NDArray[np.float32], used: Sequence[Ints]) -> "UnitVectors":
        """Return the directions of the pins that are used.

        Args:
            embedding: [pins, E], finite.
            used: arrays of pin rows.
        """
        is_used = np.zeros(len(embedding), dtype=bool)
        for rows in used:
            is_used[rows] = True
        vectors = embedding[is_used].astype(np.float64)
        norm = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
        units = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
        steps = np.round(units * STEPS) / STEPS
        return UnitVectors(steps.astype(np.float32), np.cumsum(is_used) - 1)

    def of(self, pin_rows: Ints) -> npt.NDArray[np.float32]:
        """Return the vectors of some pins, the last axis being the embedding's."""
        return self.matrix[self.place[pin_rows]]


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

    def popularity_of(self, trailing_days: int) -> npt.NDArray[np.integer[Any]]:
        """Return the wanted actions on each example's pin in the days before, [examples]."""
        day_places = self.request_day_place[self.request]
        return self.pins.popularity[trailing_days][self.pointers.example_pin_row, day_places]

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
        return is_known_late(to_numpy(self.pins.table[PIN_TIME.name])[pin_rows], times_ms)

    def per_example(self, of_requests: npt.NDArray[Any]) -> Floats:
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
        # The latest time so far begins anew with each key and each user, because the times of each
        # such run are lifted above those of all runs before.
        users, times_ms = timeline.user_id[rows], timeline.acted_at[rows]
        is_new = (np.diff(keys, prepend=keys[0]) != 0) | (np.diff(users, prepend=users[0]) != 0)
        low = int(times_ms.min())
        lift = np.cumsum(is_new) * (int(times_ms.max()) - low + 1)
        running = np.maximum.accumulate(times_ms - low + lift) - lift + low
        count[asked], newest[asked] = end - first, running[np.maximum(end - 1, 0)]
        return Touches(count, newest)
