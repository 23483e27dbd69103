"""A shard's impressions and actions in their one order, and the checks that need both.

Rows come in any order and leave in a total one: so equal rows give equal bytes, however they were
dealt out. Not for numbers or labels: `snapshot_features`, `snapshot_kernel`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.errors import DataContractError
from pipelines.snapshot.features import Ints
from pipelines.snapshot.plan import SnapshotPlan

LONG_AGO = np.iinfo(np.int64).min // 2
"""Before any event, and far enough from the end of int64 to be subtracted from."""


@dataclass(frozen=True)
class Examples:
    """A shard's impressions, deduplicated, by (user_id, time, request_id, position, pin_id)."""

    rows: pa.Table
    request: Ints  # [examples] which request, counting from 0
    first: Ints  # [requests] its first example
    request_ids: pa.Array  # [requests]
    user_id: Ints  # [requests]
    impressed_at: Ints  # [requests] earliest of its impressions


@dataclass(frozen=True)
class Actions:
    """A shard's actions by (user_id, known_at, acted_at, request_id, pin_id, action_type_id)."""

    user_id: Ints
    pin_id: Ints
    type_id: Ints
    acted_at: Ints
    known_at: Ints
    request_id: pa.Array

    def where(self, mask: npt.NDArray[np.bool_]) -> "Actions":
        """Return some of the actions, in the same order."""
        return Actions(
            user_id=self.user_id[mask],
            pin_id=self.pin_id[mask],
            type_id=self.type_id[mask],
            acted_at=self.acted_at[mask],
            known_at=self.known_at[mask],
            request_id=self.request_id.filter(pa.array(mask)),
        )


def order_examples(impressions: pa.Table) -> tuple[Examples, int]:
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
    examples = Examples(
        rows=impressions.take(pa.array(order[by_request])),
        request=request,
        first=first,
        request_ids=names.take(pa.array(ranks[starts][request_order])),
        user_id=user_id[starts][request_order],
        impressed_at=earliest[request_order],
    )
    return examples, int(repeats.sum())


def order_actions(actions: pa.Table | None, user_ids: Ints) -> Actions:
    """Return the actions of users with requests, in the timeline's order."""
    if actions is None:
        nothing = np.array([], dtype=np.int64)
        return Actions(nothing, nothing, nothing, nothing, nothing, pa.array([], pa.string()))
    actions = actions.filter(pc.is_in(actions["user_id"], value_set=pa.array(user_ids)))
    request_ranks, _ = _rank(actions["request_id"])
    column = {
        name: np.asarray(actions[name]).astype(np.int64)
        for name in ("user_id", "pin_id", "action_type_id", "acted_at", "known_at")
    }
    ties = (column["action_type_id"], column["pin_id"], request_ranks)
    order = np.lexsort((*ties, column["acted_at"], column["known_at"], column["user_id"]))
    return Actions(
        user_id=column["user_id"][order],
        pin_id=column["pin_id"][order],
        type_id=column["action_type_id"][order],
        acted_at=column["acted_at"][order],
        known_at=column["known_at"][order],
        request_id=_combined(actions["request_id"].take(pa.array(order))),
    )


def _check_one_user(user_id: Ints, starts: Ints, ranks: Ints, names: pa.Array) -> None:
    low, high = np.minimum.reduceat(user_id, starts), np.maximum.reduceat(user_id, starts)
    if (low != high).any():
        bad = int(np.flatnonzero(low != high)[0])
        raise DataContractError(
            f"impressions: request {names[int(ranks[starts[bad]])].as_py()!r} belongs to users "
            f"{low[bad]} and {high[bad]}; expected one user per request; make request_id unique"
        )


def check_cause_before_effect(examples: Examples, actions: Actions) -> None:
    """Refuse an action older than the request it names: it would leak into its sequence."""
    place = request_of_action(examples, actions)
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


def request_of_action(examples: Examples, actions: Actions) -> Ints:
    """Return the request that an action names, if it is here and of the same user; else -1."""
    found = pc.fill_null(pc.index_in(actions.request_id, value_set=examples.request_ids), -1)
    place = np.asarray(found).astype(np.int64)
    # A null request_id must not match: index_in would only find a null in the value set.
    return np.where(examples.user_id[place] == actions.user_id, place, -1)


def cut_timeline(examples: Examples, actions: Actions, plan: SnapshotPlan) -> Actions:
    """Keep what some request can see: in the history, known before the user's last request."""
    users = np.unique(examples.user_id)
    last = np.full(len(users), LONG_AGO)
    np.maximum.at(last, np.searchsorted(users, examples.user_id), examples.impressed_at)
    known_in_time = actions.known_at < last[np.searchsorted(users, actions.user_id)]
    return actions.where(known_in_time & (actions.acted_at >= plan.history_start_ms))


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
