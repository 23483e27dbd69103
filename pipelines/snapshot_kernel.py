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
from pipelines.contracts.errors import DataContractError
from pipelines.snapshot_features import (
    DAY_MS,
    EventIndex,
    Ints,
    count_past_engagements,
    has_recent_action,
    log_count,
    look_up,
)
from pipelines.snapshot_plan import SnapshotPlan

NEW_STATE = "new"
_LONG_AGO = np.iinfo(np.int64).min // 2


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


@dataclass(frozen=True)
class _Examples:
    """A shard's impressions, deduplicated, by (user_id, time, request_id, position, pin_id)."""

    rows: pa.Table
    request: Ints  # [examples] which request, counting from 0
    first: Ints  # [requests] its first example
    request_ids: pa.Array  # [requests]
    user_id: Ints  # [requests]
    impressed_at: Ints  # [requests] earliest of its impressions


@dataclass(frozen=True)
class _Actions:
    """A shard's actions by (user_id, known_at, acted_at, request_id, pin_id, action_type_id)."""

    user_id: Ints
    pin_id: Ints
    type_id: Ints
    acted_at: Ints
    known_at: Ints
    request_id: pa.Array

    def where(self, mask: npt.NDArray[np.bool_]) -> "_Actions":
        """Return some of the actions, in the same order."""
        arrays = (self.user_id, self.pin_id, self.type_id, self.acted_at, self.known_at)
        return _Actions(*(array[mask] for array in arrays), self.request_id.filter(pa.array(mask)))


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
    examples, num_duplicates = _order_examples(rows.impressions)
    actions = _order_actions(rows.actions, np.unique(examples.user_id))
    _check_cause_before_effect(examples, actions)
    timeline = _cut_timeline(examples, actions, plan)
    start, end = _point_into_timeline(examples, timeline)
    users, user_row = _pick_user_rows(rows.users, examples, plan)
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
        timeline=_table(
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
        *(_field(schemas.categorical_column(f.name), pa.int16()) for f in features),
        *(_field(schemas.numeric_column(n), pa.float32()) for n in schemas.NUMERIC_FEATURES),
        *(_field(schemas.label_column(h), pa.int8()) for h in plan.features.head_names),
    ]
    return pa.schema(fields)


def user_schema(plan: SnapshotPlan) -> pa.Schema:
    """Return the schema of `users`: USER_ROWS and codes."""
    features = plan.features.categorical_of("users")
    codes = [_field(schemas.categorical_column(f.name), pa.int16()) for f in features]
    return pa.schema([*schemas.USER_ROWS, *codes])


def _order_examples(impressions: pa.Table) -> tuple[_Examples, int]:
    """Drop repeated (request_id, pin_id), the earliest stays; order requests and examples."""
    ranks, names = _rank(impressions["request_id"])
    column = {name: np.asarray(impressions[name]) for name in impressions.column_names[1:]}
    tie_break = [column[name] for name in sorted(column) if name not in ("user_id", "pin_id")]
    keys = (*tie_break, column["position"], column["known_at"], column["impressed_at"])
    order = np.lexsort((*keys, column["pin_id"], ranks))
    repeats = (np.diff(ranks[order]) == 0) & (np.diff(column["pin_id"][order]) == 0)
    order = order[np.concatenate([[True], ~repeats])]

    ranks = ranks[order]
    is_first = np.concatenate([[True], np.diff(ranks) != 0])
    starts = np.flatnonzero(is_first)
    user_id = column["user_id"][order]
    _check_one_user(user_id, starts, ranks, names)
    earliest = np.minimum.reduceat(column["impressed_at"][order], starts)
    request_order = np.lexsort((np.arange(len(starts)), earliest, user_id[starts]))
    place = np.empty(len(starts), dtype=np.int64)
    place[request_order] = np.arange(len(starts))

    request = place[np.cumsum(is_first) - 1]
    by_request = np.lexsort((column["pin_id"][order], column["position"][order], request))
    request = request[by_request]
    first = np.searchsorted(request, np.arange(len(starts)))
    examples = _Examples(
        rows=impressions.take(pa.array(order[by_request])),
        request=request,
        first=first,
        request_ids=names.take(pa.array(ranks[starts][request_order])),
        user_id=user_id[starts][request_order],
        impressed_at=earliest[request_order],
    )
    return examples, int(repeats.sum())


def _order_actions(actions: pa.Table | None, user_ids: Ints) -> _Actions:
    """Return the actions of users with requests, in the timeline's order."""
    if actions is None:
        nothing = np.array([], dtype=np.int64)
        return _Actions(nothing, nothing, nothing, nothing, nothing, pa.array([], pa.string()))
    actions = actions.filter(pc.is_in(actions["user_id"], value_set=pa.array(user_ids)))
    request_ranks, _ = _rank(actions["request_id"])
    names = ("user_id", "pin_id", "action_type_id", "acted_at", "known_at")
    user_id, pin_id, type_id, acted_at, known_at = (
        np.asarray(actions[name]).astype(np.int64) for name in names
    )
    order = np.lexsort((type_id, pin_id, request_ranks, acted_at, known_at, user_id))
    request_id = _combined(actions["request_id"].take(pa.array(order)))
    arrays = (user_id, pin_id, type_id, acted_at, known_at)
    return _Actions(*(array[order] for array in arrays), request_id)


def _check_one_user(user_id: Ints, starts: Ints, ranks: Ints, names: pa.Array) -> None:
    low, high = np.minimum.reduceat(user_id, starts), np.maximum.reduceat(user_id, starts)
    if (low != high).any():
        bad = int(np.flatnonzero(low != high)[0])
        raise DataContractError(
            f"impressions: request {names[int(ranks[starts[bad]])].as_py()!r} belongs to users "
            f"{low[bad]} and {high[bad]}; expected one user per request; make request_id unique"
        )


def _check_cause_before_effect(examples: _Examples, actions: _Actions) -> None:
    """Refuse an action older than the request it names: it would leak into its sequence."""
    place = _request_of_action(examples, actions)
    is_attributed = place >= 0
    is_early = is_attributed & (actions.acted_at < examples.impressed_at[place])
    if is_early.any():
        bad = int(np.flatnonzero(is_early)[0])
        raise DataContractError(
            f"actions: action on pin {actions.pin_id[bad]} at {actions.acted_at[bad]} names "
            f"request {actions.request_id[bad].as_py()!r}, which was shown later, at "
            f"{examples.impressed_at[place[bad]]} ({int(is_early.sum())} such actions); expected "
            f"acted_at >= impressed_at; correct the clocks or the attribution"
        )


def _request_of_action(examples: _Examples, actions: _Actions) -> Ints:
    """Return the request that an action names, if it is here and of the same user; else -1."""
    found = pc.fill_null(pc.index_in(actions.request_id, value_set=examples.request_ids), -1)
    place = np.asarray(found).astype(np.int64)
    # A null request_id must not match: index_in would only find a null in the value set.
    return np.where(examples.user_id[place] == actions.user_id, place, -1)


def _cut_timeline(examples: _Examples, actions: _Actions, plan: SnapshotPlan) -> _Actions:
    """Keep what some request can see: in the history, known before the user's last request."""
    users = np.unique(examples.user_id)
    last = np.full(len(users), _LONG_AGO)
    np.maximum.at(last, np.searchsorted(users, examples.user_id), examples.impressed_at)
    known_in_time = actions.known_at < last[np.searchsorted(users, actions.user_id)]
    return actions.where(known_in_time & (actions.acted_at >= plan.history_start_ms))


def _point_into_timeline(examples: _Examples, timeline: _Actions) -> tuple[Ints, Ints]:
    """Return each request's first timeline row and one past the newest action known before it.

    Strictly before: what became known in the same millisecond is not seen. The event log holds
    acted_at <= known_at, so what is known before the request also happened before it.
    """
    index = EventIndex(timeline.user_id, timeline.known_at)
    start = index.position(examples.user_id, np.full(len(examples.user_id), _LONG_AGO))
    return start, index.position(examples.user_id, examples.impressed_at)


def _pick_user_rows(
    users: pa.Table | None, examples: _Examples, plan: SnapshotPlan
) -> tuple[pa.Table, Ints]:
    """Return the users' rows in use and, per request, which: the latest of as_of <= its time.

    A user who has no row yet is new, not an error: the daily batch has not met them. They get a
    zero embedding, the state 'new' (0 where the recipe does not list it) and as_of 0.
    """
    schema = user_schema(plan)
    known = schema.empty_table() if users is None else users
    user_id, as_of = np.asarray(known["user_id"]), np.asarray(known["as_of"])
    index = EventIndex(user_id, as_of)
    _check_unique_users(user_id[index.order], as_of[index.order])
    first = index.position(examples.user_id, np.full(len(examples.user_id), _LONG_AGO))
    newest = index.position(examples.user_id, examples.impressed_at + 1) - 1
    has_row = newest >= first
    rows = known.take(pa.array(index.order[newest[has_row]]))
    newcomers = np.unique(examples.user_id[~has_row])
    rows = pa.concat_tables([rows.cast(schema), _newcomer_rows(newcomers, plan, schema)])
    keys = np.stack([np.asarray(rows["user_id"]), np.asarray(rows["as_of"])], axis=1)
    unique, places = np.unique(keys, axis=0, return_index=True)
    wanted_as_of = np.zeros(len(has_row), dtype=np.int64)
    wanted_as_of[has_row] = keys[: int(has_row.sum()), 1]
    user_row = EventIndex(unique[:, 0], unique[:, 1]).position(examples.user_id, wanted_as_of)
    return rows.take(pa.array(places)), user_row


def _check_unique_users(user_id: Ints, as_of: Ints) -> None:
    is_repeat = (np.diff(user_id) == 0) & (np.diff(as_of) == 0)
    if is_repeat.any():
        bad = int(np.flatnonzero(is_repeat)[0])
        raise DataContractError(
            f"users: user {user_id[bad]} has more than one row of as_of={as_of[bad]}; expected "
            f"one per (user_id, as_of); remove the repeated row"
        )


def _newcomer_rows(user_ids: Ints, plan: SnapshotPlan, schema: pa.Schema) -> pa.Table:
    zeros = np.zeros((len(user_ids), schemas.EMBEDDING_DIM), dtype=np.float32)
    columns = [user_ids, np.zeros_like(user_ids), _embeddings(zeros)]
    for feature in plan.features.categorical_of("users"):
        is_state = feature.name == "state" and NEW_STATE in feature.values
        code = feature.values.index(NEW_STATE) + 1 if is_state else 0
        columns.append(np.full(len(user_ids), code, dtype=np.int16))
    return _table(schema, *columns)


def _example_columns(
    examples: _Examples, actions: _Actions, pins: PinIndex, plan: SnapshotPlan
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
    place = _request_of_action(examples, actions)
    type_ids = plan.action_type_ids
    for head in plan.features.heads:
        is_type = actions.type_id == type_ids[head.action_type]
        label = _label(examples, actions.where(is_type), place[is_type], plan.label_window_ms)
        columns[schemas.label_column(head.name)] = label
    return columns


def _label(
    examples: _Examples, actions: _Actions, request_of_action: Ints, label_window_ms: int
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
    examples: _Examples,
    plan: SnapshotPlan,
    is_core: npt.NDArray[np.bool_],
    pointers: tuple[Ints, Ints],
    user_row: Ints,
) -> pa.Table:
    is_holdout = examples.impressed_at >= plan.holdout.start_ms
    split = np.where(is_holdout, schemas.SPLIT_HOLDOUT, schemas.SPLIT_TRAINING)
    num_examples = np.diff([*examples.first, len(examples.request)])
    return _table(
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
    return _table(schema, *(columns[name] for name in schema.names))


def _empty_shard(plan: SnapshotPlan) -> ShardTables:
    return ShardTables(
        timeline=schemas.TIMELINE.empty_table(),
        requests=schemas.REQUESTS.empty_table(),
        examples=example_schema(plan).empty_table(),
        users=user_schema(plan).empty_table(),
        num_duplicate_impressions=0,
    )


def _table(schema: pa.Schema, *columns: npt.NDArray | pa.Array) -> pa.Table:  # type: ignore[type-arg]
    """Return a table of the schema from columns in its order, cast without loss."""
    arrays = [
        (column if isinstance(column, pa.Array) else pa.array(column)).cast(field.type)
        for field, column in zip(schema, columns, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def _embeddings(rows: npt.NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), schemas.EMBEDDING_DIM)


def _field(name: str, type_: pa.DataType) -> pa.Field:
    return pa.field(name, type_, nullable=False)


def _rank(texts: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """Return each text's rank among the distinct ones (null: -1), and those, sorted."""
    distinct = _combined(pc.unique(texts).drop_null().sort())
    ranks = pc.fill_null(pc.index_in(texts, value_set=distinct), -1)
    return np.asarray(ranks).astype(np.int64), distinct


def _combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return one array, whatever the number of chunks."""
    if isinstance(column, pa.Array):
        return column
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)
