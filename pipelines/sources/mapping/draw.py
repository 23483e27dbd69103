"""Candidates where none were logged: what was chosen in a visit, among others that were alive then.

A visit is a user's run of target actions without a long silence, and makes one request, a second
before its first action. Its candidates are what the user chose in it, and others of what anybody
chose within a window before the request, as often as it was chosen. So nothing that did not exist
yet is among them. What the user chose in earlier visits may be drawn, else an item of the user's
past would be one that was chosen, for sure. The draw depends on the user, the time and the seed
alone: a day that is given again gives the same requests.

Letters: N target actions in the order of their time, V visits, C drawn candidates.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.hashing import mix, uniform
from pipelines.contracts.progress import tracked
from pipelines.sources.event_log_writer import id_of
from pipelines.sources.mapping.spec import Draw
from pipelines.sources.mapping.tables import Tables

log = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BEFORE_MS = 1_000
"""How long before the first action of a visit its candidates are shown."""
_TIMES_DRAWN = 4
"""So many are drawn for each that is wanted: some come twice, or were chosen by the user."""
_VISITS_AT_ONCE = 20_000


class Actions(NamedTuple):
    """The target actions, in the order of their time."""

    user_N: Ints  # Codes of `users`.
    pin_N: Ints  # Codes of `pins`.
    time_N: Ints  # Milliseconds.
    users: pa.Array
    pins: pa.Array


class Visits(NamedTuple):
    """The visits, by user and time."""

    user_V: Ints
    began_V: Ints  # Of the request, in milliseconds.
    ended_V: Ints  # The last action.
    own: Ints  # (visit, pin) of what was chosen in each, each pair once, by visit, (P, 2).


def draw(tables: Tables, how: Draw) -> Iterator[pa.Table]:
    """Yield impressions in the contract's columns; the table of actions gets their request_id.

    Args:
        tables: With the table `actions`.
        how: What makes a request, and how many others it has.

    Raises:
        DataContractError: there are no such actions, or no visit has others that were alive.
    """
    actions = _target_actions(tables, how.action)
    visits = visits_of(actions, round(how.visit_minutes * 60_000))
    num = len(visits.user_V)
    has_others = np.zeros(num, bool)
    for start in tracked(range(0, num, _VISITS_AT_ONCE), "groups of visits"):
        part = np.arange(start, min(start + _VISITS_AT_ONCE, num))
        own = visits.own[slice(*np.searchsorted(visits.own[:, 0], (start, part[-1] + 1)))]
        visit, pin = _others(actions, visits, part, own, how)
        if len(visit):
            has_others[visit] = True
            own = own[has_others[own[:, 0]]]
            visit, pin = np.r_[own[:, 0], visit], np.r_[own[:, 1], pin]
            yield _impressions(actions, visits, visit, pin, how.seed)
    if not has_others.any():
        raise DataContractError(
            f"candidates: none of {num} visits has others that were chosen in the "
            f"{how.window_hours:g} h before it; expected a busier log; widen "
            f"candidates.window_hours"
        )
    log.info("drew candidates for %d of %d visits", has_others.sum(), num)
    _answer(tables, actions, visits, has_others, how)


def _target_actions(tables: Tables, action: str) -> Actions:
    query = "SELECT user_id, pin_id, acted_at FROM actions WHERE action_type = ?"
    query += " ORDER BY acted_at, user_id, pin_id"
    rows: pa.Table = tables.database.sql(query, params=[action]).to_arrow_table()
    if not len(rows):
        kinds = tables.database.sql("SELECT DISTINCT action_type FROM actions ORDER BY ALL")
        named = ", ".join(str(kind) for (kind,) in kinds.fetchall()[:10])
        raise DataContractError(
            f"candidates: no action is a {action!r}; found {named}; expected the main head's "
            f"action type; correct candidates.action"
        )
    (user, users), (pin, pins) = (
        (coded.indices.to_numpy().astype(np.int64), coded.dictionary)
        for coded in (
            rows[name].combine_chunks().dictionary_encode() for name in ("user_id", "pin_id")
        )
    )
    return Actions(user, pin, rows["acted_at"].to_numpy().astype(np.int64), users, pins)


def visits_of(actions: Actions, silence_ms: int) -> Visits:
    """Return the visits: runs of a user's actions without a longer silence between them."""
    order = np.lexsort((actions.time_N, actions.user_N))
    user, time = actions.user_N[order], actions.time_N[order]
    is_first = np.r_[True, (np.diff(user) != 0) | (np.diff(time) > silence_ms)]
    first = np.flatnonzero(is_first)
    last = np.r_[first[1:], len(user)] - 1
    own = np.unique(np.c_[np.cumsum(is_first) - 1, actions.pin_N[order]], axis=0)
    return Visits(user[first], time[first] - BEFORE_MS, time[last], own)


def _others(
    actions: Actions, visits: Visits, part: Ints, own: Ints, how: Draw
) -> tuple[Ints, Ints]:
    """Return the visits (of `part`) and the pins of what is drawn beside what was chosen, (C,)."""
    began, user = visits.began_V[part], visits.user_V[part]
    low = np.searchsorted(actions.time_N, began - round(how.window_hours * 3_600_000))
    alive = np.searchsorted(actions.time_N, began) - low
    tries = _TIMES_DRAWN * how.num
    key = mix(mix(_stable(actions.users.take(pa.array(user))), how.seed) ^ mix(began, how.seed))
    share = uniform((key[:, None] + np.arange(tries, dtype=np.uint64)[None, :]).ravel())
    number = np.repeat(np.arange(len(part)), tries)
    number, share = number[alive[number] > 0], share[alive[number] > 0]
    pin = actions.pin_N[low[number] + (share * alive[number]).astype(np.int64)]
    codes = part[number] * len(actions.pins) + pin
    # Each once, the first time that it is drawn.
    once = np.sort(np.unique(codes, return_index=True)[1])
    once = once[~np.isin(codes[once], own[:, 0] * len(actions.pins) + own[:, 1])]
    number, pin = number[once], pin[once]
    place = np.arange(len(number)) - np.searchsorted(number, number)
    return part[number[place < how.num]], pin[place < how.num]


def _stable(users: pa.Array) -> npt.NDArray[np.uint64]:
    """Return a number for each user that depends on nothing else: the id, or that of the name."""
    if pa.types.is_integer(users.type):
        return users.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    return np.array([id_of(name) for name in users.to_pylist()], np.int64).view(np.uint64)


def _request_ids(actions: Actions, visits: Visits, visit: Ints) -> pa.Array:
    users = actions.users.take(pa.array(visits.user_V[visit])).cast(pa.string()).to_pylist()
    began = visits.began_V[visit].tolist()
    return pa.array([f"drawn-{user}-{at}" for user, at in zip(users, began, strict=True)])


def _impressions(actions: Actions, visits: Visits, visit: Ints, pin: Ints, seed: int) -> pa.Table:
    """Return the rows of candidates, in an order by which nobody can tell what was chosen."""
    chance = mix(mix(visits.began_V[visit], seed) ^ mix(_stable(actions.pins)[pin], seed))
    order = np.lexsort((chance, visit))
    visit, pin = visit[order], pin[order]
    return pa.table(
        {
            "request_id": _request_ids(actions, visits, visit),
            "user_id": actions.users.take(pa.array(visits.user_V[visit])),
            "pin_id": actions.pins.take(pa.array(pin)),
            "impressed_at": visits.began_V[visit],
        }
    )


def _answer(tables: Tables, actions: Actions, visits: Visits, has_others: Bools, how: Draw) -> None:
    """Give the actions of a visit on what was chosen in it the request's id, of whatever type."""
    kept = np.flatnonzero(has_others)
    own = pa.table({"visit": kept, "request_id": _request_ids(actions, visits, kept),
                    "user_id": actions.users.take(pa.array(visits.user_V[kept])),
                    "began": visits.began_V[kept], "ended": visits.ended_V[kept]})  # fmt: skip
    visit, pin = visits.own.T
    chosen = pa.table({"visit": visit, "pin_id": actions.pins.take(pa.array(pin))})
    silence_ms = round(how.visit_minutes * 60_000)
    tables.database.register("visits", own)
    tables.database.register("chosen", chosen)
    tables.database.execute(
        "CREATE OR REPLACE TABLE actions AS SELECT actions.*, "
        "CASE WHEN chosen.visit IS NOT NULL THEN visits.request_id END AS request_id "
        "FROM actions ASOF LEFT JOIN visits "
        "ON actions.user_id = visits.user_id AND actions.acted_at >= visits.began "
        "LEFT JOIN chosen ON chosen.visit = visits.visit AND chosen.pin_id = actions.pin_id "
        f"AND actions.acted_at <= visits.ended + {silence_ms}"
    )
