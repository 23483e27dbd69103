"""Kinds of defects that limits were chosen with, though no rule of the gate was made for them.

Kinds and strengths were fixed before the first one was tried. Those that nobody has looked at are
in `planted_blind`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column, to_numpy
from pipelines.contracts.time import DAY_MS, HOUR_MS
from support.planted import (
    ACTED,
    SHARES,
    SHOWN,
    TABLES,
    Array,
    LogRows,
    Plant,
    Rng,
    Where,
    acted_upon,
    category,
    commonest_type,
    drawn,
    is_commonest,
    lose,
    lose_ids,
    of_commonest_type,
    rename,
    requests,
    with_columns,
    write,
)

FULL, SOME, SHIFTS = (0.1, 0.3, 1.0), (0.05, 0.15, 0.3), (1.0, 2.0, 3.0)
NEW_AFTER_DAYS, STATE_DAYS = 5, 28
SUNDAY, SATURDAY = 3, 2
"""Days since the epoch, a Thursday, modulo 7."""


def codes(values: pa.ChunkedArray) -> Array:
    return np.asarray(values.combine_chunks().dictionary_encode().indices)


def of_users(table: str) -> Where:
    """The rows of a share of the users, the same users in every table and with the same seed."""

    def where(log: LogRows, share: float, rng: Rng) -> Array:
        mixed = (log.column(table, "user_id") * 2_654_435_761 + rng.integers(1 << 30)) % 1_000_003
        return log.inside(table) & (mixed * 7919 % 1_000_003 < share * 1_000_003)

    return where


def in_rare_state(log: LogRows) -> Array:
    """Whether an action is of a user whose commonest state is not the log's commonest."""
    is_usual = is_commonest(log.users["state"])
    users, place = np.unique(log.column("users", "user_id"), return_inverse=True)
    rare = users[np.bincount(place, is_usual) < np.bincount(place) / 2]
    return np.isin(log.column(ACTED, "user_id"), rare)


def new_pins(log: LogRows) -> Array:
    pin, day = log.column(SHOWN, "pin_id"), log.day_of(SHOWN)
    return np.setdiff1d(pin, pin[day < log.first_day + NEW_AFTER_DAYS])


def embed(table: str, where: Where, change: Callable[[Array, Array, Rng], Array]) -> Plant:
    def plant(log: LogRows, s: float, rng: Rng) -> LogRows:
        vectors = np.array(to_numpy(getattr(log, table)["embedding"]), dtype=np.float32)
        chosen = np.flatnonzero(where(log, s, rng))
        vectors[chosen] = change(vectors, chosen, rng)
        return log.set(table, embedding=to_list_column(vectors))

    return plant


def rotated(vectors: Array, chosen: Array, rng: Rng) -> Array:
    width = vectors.shape[1]
    return vectors[chosen] @ np.linalg.qr(rng.normal(size=(width, width)))[0].astype(np.float32)


def of_new_pins(log: LogRows, s: float, rng: Rng) -> Array:
    pins = log.column("pins", "pin_id")
    return np.isin(pins, new_pins(log)) & (rng.random(len(pins)) < s)


def reuse_ids(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Give new pins the ids of pins that are no longer shown."""
    new = new_pins(log)
    new = new[rng.random(len(new)) < s]
    free = np.setdiff1d(log.column("pins", "pin_id"), log.column(SHOWN, "pin_id"))
    free = free if len(free) else np.unique(log.column(SHOWN, "pin_id"))
    target = rng.permutation(np.resize(free, len(new)))
    return rename(log, "pin_id", new, target)


def collide_users(log: LogRows, s: float, rng: Rng) -> LogRows:
    users = np.unique(log.column(SHOWN, "user_id"))
    lost = users[rng.random(len(users)) < s]
    return rename(log, "user_id", lost, rng.choice(np.setdiff1d(users, lost), len(lost)))


def collide_requests(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Give a share of the requests the id of another request of the day, in both tables."""
    day, request = log.day_of(SHOWN), log.impressions["request_id"].to_numpy(zero_copy_only=False)
    names, first = np.unique(request.astype(str), return_index=True)
    target = names.copy()
    for of in np.unique(day[log.inside(SHOWN)]):
        own = np.flatnonzero(day[first] == of)
        lost = own[rng.random(len(own)) < s]
        target[lost] = names[rng.choice(own, len(lost))]
    moved = pa.array(target)
    for table in (SHOWN, ACTED):
        place = pc.index_in(getattr(log, table)["request_id"], value_set=pa.array(names))
        old = getattr(log, table)["request_id"]
        hit = pc.and_(pa.array(log.inside(table)), pc.is_valid(place))
        log = log.set(table, request_id=pc.if_else(hit, moved.take(place), old).combine_chunks())
    return log


def move(log: LogRows, moved: Callable[[str, Array], Array]) -> LogRows:
    """Events happen, and become known, at another time, in both tables."""
    for table, names in ((SHOWN, ("impressed_at", "known_at")), (ACTED, ("acted_at", "known_at"))):
        shift = moved(table, log.column(table, names[0])) - log.column(table, names[0])
        log = log.set(table, **{name: log.column(table, name) + shift for name in names})
    return log


def shift_weekdays(log: LogRows, days: float, rng: Rng) -> LogRows:
    start, length = log.first_day * DAY_MS, (log.end_day - log.first_day) * DAY_MS
    return move(log, lambda table, time: np.where(
        log.inside(table), (time - start + int(days) * DAY_MS) % length + start, time))  # fmt: skip


def cap_heavy(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Lose requests of the users with most of them, so that none has more than a quantile."""
    inside, request = log.inside(SHOWN), codes(log.impressions["request_id"])
    _, first = np.unique(request, return_index=True)
    first = rng.permutation(first[inside[first]])
    user = log.column(SHOWN, "user_id")[first]
    order = np.argsort(user, kind="stable")
    start = np.flatnonzero(np.diff(user[order], prepend=-1))
    number = np.arange(len(order)) - np.repeat(start, np.diff(np.append(start, len(order))))
    most = np.quantile(np.diff(np.append(start, len(order))), 1 - s)
    lost = request[first[order[number >= most]]]
    names = log.impressions["request_id"].combine_chunks().dictionary_encode().dictionary
    is_named = pc.is_in(log.actions["request_id"], value_set=names.take(pa.array(lost)))
    return log.without(SHOWN, np.isin(request, lost)).without(ACTED, np.asarray(is_named))


def flip_labels(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Move a share of the actions that name a request to another pin of it."""
    shown = log.impressions["request_id"].combine_chunks().dictionary_encode()
    request, pin = np.asarray(shown.indices), log.column(SHOWN, "pin_id")
    order = np.argsort(request, kind="stable")
    start = np.searchsorted(request[order], np.arange(len(shown.dictionary) + 1))
    place = pc.index_in(log.actions["request_id"], value_set=shown.dictionary)
    place = np.asarray(pc.fill_null(place, -1))
    chosen = np.flatnonzero(drawn(ACTED)(log, s, rng) & (place >= 0))
    first, end = start[place[chosen]], start[place[chosen] + 1]
    ids = log.column(ACTED, "pin_id")
    ids[chosen] = pin[order[first + (rng.random(len(chosen)) * (end - first)).astype(int)]]
    return log.set(ACTED, pin_id=ids)


def swap_users(vectors: Array, chosen: Array, rng: Rng) -> Array:
    return vectors[np.roll(chosen, len(chosen) // 3)]


def stale_rows(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Users' rows of the days hold the embedding of the newest row before them."""
    user, as_of = log.column("users", "user_id"), log.column("users", "as_of")
    order = np.lexsort((as_of, user))
    vectors = np.array(to_numpy(log.users["embedding"]), dtype=np.float32)
    chosen = of_users("users")(log, s, rng)[order]
    source = np.arange(len(order))
    for row in np.flatnonzero(chosen[1:] & (np.diff(user[order]) == 0)) + 1:
        source[row] = source[row - 1]
    vectors[order] = vectors[order[source]]
    return log.set("users", embedding=to_list_column(vectors))


def column_of_last_week(log: LogRows, s: float, rng: Rng) -> LogRows:
    """A category of the rows is that of as many rows a week before, one after another."""
    name, day, is_hit = category(log), log.day_of(SHOWN), drawn(SHOWN)(log, s, rng)
    values = log.impressions[name].to_numpy(zero_copy_only=False).astype(object)
    changed = values.copy()
    for of in range(log.first_day + 6, log.end_day):
        now, before = np.flatnonzero(day == of), np.flatnonzero(day == of - 7)
        if len(before):
            copied = values[np.resize(before, len(now))]
            changed[now] = np.where(is_hit[now], copied, changed[now])
    return log.set(SHOWN, **{name: changed})


def new_users(log: LogRows) -> Array:
    user, as_of = log.column("users", "user_id"), log.column("users", "as_of")
    known = user[as_of < (log.first_day - STATE_DAYS) * DAY_MS]
    return np.setdiff1d(log.column(SHOWN, "user_id"), known)


def lose_popular(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Lose the pins shown most, with half of a share of all impressions."""
    pins, num = np.unique(log.column(SHOWN, "pin_id"), return_counts=True)
    order = np.argsort(-num, kind="stable")
    lost = pins[order[np.cumsum(num[order]) <= s / 2 * num.sum()]]
    return lose_ids("pin_id", lambda log: lost)(log, 1.0, rng)


def rare_pins(log: LogRows) -> Array:
    pins, num = np.unique(log.column(SHOWN, "pin_id"), return_counts=True)
    return pins[num <= np.quantile(num, 0.3)]


def other_zone(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Times of a share of the users are six hours later, on the same day."""
    salt = rng.integers(1 << 30)
    return move(log, lambda table, time: np.where(
        of_users(table)(log, s, np.random.default_rng(salt)),
        time // DAY_MS * DAY_MS + (time + 6 * HOUR_MS) % DAY_MS, time))  # fmt: skip


def reorder(key: Callable[[LogRows, Rng], Array]) -> Plant:
    """Rows of a share of the requests take the request's positions in the order of a key."""

    def plant(log: LogRows, s: float, rng: Rng) -> LogRows:
        request, position = codes(log.impressions["request_id"]), log.column(SHOWN, "position")
        hit = np.flatnonzero(log.inside(SHOWN) & requests(log, s, rng))
        of, by = request[hit], key(log, rng)[hit]
        rows, places = np.lexsort((by, of)), np.lexsort((position[hit], of))
        changed = position.copy()
        changed[hit[rows]] = position[hit[places]]
        return log.set(SHOWN, position=changed)

    return plant


def repeated_pins(log: LogRows, s: float, rng: Rng) -> Array:
    """Later impressions of a pin to the same user, a share of them."""
    keys = log.column(SHOWN, "user_id") * 1_000_003 + log.column(SHOWN, "pin_id")
    _, first = np.unique(keys, return_index=True)
    is_first = np.zeros(len(keys), dtype=bool)
    is_first[first] = True
    return drawn(SHOWN)(log, s, rng) & ~is_first


def split_requests(log: LogRows, s: float, rng: Rng) -> LogRows:
    hit = log.inside(SHOWN) & requests(log, s, rng) & (log.column(SHOWN, "position") % 2 == 1)
    names = log.impressions["request_id"]
    other = pc.binary_join_element_wise(names, "odd", "-")
    return log.set(SHOWN, request_id=pc.if_else(pa.array(hit), other, names).combine_chunks())


def from_hour(table: str, start: float) -> Where:
    def where(log: LogRows, s: float, rng: Rng) -> Array:
        time = log.column(table, TABLES[table]) % DAY_MS / HOUR_MS
        return log.inside(table) & (start <= time) & (rng.random(len(time)) < s)

    return where


def next_type(log: LogRows, s: float) -> dict[str, Any]:
    types = log.actions["action_type"].to_pandas().astype(str)
    order = types.value_counts().index
    return {"action_type": np.roll(order, -1)[order.get_indexer(types)].astype(object)}


def to_popular(log: LogRows, s: float) -> dict[str, Any]:
    pins, num = np.unique(log.column(SHOWN, "pin_id"), return_counts=True)
    return {"pin_id": int(pins[np.argmax(num)])}


def unnamed(log: LogRows, s: float, rng: Rng) -> Array:
    return drawn(ACTED)(log, s, rng) & ~np.asarray(log.actions["request_id"].is_valid())


def in_requests(log: LogRows, s: float, rng: Rng) -> Array:
    return log.inside(SHOWN) & requests(log, s, rng)


def one_before(log: LogRows, name: str) -> Array:
    """The value of the row before it in the same request, and of the last row for the first."""
    request, position = codes(log.impressions["request_id"]), log.column(SHOWN, "position")
    order = np.lexsort((position, request))
    of = request[order]
    start = np.searchsorted(of, of, side="left")
    end = np.searchsorted(of, of, side="right")
    place = np.arange(len(order))
    values = log.impressions[name].to_numpy(zero_copy_only=False)
    moved = np.empty_like(values)
    moved[order] = values[order[np.where(place == start, end - 1, place - 1)]]
    return moved


def shift_in_requests(name: Any) -> Plant:
    return write(SHOWN, in_requests, lambda log, s: {name(log): one_before(log, name(log))})


def of_another(table: str, name: str) -> Plant:
    """A share of the rows has the value of another row of the table, drawn from that share."""

    def plant(log: LogRows, s: float, rng: Rng) -> LogRows:
        chosen = np.flatnonzero(drawn(table)(log, s, rng))
        values = np.array(getattr(log, table)[name].to_numpy(zero_copy_only=False))
        values[chosen] = values[rng.permutation(chosen)]
        return log.set(table, **{name: values})

    return plant


def exchange_users(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Impressions of a share of the requests are said to be another such request's user's."""
    request, user = codes(log.impressions["request_id"]), log.column(SHOWN, "user_id")
    hit = in_requests(log, s, rng)
    names, first = np.unique(request[hit], return_index=True)
    theirs = rng.permutation(user[hit][first])
    user[hit] = theirs[np.searchsorted(names, request[hit])]
    return log.set(SHOWN, user_id=user)


def log_prefetched(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Pins that were fetched and not seen are logged too, below those that were seen."""
    extra = log.impressions.filter(pa.array(drawn(SHOWN)(log, s, rng)))
    pins = rng.permutation(extra["pin_id"].to_numpy())
    position = extra["position"].to_numpy() + 100
    return log.with_more(SHOWN, with_columns(extra, pin_id=pins, position=position))


def later_of_pair(log: LogRows, s: float, rng: Rng) -> Array:
    """A share of the actions that are not the first of their type by a user on a pin."""
    keys = pa.table(
        {n: log.actions[n].cast("string") for n in ("user_id", "pin_id", "action_type")}
    )
    pair = codes(pc.binary_join_element_wise(*keys.columns, "/"))
    order = np.lexsort((log.column(ACTED, "acted_at"), pair))
    is_first = np.zeros(len(pair), dtype=bool)
    is_first[order[np.diff(pair[order], prepend=-1) != 0]] = True
    return drawn(ACTED)(log, s, rng) & ~is_first


def retry_later(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Write a share of the actions again, an hour later."""
    extra = log.actions.filter(pa.array(drawn(ACTED)(log, s, rng)))
    later = {name: extra[name].to_numpy() + HOUR_MS for name in ("acted_at", "known_at")}
    return log.with_more(ACTED, with_columns(extra, **later))


def light_users(log: LogRows) -> Array:
    request, user = codes(log.impressions["request_id"]), log.column(SHOWN, "user_id")
    inside = log.inside(SHOWN)
    _, first = np.unique(request[inside], return_index=True)
    users, num = np.unique(user[inside][first], return_counts=True)
    return users[num <= np.quantile(num, 0.25)]


def mornings_again(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Requests before noon are logged twice, under another name."""
    is_early = log.column(SHOWN, TABLES[SHOWN]) % DAY_MS < DAY_MS // 2
    extra = log.impressions.filter(pa.array(in_requests(log, s, rng) & is_early))
    names = pc.binary_join_element_wise(extra["request_id"], "morning", "-")
    return log.with_more(SHOWN, with_columns(extra, request_id=names))


def merged_type(log: LogRows, s: float) -> dict[str, Any]:
    """The commonest of the types that are not the commonest of all stands for them."""
    types, first = log.actions["action_type"].to_pandas().astype(str), commonest_type(log)
    others = types[types != first].value_counts()
    return {"action_type": np.where(types == first, first, others.index[0]).astype(object)}


def without_action(log: LogRows, s: float, rng: Rng) -> Array:
    request = codes(log.impressions["request_id"])
    is_acted_upon = np.bincount(request, acted_upon(log)) > 0
    return in_requests(log, s, rng) & ~is_acted_upon[request]


def on_weekends(log: LogRows, s: float, rng: Rng) -> Array:
    return in_requests(log, s, rng) & np.isin(log.day_of(SHOWN) % 7, (SATURDAY, SUNDAY))


def in_lower_half(log: LogRows, s: float, rng: Rng) -> Array:
    request, position = codes(log.impressions["request_id"]), log.column(SHOWN, "position")
    most = np.zeros(request.max() + 1, dtype=np.int64)
    np.maximum.at(most, request, position)
    return in_requests(log, s, rng) & (position > most[request] // 2)


def become_anonymous(log: LogRows, s: float, rng: Rng) -> LogRows:
    """From the first day of the holdout on, a share of the users have ids that nobody knows."""
    salt = rng.integers(1 << 30)
    for table in (SHOWN, ACTED):
        user, is_late = log.column(table, "user_id"), log.day_of(table) >= log.holdout_day
        hit = is_late & of_users(table)(log, s, np.random.default_rng(salt))
        log = log.set(table, user_id=np.where(hit, user + 50_000_000, user))
    return log


def move_days(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Rows of every other day, a share of its requests and actions, are the next day's."""
    for table, names in ((SHOWN, ("impressed_at", "known_at")), (ACTED, ("acted_at", "known_at"))):
        day = log.day_of(table)
        can = log.inside(table) & (day % 2 == log.first_day % 2) & (day < log.end_day - 1)
        hit = can & (requests(log, s, rng) if table == SHOWN else rng.random(len(day)) < s)
        shifted = {name: log.column(table, name) + hit * DAY_MS for name in names}
        log = log.set(table, **shifted)
    return log


def at_the_top(log: LogRows, s: float, rng: Rng) -> Array:
    return in_requests(log, s, rng) & (log.column(SHOWN, "position") == 0)


def cache_feeds(log: LogRows, s: float, rng: Rng) -> LogRows:
    """A share of the requests show the pins of the request logged before, place by place."""
    request, position = codes(log.impressions["request_id"]), log.column(SHOWN, "position")
    pin, hit = log.column(SHOWN, "pin_id"), in_requests(log, s, rng)
    keys = request.astype(np.int64) * 10_000 + position
    order = np.argsort(keys, kind="stable")
    before = np.minimum(np.searchsorted(keys[order], keys - 10_000), len(order) - 1)
    found = hit & (keys[order][before] == keys - 10_000)
    return log.set(SHOWN, pin_id=np.where(found, pin[order[before]], pin))


def hours_of(table: str, name: str) -> Any:
    return lambda log, s: {name: log.column(table, name) // HOUR_MS * HOUR_MS}


TUNED: dict[str, tuple[Plant, tuple[float, float, float]]] = {
    "positions_reversed": (reorder(lambda log, rng: -log.column(SHOWN, "position")), FULL),
    "positions_by_label": (reorder(lambda log, rng: ~acted_upon(log)), FULL),
    "positions_by_pin": (reorder(lambda log, rng: log.column(SHOWN, "pin_id")), FULL),
    "type_lost_for_segment": (lose(ACTED, lambda log, s, rng: of_commonest_type(log, 1.0, rng)
                                   & in_rare_state(log) & of_users(ACTED)(log, s, rng)), FULL),
    "type_lost_for_users": (lose(ACTED, lambda log, s, rng: of_commonest_type(log, 1.0, rng)
                                 & of_users(ACTED)(log, s, rng)), SHARES),
    "types_exchanged_for_users": (write(ACTED, of_users(ACTED), next_type), SHARES),
    "pin_ids_reused": (reuse_ids, FULL),
    "user_ids_colliding": (collide_users, SHARES),
    "request_ids_colliding": (collide_requests, SHARES),
    "weekdays_shifted": (shift_weekdays, SHIFTS),
    "heavy_users_capped": (cap_heavy, SHARES),
    "labels_flipped": (flip_labels, SOME),
    "user_embeddings_of_another": (embed("users", of_users("users"), swap_users), SHARES),
    "user_embeddings_of_last_row": (stale_rows, FULL),
    "user_embeddings_tripled": (embed("users", of_users("users"), lambda v, c, rng: 3 * v[c]),
                                SHARES),
    "user_embeddings_cut": (embed("users", of_users("users"), lambda v, c, rng: np.where(
        np.arange(v.shape[1]) < v.shape[1] // 2, v[c], 0)), SHARES),
    "state_stuck": (write("users", of_users("users"), lambda log, s: {
        "state": log.users["state"].to_pandas().astype(str).mode()[0]}), FULL),
    "states_exchanged": (write("users", of_users("users"), lambda log, s: {
        "state": np.roll(log.column("users", "state"), 7)}), FULL),
    "column_of_last_week": (column_of_last_week, FULL),
    "acted_at_midnight": (write(ACTED, drawn(ACTED), lambda log, s: {
        "acted_at": log.day_of(ACTED) * DAY_MS}), SHARES),
    "new_users_lost": (lose_ids("user_id", new_users), FULL),
    "popular_pins_lost": (lose_popular, SHARES),
    "rare_pins_lost": (lose_ids("pin_id", rare_pins), FULL),
    "repeated_pins_lost": (lose(SHOWN, repeated_pins), FULL),
    "new_pin_embeddings_rotated": (embed("pins", of_new_pins, rotated), FULL),
    "new_pin_embeddings_near_zero": (embed("pins", of_new_pins, lambda v, c, rng: v[c] / 1000),
                                     FULL),
    "new_pin_embeddings_of_another": (embed("pins", of_new_pins, swap_users), FULL),
    "zone_of_users": (other_zone, SHARES),
    "requests_split": (split_requests, SHARES),
    "evenings_lost": (lose(SHOWN, from_hour(SHOWN, 18)), FULL),
    "late_actions_lost": (lose(ACTED, from_hour(ACTED, 16)), SHARES),
    "actions_early": (write(ACTED, of_users(ACTED), lambda log, s: {
        "acted_at": log.column(ACTED, "acted_at") - HOUR_MS // 2}), SHARES),
    "actions_on_popular": (write(ACTED, unnamed, to_popular), SHARES),
    "surface_relabelled": (write(SHOWN, of_users(SHOWN), lambda log, s: {"surface": "other"}),
                           SHARES),
    "requests_truncated": (lose(SHOWN, in_lower_half), SHARES),
    "users_of_requests_exchanged": (exchange_users, SHARES),
    "actions_of_another_user": (of_another(ACTED, "user_id"), SHARES),
    "requests_misnamed": (of_another(ACTED, "request_id"), SHARES),
    "requests_unnamed": (write(ACTED, drawn(ACTED), lambda log, s: {"request_id": None}), SHARES),
    "prefetched_pins_logged": (log_prefetched, SHARES),
    "later_actions_lost": (lose(ACTED, later_of_pair), FULL),
    "actions_retried_later": (retry_later, SHARES),
    "acted_at_is_known_at": (write(ACTED, drawn(ACTED), lambda log, s: {
        "acted_at": log.column(ACTED, "known_at")}), SHARES),
    "impressed_on_the_hour": (write(SHOWN, in_requests, hours_of(SHOWN, "impressed_at")), SHARES),
    "positions_from_one": (write(SHOWN, in_requests, lambda log, s: {
        "position": log.column(SHOWN, "position") + 1}), SHARES),
    "positions_doubled": (write(SHOWN, in_requests, lambda log, s: {
        "position": log.column(SHOWN, "position") * 2}), SHARES),
    "light_users_lost": (lose_ids("user_id", light_users), FULL),
    "mornings_twice": (mornings_again, SHARES),
    "user_embeddings_noisy": (embed("users", of_users("users"), lambda v, c, rng: (
        v[c] + rng.normal(0, v.std(), (len(c), v.shape[1])))), SHARES),
    "user_embeddings_negated": (embed("users", of_users("users"), lambda v, c, rng: -v[c]), SHARES),
    "states_of_other_users": (of_another("users", "state"), FULL),
    "states_unknown": (write("users", of_users("users"), lambda log, s: {"state": "unknown"}),
                       SHARES),
    "rarer_types_merged": (write(ACTED, drawn(ACTED), merged_type), FULL),
    "weekends_lost": (lose(SHOWN, on_weekends), FULL),
    "unacted_requests_lost": (lose(SHOWN, without_action), FULL),
    "exploration_flag_lost": (write(SHOWN, in_requests, lambda log, s: {"is_exploration": False}),
                              FULL),
    "category_off_by_one": (shift_in_requests(category), FULL),
    "pins_off_by_one": (shift_in_requests(lambda log: "pin_id"), SHARES),
    "users_anonymous": (become_anonymous, SHARES),
    "days_moved": (move_days, FULL),
    "one_pin_everywhere": (write(SHOWN, at_the_top, to_popular), SHARES),
    "feed_cached": (cache_feeds, SHARES),
}  # fmt: skip
