"""The kernel: one shard's files from its users' rows. Pure: tables in, tables out.

It needs nothing from another shard except the list of pins and their popularity, opens no file and
knows no clock, so any engine that can group rows by `shard_of` may run it. The order of the rows
that come in does not matter: every order is made here.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import schemas
from pipelines.contracts.time import DAY_MS
from pipelines.snapshot.features import (
    EventIndex,
    Ints,
    count_past_engagements,
    has_recent_action,
    log_count,
    look_up,
)
from pipelines.snapshot.order import (
    LONG_AGO,
    Actions,
    Examples,
    check_cause_before_effect,
    cut_timeline,
    order_actions,
    order_examples,
    request_of_action,
)
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.tables import field_of, table_of
from pipelines.snapshot.users import pick_user_rows, user_schema


@dataclass(frozen=True)
class ShardRows:
    """A shard's rows of the event log, in any order; None where it has none."""

    impressions: pa.Table | None
    actions: pa.Table | None
    users: pa.Table | None


@dataclass(frozen=True)
class PinIndex:
    """The snapshot's pins and how popular each was on each day with requests."""

    pin_ids: Ints  # sorted; the position is the pin_row
    popularity_keys: Ints  # day_index * len(pin_ids) + pin_row, sorted
    popularity_totals: Ints

    def rows_of(self, pin_ids: Ints) -> Ints:
        """Return pin rows; every pin must be among the snapshot's."""
        rows = np.searchsorted(self.pin_ids, pin_ids)
        assert np.array_equal(self.pin_ids[rows], pin_ids)
        return rows


@dataclass(frozen=True)
class ShardTables:
    """A shard's files, and what was left out."""

    timeline: pa.Table
    requests: pa.Table
    examples: pa.Table
    users: pa.Table
    num_duplicate_impressions: int


def build_shard(rows: ShardRows, pins: PinIndex, plan: SnapshotPlan) -> ShardTables:
    """Build one shard.

    Args:
        rows: the shard's impressions of both windows, its actions and its users' rows, as dealt
            out by `snapshot_spill`.
        pins: pins and popularity of the whole snapshot.
        plan: windows and features.

    Returns:
        Tables of the schemas TIMELINE, REQUESTS, EXAMPLE_KEYS + features + labels, USER_ROWS +
        codes; each in a total order, so that equal rows in give equal bytes out.

    Raises:
        DataContractError: a request belongs to two users, an action precedes its own request, or
            a user has two rows of the same as_of.
    """
    if rows.impressions is None or len(rows.impressions) == 0:
        return _empty_shard(plan)
    examples, num_duplicates = order_examples(rows.impressions)
    actions = order_actions(rows.actions, np.unique(examples.user_id))
    check_cause_before_effect(examples, actions)
    timeline = cut_timeline(examples, actions, plan)
    start, end = _point_into_timeline(examples, timeline)
    users, user_row = pick_user_rows(rows.users, examples, plan)
    target_id = plan.action_type_ids[plan.target_action_type]
    repins = actions.where(actions.type_id == target_id)
    is_core = has_recent_action(
        examples.user_id,
        examples.impressed_at,
        plan.config.core_days * DAY_MS,
        (repins.user_id, repins.acted_at, repins.known_at),
    )
    timeline_pins = pins.rows_of(timeline.pin_id)
    columns = _example_columns(examples, actions, pins, plan)
    columns[schemas.numeric_column("past_engagements")] = log_count(
        count_past_engagements(
            timeline_pins,
            columns["pin_row"].astype(np.int64),
            start[examples.request],
            end[examples.request],
        )
    )
    return ShardTables(
        timeline=table_of(
            schemas.TIMELINE, timeline_pins, timeline.type_id, timeline.acted_at, timeline.known_at
        ),
        requests=_requests_table(examples, plan, is_core, (start, end), user_row),
        examples=_examples_table(columns, plan),
        users=users,
        num_duplicate_impressions=num_duplicates,
    )


def example_schema(plan: SnapshotPlan) -> pa.Schema:
    """Return the schema of `examples`: keys, codes, numbers, labels."""
    features = plan.features.categorical_of("impressions")
    fields = [
        *schemas.EXAMPLE_KEYS,
        *(field_of(schemas.categorical_column(f.name), pa.int16()) for f in features),
        *(field_of(schemas.numeric_column(n), pa.float32()) for n in schemas.NUMERIC_FEATURES),
        *(field_of(schemas.label_column(h), pa.int8()) for h in plan.features.head_names),
    ]
    return pa.schema(fields)


def _point_into_timeline(examples: Examples, timeline: Actions) -> tuple[Ints, Ints]:
    """Return each request's first timeline row and one past the newest action known before it.

    Strictly before: what became known in the same millisecond is not seen. The event log holds
    acted_at <= known_at, so what is known before the request also happened before it.
    """
    index = EventIndex(timeline.user_id, timeline.known_at)
    start = index.position(examples.user_id, np.full(len(examples.user_id), LONG_AGO))
    return start, index.position(examples.user_id, examples.impressed_at)


def _example_columns(
    examples: Examples, actions: Actions, pins: PinIndex, plan: SnapshotPlan
) -> dict[str, npt.NDArray]:  # type: ignore[type-arg]
    """Return the columns of `examples`, except past_engagements."""
    rows = examples.rows
    pin_row = pins.rows_of(np.asarray(rows["pin_id"]))
    day = examples.impressed_at[examples.request] // DAY_MS
    day_index = np.searchsorted(plan.request_days, day)
    popularity = look_up(
        pins.popularity_keys, pins.popularity_totals, day_index * len(pins.pin_ids) + pin_row
    )
    columns = {
        "pin_row": pin_row,
        "position": np.asarray(rows["position"]),
        "is_exploration": np.asarray(rows["is_exploration"]),
        schemas.numeric_column("pin_popularity"): log_count(popularity),
    }
    for feature in plan.features.categorical_of("impressions"):
        name = schemas.categorical_column(feature.name)
        columns[name] = np.asarray(rows[name])
    place = request_of_action(examples, actions)
    type_ids = plan.action_type_ids
    for head in plan.features.heads:
        is_type = actions.type_id == type_ids[head.action_type]
        label = _label(examples, actions.where(is_type), place[is_type], plan.label_window_ms)
        columns[schemas.label_column(head.name)] = label
    return columns


def _label(
    examples: Examples, actions: Actions, request_of_action: Ints, label_window_ms: int
) -> npt.NDArray[np.int8]:
    """Return 1 where the pin got the action within the label window of its impression.

    An action that names its request counts for that request alone; one that names none counts for
    every impression of the pin to the user within the window.
    """
    pin_id = np.asarray(examples.rows["pin_id"])
    start = np.asarray(examples.rows["impressed_at"])
    all_pins = np.unique(np.concatenate([pin_id, actions.pin_id]))
    pin, acted_pin = np.searchsorted(all_pins, pin_id), np.searchsorted(all_pins, actions.pin_id)
    users = np.unique(examples.user_id)
    user = np.searchsorted(users, examples.user_id)[examples.request]
    acted_user = np.searchsorted(users, actions.user_id)
    is_named = request_of_action >= 0
    is_free = np.asarray(pc.is_null(actions.request_id))
    found = np.zeros(len(pin_id), dtype=np.int64)
    for keys, acted_keys, is_used in (
        (examples.request, request_of_action, is_named),
        (user, acted_user, is_free),
    ):
        acted = (acted_keys * len(all_pins) + acted_pin)[is_used]
        index = EventIndex(acted, actions.acted_at[is_used])
        found += index.count(keys * len(all_pins) + pin, start, start + label_window_ms)
    return (found > 0).astype(np.int8)


def _requests_table(
    examples: Examples,
    plan: SnapshotPlan,
    is_core: npt.NDArray[np.bool_],
    pointers: tuple[Ints, Ints],
    user_row: Ints,
) -> pa.Table:
    is_holdout = examples.impressed_at >= plan.holdout.start_ms
    split = np.where(is_holdout, schemas.SPLIT_HOLDOUT, schemas.SPLIT_TRAINING)
    num_examples = np.diff([*examples.first, len(examples.request)])
    return table_of(
        schemas.REQUESTS,
        examples.request_ids,
        examples.user_id,
        examples.impressed_at,
        split,
        is_core,
        *pointers,
        user_row,
        examples.first,
        num_examples,
    )


def _examples_table(columns: dict[str, npt.NDArray], plan: SnapshotPlan) -> pa.Table:  # type: ignore[type-arg]
    schema = example_schema(plan)
    return table_of(schema, *(columns[name] for name in schema.names))


def _empty_shard(plan: SnapshotPlan) -> ShardTables:
    return ShardTables(
        timeline=schemas.TIMELINE.empty_table(),
        requests=schemas.REQUESTS.empty_table(),
        examples=example_schema(plan).empty_table(),
        users=user_schema(plan).empty_table(),
        num_duplicate_impressions=0,
    )
