"""The kernel builds one shard's tables from its users' rows: tables in, tables out.

A shard needs nothing from another one except the pins and what was counted about each. The kernel
opens no file and knows no clock, so any engine that can group rows by `shard_of` may run it. The
rows may come in any order: the first step makes the one order that all later steps keep, so that
equal rows give equal bytes however they were dealt out.

The steps stand below in the order in which `build_shard` calls them, and pass on the values of
`pipelines.snapshot.shard`. The numeric features are a room of their own (`features`).
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.artifacts import EventCounts
from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.schemas import (
    SHARD_FILES,
    SPLIT_HOLDOUT,
    SPLIT_TRAINING,
    label_column,
    numeric_column,
    snapshot_schema,
)
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import (
    ActionTimes,
    Bools,
    EventIndex,
    Ints,
    Places,
    distinct,
    has_recent_action,
    order_by,
    runs_of,
    starts_of_runs,
)
from pipelines.event_log.rules import finding, require_none
from pipelines.snapshot.features.count import compute_numbers
from pipelines.snapshot.features.inputs import FeatureInputs
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import (
    Actions,
    Examples,
    OrderedRows,
    Pairs,
    PinIndex,
    Pointers,
    Requests,
    ShardRows,
    ShardTables,
    Unnamed,
    UserRows,
)

NEW_STATE = "new"


def build_shard(rows: ShardRows, pins: PinIndex, plan: SnapshotPlan) -> ShardTables:
    """Build one shard.

    Args:
        rows: the shard's impressions of both windows, its actions and its users' rows.
        pins: pins and popularity of the whole snapshot.
        plan: windows and features.

    Returns:
        Tables of the schemas that `snapshot_schema` gives, each in a total order.

    Raises:
        DataContractError: a request belongs to two users, an action precedes its own request, or
            a user has two rows of the same as_of.
        ConfigurationError: one of the recipe's own features is refused.
    """
    features = plan.features
    if rows.impressions is None or len(rows.impressions) == 0:
        dim = pins.embedding_dim
        empty = {
            name: snapshot_schema(name, features, embedding_dim=dim).empty_table()
            for name in SHARD_FILES
        }
        return ShardTables(**empty, num_duplicate_impressions=0, event_counts=EventCounts())
    ordered = order_rows(rows.impressions, rows.actions)
    pointers = point(ordered, pins, plan.history_start_ms)
    users = pick_user_rows(rows.users, ordered.requests, features, pins.embedding_dim)
    unnamed = find_unnamed(ordered, pointers.pairs, plan)
    labels = label_examples(ordered, pointers.pairs, unnamed, plan)
    seen = FeatureInputs(ordered, pointers, users, rows.users, pins, plan)
    numbers = compute_numbers(seen, plan.numeric)

    requests, timeline = ordered.requests, pointers.timeline
    is_holdout = requests.impressed_at >= plan.holdout.start_ms
    timeline_columns = {
        "pin_row": pointers.timeline_pin_row,
        "action_type_id": timeline.type_id,
        "acted_at": timeline.acted_at,
        "known_at": timeline.known_at,
    }
    request_columns = vars(requests) | {  # whose fields are named like their columns
        "split": np.where(is_holdout, SPLIT_HOLDOUT, SPLIT_TRAINING),
        "is_core": find_core(ordered, plan),
        "timeline_start": pointers.timeline_start,
        "timeline_end": pointers.timeline_end,
        "user_row": users.user_row,
    }
    shown = ordered.examples.rows
    example_columns = {name: shown[name] for name in shown.column_names}
    example_columns["pin_row"] = pointers.example_pin_row
    example_columns |= {numeric_column(name): found for name, found in numbers.items()}
    example_columns |= {label_column(name): found for name, found in labels.items()}
    return ShardTables(
        timeline=pa.table(timeline_columns, schema=snapshot_schema("timeline", features)),
        requests=pa.table(request_columns, schema=snapshot_schema("requests", features)),
        examples=pa.table(example_columns, schema=snapshot_schema("examples", features)),
        users=users.table,
        num_duplicate_impressions=ordered.num_duplicate_impressions,
        event_counts=count_fits(ordered, unnamed, plan),
    )


def order_rows(impressions: pa.Table, actions: pa.Table | None) -> OrderedRows:
    """Order a shard's rows; drop repeated impressions and the actions of users without requests.

    Args:
        impressions: at least one.
        actions: None where the shard has none.

    Raises:
        DataContractError: a request belongs to two users, or an action precedes its own request.
    """
    names = ("user_id", "pin_id", "impressed_at", "position")
    user_id, pin_id, impressed_at, position = (np.asarray(impressions[name]) for name in names)
    ranks, request_ids = _rank(impressions["request_id"])
    order, pair_starts = runs_of(ranks, pin_id)
    starts = starts_of_runs(ranks[order])
    low, high = (of.reduceat(user_id[order], starts) for of in (np.minimum, np.maximum))
    if (low != high).any():
        bad = int(np.flatnonzero(low != high)[0])
        named = request_ids[int(ranks[order[starts[bad]]])].as_py()
        told = {"one": int(low[bad]), "other": int(high[bad])}
        require_none([finding("request_of_two_users", request_id=named, **told)])
    rows = _earliest_of_pairs(impressions, order, pair_starts)  # by (request_id, pin_id)

    is_first = np.diff(ranks[rows], prepend=-1) != 0
    starts = np.flatnonzero(is_first)
    earliest = np.minimum.reduceat(impressed_at[rows], starts)
    of_requests = order_by(user_id[rows[starts]], earliest)  # and by request_id, as they come
    place = np.empty(len(starts), dtype=np.int64)
    place[of_requests] = np.arange(len(starts))
    request = place[np.cumsum(is_first) - 1]
    of_examples = order_by(request, position[rows])  # and by pin_id, as they come
    rows, request = rows[of_examples], request[of_examples]
    num_examples = np.bincount(request, minlength=len(starts))
    first_example = np.cumsum(num_examples) - num_examples
    requests = Requests(
        request_id=request_ids.take(pa.array(ranks[rows[first_example]])),
        user_id=user_id[rows[first_example]],
        impressed_at=earliest[of_requests],
        first_example=first_example,
        num_examples=num_examples,
    )
    examples = Examples(
        # What the requests and the examples hold besides need not be taken along.
        rows=impressions.drop_columns(["request_id", "user_id", "pin_id"]).take(pa.array(rows)),
        request=request,
        pin_id=pin_id[rows],
        impressed_at=impressed_at[rows],
    )
    none = np.array([], dtype=np.int64)
    no_actions = Actions(none, none, none, none, none, none.astype(bool), none)
    return OrderedRows(
        requests=requests,
        examples=examples,
        actions=no_actions if actions is None else _order_actions(actions, requests),
        num_duplicate_impressions=len(impressions) - len(rows),
    )


def _rank(texts: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """Return each text's rank among the distinct ones, -1 for null; and these, sorted."""
    coded = texts.dictionary_encode().unify_dictionaries()
    found = coded.chunk(0).dictionary if coded.num_chunks else pa.array([], texts.type)
    by_text = np.asarray(pc.sort_indices(found))
    ranks = np.empty(len(by_text) + 1, dtype=np.int64)
    ranks[by_text] = np.arange(len(by_text))
    ranks[-1] = -1  # of null
    none = pa.scalar(len(by_text), pa.int32())
    codes = [np.asarray(pc.fill_null(chunk.indices, none)) for chunk in coded.chunks]
    ranked = ranks[np.concatenate([np.zeros(0, dtype=np.int32), *codes])]
    return ranked, found.take(pa.array(by_text))


def _earliest_of_pairs(impressions: pa.Table, order: Ints, starts: Ints) -> Ints:
    """Return a row of each (request_id, pin_id), in their order: of a repeated pair the earliest.

    Args:
        impressions: all rows.
        order: of the rows, by pair.
        starts: where each pair begins in the order.
    """
    kept, sizes = order[starts], np.diff(starts, append=len(order))
    is_repeated = sizes > 1
    if not is_repeated.any():
        return kept
    # Only the few rows of such pairs are compared by all their columns.
    rows, sizes = order[np.repeat(is_repeated, sizes)], sizes[is_repeated]
    others = set(impressions.column_names) - {"request_id", "user_id", "pin_id"}
    column = {name: np.asarray(impressions[name])[rows] for name in sorted(others)}
    earliest = (column["position"], column["known_at"], column["impressed_at"])
    by_time = np.lexsort((*column.values(), *earliest, np.repeat(np.arange(len(sizes)), sizes)))
    kept[is_repeated] = rows[by_time[np.cumsum(sizes) - sizes]]
    return kept


def _order_actions(actions: pa.Table, requests: Requests) -> Actions:
    """Return the actions of users with requests, in order and matched with their requests.

    An action older than the request it names is refused: it would leak into its sequence.
    """
    user = Places(distinct(requests.user_id)).find(np.asarray(actions["user_id"]))
    ours, (all_ranks, named) = np.flatnonzero(user >= 0), _rank(actions["request_id"])
    names = ("pin_id", "action_type_id", "acted_at", "known_at")
    column = {name: np.asarray(actions[name])[ours].astype(np.int64, copy=False) for name in names}
    ranks, user_id = all_ranks[ours], np.asarray(actions["user_id"])[ours]
    order = order_by(
        user[ours],
        column["known_at"],
        # Of actions that became known at once this is the order of `acted_at`, in fewer bits.
        column["acted_at"] - column["known_at"],
        ranks,
        column["pin_id"],
        column["action_type_id"],
    )
    ranks, user_id = ranks[order], user_id[order]
    found = pc.fill_null(pc.index_in(named, value_set=requests.request_id), -1)
    # The last one is of the actions that name none.
    row = np.append(np.asarray(found).astype(np.int64), -1)[ranks]
    ordered = Actions(
        user_id=user_id,
        pin_id=column["pin_id"][order],
        type_id=column["action_type_id"][order],
        acted_at=column["acted_at"][order],
        known_at=column["known_at"][order],
        names_request=ranks >= 0,
        request=np.where(requests.user_id[row] == user_id, row, -1),
    )
    impressed_at = requests.impressed_at[ordered.request]
    is_early = (ordered.request >= 0) & (ordered.acted_at < impressed_at)
    if is_early.any():
        bad = int(np.flatnonzero(is_early)[0])
        problem = finding(
            "action_before_request",
            acted_at=int(ordered.acted_at[bad]),
            request_id=named[int(ranks[bad])].as_py(),
            impressed_at=int(impressed_at[bad]),
            ids=(("pin_id", int(ordered.pin_id[bad])),),
            num_rows=int(is_early.sum()),
        )
        require_none([problem])
    return ordered


def point(ordered: OrderedRows, pins: PinIndex, history_start_ms: int) -> Pointers:
    """Return the timeline and the rows that point into it and into the pins.

    A shard keeps every action once. A request does not copy its sequence: it says where its user's
    actions begin and where those known before it end. The actions that a request sees were known
    strictly before it: what became known in the same millisecond is not seen. The event log holds
    acted_at <= known_at, so what was known before the request also happened before it.

    Args:
        ordered: the shard's rows.
        pins: the snapshot's pins.
        history_start_ms: the timeline holds no action that happened before this.
    """
    requests, examples, actions = ordered.requests, ordered.examples, ordered.actions
    last_request = np.searchsorted(requests.user_id, actions.user_id, side="right") - 1
    is_known_in_time = actions.known_at < requests.impressed_at[last_request]
    is_in_timeline = is_known_in_time & (actions.acted_at >= history_start_ms)
    timeline = actions.where(is_in_timeline)
    action_pin_row = pins.places.find(actions.pin_id)
    timeline_pin_row = action_pin_row[is_in_timeline]
    example_pin_row = pins.places.find(examples.pin_id)
    assert min(timeline_pin_row.min(initial=0), example_pin_row.min(initial=0)) >= 0
    index = EventIndex(timeline.user_id, timeline.known_at, is_sorted=True)

    # Which examples and actions are of one user and one pin, for labels and features.
    users = distinct(requests.user_id)
    user, num_pins = np.searchsorted(users, requests.user_id), len(pins.pin_ids)
    shown = EventIndex(user[examples.request] * num_pins + example_pin_row, examples.impressed_at)
    of_example = np.empty(len(example_pin_row), dtype=np.int64)
    of_example[shown.order] = shown.ranks
    acted = np.searchsorted(users, actions.user_id) * num_pins + action_pin_row
    is_there = action_pin_row >= 0
    of_action = np.full(len(acted), -1)
    of_action[is_there] = shown.rank(acted[is_there])
    return Pointers(
        timeline=timeline,
        timeline_pin_row=timeline_pin_row,
        timeline_start=index.first(requests.user_id),
        timeline_end=index.position(requests.user_id, requests.impressed_at),
        example_pin_row=example_pin_row,
        pairs=Pairs(shown, of_example, of_action),
        is_in_timeline=is_in_timeline,
    )


def pick_user_rows(
    users: pa.Table | None, requests: Requests, features: FeatureConfig, embedding_dim: int
) -> UserRows:
    """Return, for each request, its user's row of the latest as_of that is not after the request.

    A user who has no row yet is new, not an error: the daily batch has not met them. Their row has
    a zero embedding, the state 'new' (code 0 where the recipe does not list it) and as_of 0.

    Args:
        users: the users' embeddings and codes in any order; None where there are none.
        requests: the shard's requests.
        features: for the categorical features of users.
        embedding_dim: width of the users' embeddings.

    Raises:
        DataContractError: a user has two rows of the same as_of.
    """
    schema = snapshot_schema("users", features, embedding_dim=embedding_dim)
    known = schema.empty_table() if users is None else users.select(schema.names).cast(schema)
    user_id, as_of = np.asarray(known["user_id"]), np.asarray(known["as_of"])
    index = EventIndex(user_id, as_of)
    is_repeat = (np.diff(user_id[index.order]) == 0) & (np.diff(as_of[index.order]) == 0)
    if is_repeat.any():
        bad = index.order[np.flatnonzero(is_repeat)[0]]
        ids = (("user_id", int(user_id[bad])), ("as_of", int(as_of[bad])))
        require_none([finding("repeated_user_row", ids=ids)])
    newest = index.position(requests.user_id, requests.impressed_at + 1) - 1
    has_row = newest >= index.first(requests.user_id)
    spilled_row = np.full(len(has_row), -1)
    spilled_row[has_row] = index.order[newest[has_row]]
    wanted_as_of = np.zeros(len(has_row), dtype=np.int64)
    wanted_as_of[has_row] = as_of[spilled_row[has_row]]

    new_ids = np.unique(requests.user_id[~has_row])
    columns = [new_ids, new_ids * 0, to_list_column(np.zeros((len(new_ids), embedding_dim), "f4"))]
    for feature in features.categorical_of("users"):
        is_state = feature.name == "state" and NEW_STATE in feature.values
        code = feature.values.index(NEW_STATE) + 1 if is_state else 0
        columns.append(np.full(len(new_ids), code, dtype=np.int16))
    newcomers = pa.table(columns, schema=schema)
    rows = pa.concat_tables([known.take(pa.array(spilled_row[has_row])), newcomers])
    keys = np.stack([np.asarray(rows["user_id"]), np.asarray(rows["as_of"])], axis=1)
    unique, places = np.unique(keys, axis=0, return_index=True)
    user_row = EventIndex(unique[:, 0], unique[:, 1]).position(requests.user_id, wanted_as_of)
    return UserRows(rows.take(pa.array(places)), user_row, spilled_row)


def find_core(ordered: OrderedRows, plan: SnapshotPlan) -> Bools:
    """Return which requests are of core users, [requests].

    A core user did the main head's action in the `core_days` before the request.
    """
    requests, actions = ordered.requests, ordered.actions
    target_id = plan.action_type_ids[plan.features.main_head.action_type]
    wanted = actions.where(actions.type_id == target_id)
    return has_recent_action(
        ActionTimes(wanted.user_id, wanted.acted_at, wanted.known_at),
        requests.user_id,
        requests.impressed_at,
        plan.config.core_days * DAY_MS,
        is_sorted=True,
    )


def find_unnamed(ordered: OrderedRows, pairs: Pairs, plan: SnapshotPlan) -> Unnamed:
    """Return the actions without a request, with the examples that they are near to."""
    rows = np.flatnonzero(~ordered.actions.names_request & (pairs.of_action >= 0))
    pair, acted_at = pairs.of_action[rows], ordered.actions.acted_at[rows]
    shifts = (1 - plan.label_window_ms, 1, plan.label_window_ms)
    return Unnamed(rows, *(pairs.shown.place(pair, acted_at + shift) for shift in shifts))


def label_examples(
    ordered: OrderedRows, pairs: Pairs, unnamed: Unnamed, plan: SnapshotPlan
) -> dict[str, npt.NDArray[np.int8]]:
    """Return, by head, 1 where the pin got its action within the label window of its impression.

    An action that names its request counts for that request alone; one that names none counts for
    every impression of the pin to the user within the window.
    """
    actions, examples = ordered.actions, ordered.examples
    num_examples = len(examples.request)
    # The actions that name a request that showed their pin, and the example of each.
    rows = np.flatnonzero((actions.request >= 0) & (pairs.of_action >= 0))
    keys = examples.request * pairs.num_pairs + pairs.of_example
    order = order_by(keys)
    wanted = actions.request[rows] * pairs.num_pairs + pairs.of_action[rows]
    example = order[np.minimum(np.searchsorted(keys[order], wanted), len(order) - 1)]
    passed_ms = actions.acted_at[rows] - examples.impressed_at[example]
    is_within = (passed_ms >= 0) & (passed_ms < plan.label_window_ms) & (keys[example] == wanted)
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
