"""Kinds of defects that nobody had looked at when the gate was made; it was changed by them since.

Kinds and strengths were fixed before the first one was tried, and after the last look at those of
`planted_unseen`. Strengths are chosen as there: a share of what the defect is about. For the figure
that is reported: `planted_blind`.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    acted_upon,
    category,
    commonest_type,
    drawn,
    lose,
    lose_ids,
    requests,
    with_columns,
    write,
)
from support.planted_unseen import FULL, codes, embed, of_users

SUNDAY, SATURDAY = 3, 2
"""Days since the epoch, a Thursday, modulo 7."""


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


def show_one_pin(log: LogRows, s: float) -> dict[str, Any]:
    pins, num = np.unique(log.column(SHOWN, "pin_id"), return_counts=True)
    return {"pin_id": int(pins[np.argmax(num)])}


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


FRESH: dict[str, tuple[Plant, tuple[float, float, float]]] = {
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
    "one_pin_everywhere": (write(SHOWN, at_the_top, show_one_pin), SHARES),
    "feed_cached": (cache_feeds, SHARES),
}  # fmt: skip
