"""Kinds of defects by somebody who had not seen the gate: how many of those does it find?

They were written without a look at the gate's code, or at any result, but with the other kinds and
their tests in view. They are what goes wrong in logs. Strengths: a share of what each is about.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
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
    of_keys,
    on_days,
    with_columns,
    write,
)
from support.planted_tuned import FULL, embed, in_requests, of_users, stale_rows

EVENTS, PAGE, NOON, MAIL_HOUR, NOBODY = (SHOWN, ACTED), 4, 12 * HOUR_MS, 8, -1


def in_both(plant_in: Callable[[str], Plant]) -> Plant:
    """Plant in impressions and in actions, about the same users and days."""

    def plant(log: LogRows, s: float, rng: Rng) -> LogRows:
        salt = rng.integers(1 << 30)
        for table in EVENTS:
            log = plant_in(table)(log, s, np.random.default_rng(salt))
        return log

    return plant


def neighbour(log: LogRows, table: str, step: int) -> Array:
    """The row of the same user so many rows earlier, or else the row itself."""
    order = np.argsort(log.column(table, TABLES[table]), kind="stable")
    user, rows = log.column(table, "user_id")[order], pd.Series(order, order)
    return rows.groupby(user).shift(step).fillna(rows).sort_index().to_numpy().astype(np.int64)


def is_named(log: LogRows, table: str) -> Array:
    return np.asarray(getattr(log, table)["request_id"].is_valid())


def last_requests(log: LogRows, ago_ms: int) -> dict[str, Any]:
    """What each action's user had asked for last, so long before it, whatever it showed."""
    shown, acted = (
        getattr(log, table).select(["user_id", TABLES[table], "request_id"])
        .rename_columns(["user", "time", "name"]).to_pandas()
        for table in EVENTS
    )  # fmt: skip
    acted = acted.assign(time=acted["time"] - ago_ms).sort_values("time").reset_index()
    found = pd.merge_asof(acted, shown.sort_values("time", kind="stable"), on="time", by="user")
    names = found.sort_values("index")[["name_y", "name_x"]].astype(object)
    names = names["name_y"].where(names["name_y"].notna(), names["name_x"])
    return {"request_id": names.where(names.notna(), None).to_numpy()}


def session_ids(log: LogRows, table: str) -> dict[str, Any]:
    keys = (pa.array(x).cast("string") for x in (log.column(table, "user_id"), log.day_of(table)))
    return {"request_id": pc.binary_join_element_wise(*keys, "-").to_numpy(False)}


def lose_login(log: LogRows, s: float, rng: Rng) -> LogRows:
    """A share of the requests, and their actions, are one user's, who is not there."""
    hit = in_requests(log, s, rng)
    names = log.impressions["request_id"].filter(pa.array(hit)).combine_chunks()
    acted = log.inside(ACTED) & np.asarray(pc.is_in(log.actions["request_id"], value_set=names))
    for table, rows in ((SHOWN, hit), (ACTED, acted & is_named(log, ACTED))):
        log = log.set(table, user_id=np.where(rows, NOBODY, log.column(table, "user_id")))
    return log


def act_on_copies(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Actions on a share of the pins name another pin, as of the same picture; impressions not."""
    ids = log.column(ACTED, "pin_id")
    pins, place = np.unique(ids, return_inverse=True)
    hit = log.inside(ACTED) & of_keys(ids, s, rng)
    return log.set(ACTED, pin_id=np.where(hit, rng.permutation(pins)[place], ids))


def tap_on_load(log: LogRows, s: float, rng: Rng) -> LogRows:
    """A share of the requests have an action at the top as soon as they are there."""
    is_top = log.column(SHOWN, "position") == 0
    top = log.impressions.filter(pa.array(in_requests(log, s, rng) & is_top))
    columns = {name: top[name] for name in ("user_id", "pin_id", "request_id")}
    columns |= {
        "action_type": pa.array([commonest_type(log)] * len(top)),
        "acted_at": pc.add(top["impressed_at"], 300),
        "known_at": pc.add(top["known_at"], 300),
    }
    extra = pa.table({name: columns[name] for name in log.actions.column_names})
    return log.with_more(ACTED, extra.cast(log.actions.schema))


def slow(log: LogRows, s: float, rng: Rng) -> Array:
    """A share of the slower half of the actions that name a request."""
    names = log.impressions["request_id"].to_pandas()
    asked_at = pd.Series(log.column(SHOWN, TABLES[SHOWN]), names).groupby(level=0).min()
    delay = log.column(ACTED, "acted_at") - log.actions["request_id"].to_pandas().map(asked_at)
    return drawn(ACTED)(log, s, rng) & (delay >= delay.median()).to_numpy()


def stamp_at_flush(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Impressions of a share of the users are kept, and all have the time of their day's last."""
    time, known = log.column(SHOWN, TABLES[SHOWN]), log.column(SHOWN, "known_at")
    days = pd.Series(time).groupby([log.column(SHOWN, "user_id"), log.day_of(SHOWN)])
    flushed = np.where(of_users(SHOWN)(log, s, rng), days.transform("max"), time)
    return log.set(SHOWN, impressed_at=flushed, known_at=np.maximum(known, flushed))


def some_pins(log: LogRows, s: float, rng: Rng) -> Array:
    return rng.random(len(log.pins)) < s


def look_ahead(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Rows of a share of the users hold the embedding of the user's next row."""
    rows, hit = np.arange(len(log.users)), of_users("users")(log, s, rng)
    rows = np.where(hit, neighbour(log, "users", -1), rows)
    return log.set("users", embedding=log.users["embedding"].take(pa.array(rows)))


def write_users_again(log: LogRows, s: float, rng: Rng) -> LogRows:
    """A backfill writes a share of the users' rows again, with embeddings from before the days."""
    extra = stale_rows(log, 1.0, rng).users.filter(pa.array(drawn("users")(log, s, rng)))
    return log.with_more("users", extra)


def log_mails(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Mails with one pin are logged as requests, one for a share of the requests."""
    is_top = log.column(SHOWN, "position") == 0
    extra = log.impressions.filter(pa.array(in_requests(log, s, rng) & is_top))
    sent = extra[TABLES[SHOWN]].to_numpy() // DAY_MS * DAY_MS + MAIL_HOUR * HOUR_MS
    names = pc.binary_join_element_wise(extra["request_id"], "mail", "-")
    pins = rng.permutation(extra["pin_id"].to_numpy())
    columns = {"request_id": names, "pin_id": pins, "impressed_at": sent, "known_at": sent + 1000}
    return log.with_more(SHOWN, with_columns(extra, **columns))


def fill_days(log: LogRows, s: float, rng: Rng) -> LogRows:
    """A share of the days are filled with the rows of the day before, under other names."""
    days = np.arange(log.first_day + 1, log.end_day)
    days = rng.choice(days, min(len(days), max(1, round(s * len(days)))), replace=False)
    for table in EVENTS:
        extra = getattr(log, table).filter(pa.array(np.isin(log.day_of(table) + 1, days)))
        columns = {name: pc.add(extra[name], DAY_MS) for name in (TABLES[table], "known_at")}
        columns["request_id"] = pc.binary_join_element_wise(extra["request_id"], "filled", "-")
        log = log.without(table, np.isin(log.day_of(table), days))
        log = log.with_more(table, with_columns(extra, **columns))
    return log


def ever_more(log: LogRows, s: float, rng: Rng) -> Array:
    """Actions, of the first day none and of the last one a share."""
    part = (log.day_of(ACTED) - log.first_day) / max(1, log.end_day - 1 - log.first_day)
    return log.inside(ACTED) & (rng.random(len(log.actions)) < s * part)


BLIND: dict[str, tuple[Plant, tuple[float, float, float]]] = {
    "impressions_of_actions_lost": (lose(SHOWN, lambda log, s, rng: drawn(SHOWN)(log, s, rng)
                                         & acted_upon(log)), SHARES),
    "positions_restart_on_pages": (write(SHOWN, in_requests, lambda log, s: {
        "position": log.column(SHOWN, "position") % PAGE}), FULL),
    "sessions_as_requests": (in_both(lambda table: write(
        table, lambda log, s, rng: of_users(table)(log, s, rng) & is_named(log, table),
        lambda log, s: session_ids(log, table))), SHARES),
    "logged_out_as_one_user": (lose_login, SHARES),
    "actions_on_copies_of_pins": (act_on_copies, SHARES),
    "pin_ids_through_floats": (in_both(lambda table: write(table, of_users(table), lambda log, s: {
        "pin_id": log.column(table, "pin_id") // 8 * 8})), SHARES),
    "taps_on_load": (tap_on_load, SHARES),
    "types_one_late": (write(ACTED, of_users(ACTED), lambda log, s: {
        "action_type": log.column(ACTED, "action_type")[neighbour(log, ACTED, 1)]}), SHARES),
    "requests_named_an_hour_late": (write(
        ACTED, lambda log, s, rng: drawn(ACTED)(log, s, rng) & is_named(log, ACTED),
        lambda log, s: last_requests(log, HOUR_MS)), SHARES),
    "organic_actions_attributed": (write(
        ACTED, lambda log, s, rng: drawn(ACTED)(log, s, rng) & ~is_named(log, ACTED),
        lambda log, s: last_requests(log, 0)), FULL),
    "slow_actions_lost": (lose(ACTED, slow), FULL),
    "rows_after_midnight_lost": (in_both(lambda table: lose(
        table, lambda log, s, rng: drawn(table)(log, s, rng)
        & (log.column(table, "known_at") // DAY_MS > log.day_of(table)))), (0.2, 0.6, 1.0)),
    "impressions_stamped_at_flush": (stamp_at_flush, SHARES),
    "afternoon_read_as_morning": (write(ACTED, of_users(ACTED), lambda log, s: {
        "acted_at": (at := log.column(ACTED, "acted_at")) - at % DAY_MS // NOON * NOON}), SHARES),
    "days_imported_again_late": (in_both(lambda table: write(table, on_days(table), lambda log, s: {
        "known_at": np.maximum(log.column(table, "known_at"), log.end_day * DAY_MS)})), SHARES),
    "days_filled_from_day_before": (fill_days, SHARES),
    "actions_lost_ever_more": (lose(ACTED, ever_more), SHARES),
    "pins_without_rows": (lose("pins", some_pins), SHARES),
    "pin_embeddings_saturated": (embed("pins", some_pins, lambda v, c, rng: np.clip(
        v[c], -v.std() / 3, v.std() / 3)), SHARES),
    "user_embeddings_of_next_row": (look_ahead, FULL),
    "user_rows_in_conflict": (write_users_again, SHARES),
    "states_reset": (write("users", of_users("users"), lambda log, s: {
        "state": log.users["state"].to_pandas().astype(str).value_counts().index[-1]}), SHARES),
    "impressions_without_consent_lost": (lose(SHOWN, of_users(SHOWN)), SHARES),
    "histories_erased": (lose(ACTED, lambda log, s, rng: of_users(ACTED)(log, s, rng)
                              & (log.day_of(ACTED) < log.holdout_day)), SHARES),
    "pins_no_longer_shown_lost": (lose_ids("pin_id", lambda log: np.setdiff1d(
        pin := log.column(SHOWN, "pin_id"), pin[log.day_of(SHOWN) >= log.holdout_day])), FULL),
    "exploration_requests_lost": (lose(SHOWN, lambda log, s, rng: in_requests(log, s, rng)
                                       & log.column(SHOWN, "is_exploration")), FULL),
    "exploration_flag_is_label": (write(SHOWN, in_requests, lambda log, s: {
        "is_exploration": log.column(SHOWN, "is_exploration") | acted_upon(log)}), FULL),
    "categories_defaulted": (write(SHOWN, drawn(SHOWN), lambda log, s: {
        category(log): min(log.impressions[category(log)].drop_null().unique().to_pylist())}),
                             FULL),
    "surface_spelled_anew": (write(
        SHOWN, lambda log, s, rng: in_requests(log, s, rng)
        & (log.day_of(SHOWN) >= log.holdout_day),
        lambda log, s: {"surface": pc.utf8_upper(log.impressions["surface"]).to_numpy()}), FULL),
    "mails_logged_as_requests": (log_mails, SHARES),
}  # fmt: skip
