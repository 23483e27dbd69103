"""First step of the kernel: a shard's impressions and actions in their one order, checked.

Rows come in any order and leave in a total one, so that equal rows give equal bytes however they
were dealt out. Here too each action is matched with the request that it names. Not for what
follows from the order: `pointers`, `labels` and `features`.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.event_log.cross_rules import action_before_request, request_of_two_users
from pipelines.event_log.event_index import Ints, Places, distinct, order_by, runs_of
from pipelines.event_log.findings import require_none
from pipelines.snapshot.shard import Actions, Examples, OrderedRows, Requests


class _Ranked(NamedTuple):
    """Texts as numbers that sort alike."""

    ranks: Ints  # of each text among the distinct ones; -1 for null
    distinct: pa.Array  # sorted


def order_rows(impressions: pa.Table, actions: pa.Table | None) -> OrderedRows:
    """Order a shard's rows; drop repeated impressions and the actions of users without requests.

    Args:
        impressions: at least one.
        actions: None where the shard has none.

    Raises:
        DataContractError: a request belongs to two users, or an action precedes its own request.
    """
    request_ids = _rank(impressions["request_id"])
    rows = _without_repeats(impressions, request_ids)
    requests, examples = _group_by_request(impressions, rows, request_ids)
    return OrderedRows(
        requests=requests,
        examples=examples,
        actions=_no_actions() if actions is None else _order_actions(actions, requests),
        num_duplicate_impressions=len(impressions) - len(rows),
    )


def _without_repeats(impressions: pa.Table, request_ids: _Ranked) -> Ints:
    """Return the rows to keep, by (request_id, pin_id): of a repeated pair, the earliest row."""
    order, starts = runs_of(request_ids.ranks, np.asarray(impressions["pin_id"]))
    kept, sizes = order[starts], np.diff(starts, append=len(order))
    is_repeated = sizes > 1
    if is_repeated.any():
        # Only the few rows of such pairs are compared by all their columns.
        rows = order[np.repeat(is_repeated, sizes)]
        pair_starts = np.cumsum(sizes[is_repeated]) - sizes[is_repeated]
        names = request_ids.distinct.take(pa.array(request_ids.ranks[rows[pair_starts]]))
        _check_one_user(np.asarray(impressions["user_id"])[rows], pair_starts, names)
        pair = np.repeat(np.arange(len(pair_starts)), sizes[is_repeated])
        kept[is_repeated] = rows[_by_time(impressions, rows, pair)[pair_starts]]
    return kept


def _by_time(impressions: pa.Table, rows: Ints, pair: Ints) -> Ints:
    """Return the order of some rows by pair, then by time, then by all else that they hold."""
    column = {
        name: np.asarray(impressions[name])[rows]
        for name in impressions.column_names
        if name not in ("request_id", "user_id", "pin_id")
    }
    tie_break = [column[name] for name in sorted(column)]
    keys = (*tie_break, column["position"], column["known_at"], column["impressed_at"])
    return np.lexsort((*keys, pair))


def _group_by_request(
    impressions: pa.Table, rows: Ints, request_ids: _Ranked
) -> tuple[Requests, Examples]:
    """Return the requests and examples of some rows, which come by (request_id, pin_id)."""
    names = ("user_id", "pin_id", "impressed_at", "position")
    user_id, pin_id, impressed_at, position = (np.asarray(impressions[n])[rows] for n in names)
    ranks = request_ids.ranks[rows]
    is_first = np.diff(ranks, prepend=-1) != 0
    starts = np.flatnonzero(is_first)
    _check_one_user(user_id, starts, request_ids.distinct.take(pa.array(ranks[starts])))
    earliest = np.minimum.reduceat(impressed_at, starts)
    request_order = order_by(user_id[starts], earliest)  # and by request_id, as they come

    place = np.empty(len(starts), dtype=np.int64)
    place[request_order] = np.arange(len(starts))
    request = place[np.cumsum(is_first) - 1]
    example_order = order_by(request, position)  # and by pin_id, as they come
    request = request[example_order]
    num_examples = np.bincount(request, minlength=len(starts))
    requests = Requests(
        request_id=request_ids.distinct.take(pa.array(ranks[starts][request_order])),
        user_id=user_id[starts][request_order],
        impressed_at=earliest[request_order],
        first_example=np.cumsum(num_examples) - num_examples,
        num_examples=num_examples,
    )
    examples = Examples(
        # What the requests and the examples hold besides need not be taken along.
        rows=impressions.drop_columns(["request_id", "user_id", "pin_id"]).take(
            pa.array(rows[example_order])
        ),
        request=request,
        pin_id=pin_id[example_order],
        impressed_at=impressed_at[example_order],
    )
    return requests, examples


def _check_one_user(user_id: Ints, starts: Ints, request_id: pa.Array) -> None:
    """Refuse a request whose impressions, from its start on, belong to several users."""
    low, high = np.minimum.reduceat(user_id, starts), np.maximum.reduceat(user_id, starts)
    if (low != high).any():
        bad = int(np.flatnonzero(low != high)[0])
        users = int(low[bad]), int(high[bad])
        require_none([request_of_two_users(request_id[bad].as_py(), *users)])


def _no_actions() -> Actions:
    none, no_names = np.array([], dtype=np.int64), np.array([], dtype=bool)
    return Actions(none, none, none, none, none, names_request=no_names, request=none)


def _order_actions(actions: pa.Table, requests: Requests) -> Actions:
    """Return the actions of users with requests, in order and matched with their requests."""
    user = Places(distinct(requests.user_id)).find(np.asarray(actions["user_id"]))
    ours, named = np.flatnonzero(user >= 0), _rank(actions["request_id"])
    names = ("pin_id", "action_type_id", "acted_at", "known_at")
    column = {name: np.asarray(actions[name])[ours].astype(np.int64, copy=False) for name in names}
    ranks, user_id = named.ranks[ours], np.asarray(actions["user_id"])[ours]
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
    ordered = Actions(
        user_id=user_id,
        pin_id=column["pin_id"][order],
        type_id=column["action_type_id"][order],
        acted_at=column["acted_at"][order],
        known_at=column["known_at"][order],
        names_request=ranks >= 0,
        request=_request_of_action(named.distinct, ranks, user_id, requests),
    )
    _check_cause_before_effect(ordered, named.distinct, ranks, requests)
    return ordered


def _request_of_action(names: pa.Array, ranks: Ints, user_id: Ints, requests: Requests) -> Ints:
    """Return the row of the request that each action names, -1 if its user has none such here."""
    found = pc.fill_null(pc.index_in(names, value_set=requests.request_id), -1)
    # The last one is of the actions that name none.
    row = np.append(np.asarray(found).astype(np.int64), -1)[ranks]
    return np.where(requests.user_id[row] == user_id, row, -1)


def _check_cause_before_effect(
    actions: Actions, names: pa.Array, ranks: Ints, requests: Requests
) -> None:
    """Refuse an action older than the request it names: it would leak into its sequence."""
    impressed_at = requests.impressed_at[actions.request]
    is_early = (actions.request >= 0) & (actions.acted_at < impressed_at)
    if is_early.any():
        bad = int(np.flatnonzero(is_early)[0])
        found = action_before_request(
            pin_id=int(actions.pin_id[bad]),
            acted_at=int(actions.acted_at[bad]),
            request_id=names[int(ranks[bad])].as_py(),
            impressed_at=int(impressed_at[bad]),
            num_actions=int(is_early.sum()),
        )
        require_none([found])


def _rank(texts: pa.ChunkedArray) -> _Ranked:
    """Rank texts; each distinct one is looked at once."""
    coded = texts.dictionary_encode().unify_dictionaries()
    found = coded.chunk(0).dictionary if coded.num_chunks else pa.array([], texts.type)
    by_text = np.asarray(pc.sort_indices(found))
    ranks = np.empty(len(by_text) + 1, dtype=np.int64)
    ranks[by_text] = np.arange(len(by_text))
    ranks[-1] = -1  # of null
    none = pa.scalar(len(by_text), pa.int32())
    codes = [np.asarray(pc.fill_null(chunk.indices, none)) for chunk in coded.chunks]
    return _Ranked(
        ranks[np.concatenate([np.zeros(0, dtype=np.int32), *codes])], found.take(pa.array(by_text))
    )
