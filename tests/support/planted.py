"""Planted defects: what can be wrong with an event log, at three strengths, and what the gate says.

The list and the strengths were fixed before the gate's limits. A share is that of the rows,
requests, users, pins or days that the defect is about, on the days of a snapshot's windows. A
defect takes rows in memory and returns other rows; it changes no array in place. It is found where
an expectation about the days or about kept embeddings is not met, or where a pin has no row, which
the event log's contract refuses (`pin_without_embedding`), and is critical where one of them is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column, to_numpy
from pipelines.contracts.data_rules import CHANGED_EMBEDDINGS, MISSING_DAYS
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.time import DAY_MS, HOUR_MS
from pipelines.event_log.log_files import EventLog
from pipelines.log_days.judging import EARLIER_DAYS
from pipelines.log_days.reading import categories_of, measure_log, rows_of
from pipelines.snapshot.plan import SnapshotPlan
from validation.data_gate.canaries import USER_DAYS, Vectors, compare_vectors, smallest_hashes
from validation.data_gate.days.gate import date_of
from validation.data_gate.days.limits import deviations
from validation.data_gate.days.measure import DayRows, measure_days, open_engine

CYCLE_DAYS, OLD_DAYS, NUM_BOTS, SEED = 14, 90, 3, 1
CLEAN, STRENGTHS = "(nothing planted)", ("weak", "middle", "strong")
SHARES, HOURS = (0.05, 0.2, 0.6), (1.0, 3.0, 12.0)
"""How strong a defect is planted: weak, middle and strong."""
SHOWN, ACTED = "impressions", "actions"
TABLES = {SHOWN: "impressed_at", ACTED: "acted_at", "pins": "", "users": "as_of"}

Array = np.ndarray
Rng = np.random.Generator
Plant = Callable[["LogRows", float, Rng], "LogRows"]
"""Plants a defect of a strength."""
Where = Callable[["LogRows", float, Rng], Array]
"""Draws the rows of a table that a defect of a strength is about."""


@dataclass(frozen=True)
class LogRows:
    """An event log in memory, and the days that a defect may touch, since the epoch."""

    impressions: pa.Table
    actions: pa.Table
    pins: pa.Table
    users: pa.Table
    first_day: int
    holdout_day: int
    end_day: int  # The first day that is left as it is.

    def column(self, table: str, name: str) -> Array:
        return np.array(getattr(self, table)[name].to_numpy(zero_copy_only=False))

    def day_of(self, table: str) -> Array:
        return self.column(table, TABLES[table]) // DAY_MS

    def inside(self, table: str) -> Array:
        day = self.day_of(table)
        return (day >= self.first_day) & (day < self.end_day)

    def without(self, table: str, lost: Array) -> "LogRows":
        return replace(self, **{table: getattr(self, table).filter(pa.array(~lost))})

    def with_more(self, table: str, *rows: pa.Table) -> "LogRows":
        return replace(self, **{table: pa.concat_tables([getattr(self, table), *rows])})

    def set(self, table: str, **columns: Any) -> "LogRows":
        return replace(self, **{table: with_columns(getattr(self, table), **columns)})


def with_columns(rows: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        field, place = rows.schema.field(name), rows.schema.get_field_index(name)
        is_arrow = isinstance(values, pa.Array | pa.ChunkedArray)
        rows = rows.set_column(place, field, values if is_arrow else pa.array(values, field.type))
    return rows


def commonest(values: pa.ChunkedArray) -> Any:
    return values.to_pandas().astype(str).value_counts().index[0]


def commonest_type(log: LogRows) -> str:
    """The commonest type among the actions that name a request."""
    return commonest(log.actions.filter(log.actions["request_id"].is_valid())["action_type"])


def category(log: LogRows) -> str:
    """A category's column of the impressions: one of the log's own, or else the surface."""
    names = (field.name for field in log.impressions.schema if pa.types.is_string(field.type))
    return next((name for name in names if name not in ("request_id", "surface")), "surface")


def acted_upon(log: LogRows) -> Array:
    """Which impressions some action names, by request and pin."""
    shown, acted = (
        pc.binary_join_element_wise(*(r[n].cast("string") for n in ("request_id", "pin_id")), "/")
        for r in (log.impressions, log.actions.filter(log.actions["request_id"].is_valid()))
    )
    return np.asarray(pc.is_in(shown, value_set=acted.combine_chunks()))


def of_keys(keys: Array, share: float, rng: Rng) -> Array:
    """The rows of about a share of the different keys, such as users."""
    unique, place = np.unique(keys, return_inverse=True)
    return (rng.random(len(unique)) < share)[place]


def requests(log: LogRows, share: float, rng: Rng) -> Array:
    names = log.impressions["request_id"].combine_chunks().dictionary_encode()
    return of_keys(np.asarray(names.indices), share, rng)


def drawn(table: str) -> Where:
    return lambda log, s, rng: log.inside(table) & (rng.random(len(getattr(log, table))) < s)


def on_days(table: str) -> Where:
    """The rows of a share of the days that may be touched, at least of one."""

    def where(log: LogRows, s: float, rng: Rng) -> Array:
        days = np.arange(log.first_day, log.end_day)
        return np.isin(
            log.day_of(table), rng.choice(days, max(1, round(s * len(days))), replace=False)
        )

    return where


def half_of_days(table: str) -> Where:
    """Half of the rows of a share of the days: whole requests, or single actions."""

    def where(log: LogRows, s: float, rng: Rng) -> Array:
        half = rng.random(len(log.actions)) < 0.5 if table == ACTED else requests(log, 0.5, rng)
        return half & on_days(table)(log, s, rng)

    return where


def is_commonest(values: pa.ChunkedArray) -> Array:
    return (values.to_pandas().astype(str) == commonest(values)).to_numpy()


def requests_where(is_meant: Callable[[LogRows], Array]) -> Where:
    return lambda log, s, rng: is_meant(log) & log.inside(SHOWN) & requests(log, s, rng)


def of_commonest_type(log: LogRows, s: float, rng: Rng) -> Array:
    types = log.actions["action_type"].to_pandas().astype(str).to_numpy()
    return drawn(ACTED)(log, s, rng) & (types == commonest_type(log))


def lose(table: str, where: Where) -> Plant:
    return lambda log, s, rng: log.without(table, where(log, s, rng))


def lose_ids(name: str, ids: Callable[[LogRows], Array]) -> Plant:
    """Lose a share of some users or pins, in both tables of events."""

    def plant(log: LogRows, s: float, rng: Rng) -> LogRows:
        unique = np.unique(ids(log))
        lost = unique[rng.random(len(unique)) < s]
        for table in (SHOWN, ACTED):
            is_lost = np.isin(log.column(table, name), lost)
            log = log.without(table, log.inside(table) & is_lost)
        return log

    return plant


def lose_newest_users(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Lose the last months' rows of a share of the users, so that older ones are in use."""
    is_old = of_keys(log.column("users", "user_id"), s, rng)
    is_new = log.column("users", "as_of") >= (log.end_day - OLD_DAYS) * DAY_MS
    return log.without("users", is_old & is_new)


def repeat(table: str, where: Where, times: int = 1) -> Plant:
    def plant(log: LogRows, s: float, rng: Rng) -> LogRows:
        extra = getattr(log, table).filter(pa.array(where(log, s, rng)))
        return log.with_more(table, *[extra] * times)

    return plant


def show_days_again(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Write days of impressions twice; the copies are requests of their own."""
    extra = log.impressions.filter(pa.array(on_days(SHOWN)(log, s, rng)))
    names = pc.binary_join_element_wise(extra["request_id"], "again", "-")
    return log.with_more(SHOWN, with_columns(extra, request_id=names))


def write(table: str, where: Where, values: Callable[[LogRows, float], dict[str, Any]]) -> Plant:
    """Write other values, each one for all rows or one for each, where the mask is true."""

    def plant(log: LogRows, s: float, rng: Rng) -> LogRows:
        mask, columns = pa.array(where(log, s, rng)), {}
        for name, new in values(log, s).items():
            old = getattr(log, table)[name].combine_chunks()
            make = pa.array if isinstance(new, Array) else pa.scalar
            columns[name] = pc.if_else(mask, make(new, old.type), old)
        return log.set(table, **columns)

    return plant


def later(table: str, *names: str) -> Plant:
    return write(
        table,
        lambda log, s, rng: log.inside(table),
        lambda log, hours: {name: log.column(table, name) + int(hours * HOUR_MS) for name in names},
    )


def another_type(log: LogRows, s: float) -> dict[str, Any]:
    types = log.actions["action_type"].to_pandas().astype(str)
    return {"action_type": min(types[types != commonest_type(log)])}


def label_as_category(log: LogRows, s: float) -> dict[str, Any]:
    """The commonest value where an impression was acted upon, and the next one where not."""
    name = category(log)
    counts = log.impressions[name].to_pandas().value_counts(sort=False).sort_index()
    first, second = [*counts.sort_values(ascending=False, kind="stable").index, "other"][:2]
    return {name: np.where(acted_upon(log), first, second).astype(object)}


def reverse_sequences(log: LogRows, s: float, rng: Rng) -> LogRows:
    user, pin = log.column(ACTED, "user_id"), log.column(ACTED, "pin_id")
    chosen = np.flatnonzero(log.inside(ACTED) & of_keys(user, s, rng))
    order = chosen[np.lexsort((log.column(ACTED, "acted_at")[chosen], user[chosen]))]
    starts = np.flatnonzero(np.diff(user[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    pin[order] = pin[order[np.repeat(starts + ends - 1, ends - starts) - np.arange(len(order))]]
    return log.set(ACTED, pin_id=pin)


def leak(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Log actions on a request once more, without it, a minute before it."""
    named = np.asarray(log.actions["request_id"].is_valid())
    chosen = log.actions.filter(pa.array(named & drawn(ACTED)(log, s, rng)))
    ids = log.impressions["request_id"].combine_chunks().dictionary_encode()
    asked_at = np.full(len(ids.dictionary), np.iinfo(np.int64).max)
    np.minimum.at(asked_at, np.asarray(ids.indices), log.column(SHOWN, "impressed_at"))
    place = pc.fill_null(pc.index_in(chosen["request_id"], value_set=ids.dictionary), -1)
    place = np.asarray(place)
    chosen, before = chosen.filter(pa.array(place >= 0)), asked_at[place[place >= 0]] - 60_000
    changed = {"acted_at": before, "known_at": before, "request_id": [None] * len(chosen)}
    return log.with_more(ACTED, with_columns(chosen, **changed))


def collide(log: LogRows, s: float, rng: Rng) -> LogRows:
    """Give a share of the pins the id of another pin, in impressions and actions alike."""
    pins = np.unique(log.column(SHOWN, "pin_id"))
    is_lost = rng.random(len(pins)) < s
    target = np.where(is_lost, pins[rng.integers(0, max(1, len(pins) // 20), len(pins))], pins)
    return rename(log, "pin_id", pins, target)


def rename(log: LogRows, name: str, old: Array, new: Array) -> LogRows:
    """Write other ids of users or pins for the old ones, which ascend, in both tables of events."""
    for table in (SHOWN, ACTED) if len(old) else ():
        ids = log.column(table, name)
        place = np.minimum(np.searchsorted(old, ids), len(old) - 1)
        hit = log.inside(table) & (old[place] == ids)
        log = log.set(table, **{name: np.where(hit, new[place], ids)})
    return log


def bots(with_actions: bool) -> Plant:
    """Add a few users whose impressions are a share of all; they act on each, or on none."""

    def plant(log: LogRows, s: float, rng: Rng) -> LogRows:
        is_inside = log.inside(SHOWN)
        num = max(1, int(s * is_inside.sum()))
        model = log.impressions.filter(pa.array(is_inside))
        place = np.sort(rng.integers(0, len(model), num))
        size = max(1, len(model) // len(model["request_id"].unique()))
        request = (np.arange(num) // size) * NUM_BOTS + place % NUM_BOTS
        copies = replace(log, impressions=model.take(pa.array(place)))
        days = copies.day_of(SHOWN)
        user = int(log.column(SHOWN, "user_id").max()) + 1 + place % NUM_BOTS
        ids = [f"bot-{day}-{number}" for day, number in zip(days, request, strict=True)]
        copies = copies.set(SHOWN, user_id=user, request_id=ids)
        log = log.with_more(SHOWN, copies.impressions)
        if not with_actions:
            return log
        columns = {name: copies.impressions[name] for name in ("user_id", "pin_id", "request_id")}
        columns |= {
            "action_type": pa.array([commonest_type(log)] * num),
            "acted_at": copies.column(SHOWN, "impressed_at") + 1000,
            "known_at": copies.column(SHOWN, "known_at") + 1000,
        }
        kept = log.actions.select([name for name in log.actions.column_names if name in columns])
        extra = pa.table({name: columns[name] for name in kept.column_names})
        return log.with_more(ACTED, extra.cast(kept.schema))

    return plant


def embeddings(table: str, kind: str) -> Plant:
    """Change embeddings of pins, or of the users' rows of the days that may be touched.

    They become random ones of the same length, are exchanged in pairs or shuffled, are turned into
    another basis, or are all equal or zero.
    """

    def plant(log: LogRows, s: float, rng: Rng) -> LogRows:
        vectors = np.array(to_numpy(getattr(log, table)["embedding"]), dtype=np.float32)
        inside = table == "pins" or log.inside(table)
        width = vectors.shape[1]
        turn = np.linalg.qr(rng.normal(size=(width, width)))[0] if kind == "rotated" else None
        chosen = np.flatnonzero(inside & (rng.random(len(vectors)) < s))
        match kind:
            case "random":
                noise = rng.normal(size=vectors.shape)
                lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (vectors, noise)]
                vectors[chosen] = (noise * (lengths[0] / lengths[1]))[chosen]
            case "swapped":
                chosen = rng.permutation(chosen)[: len(chosen) // 2 * 2]
                vectors[chosen] = vectors[chosen.reshape(-1, 2)[:, ::-1].ravel()]
            case "shuffled":
                vectors[chosen] = vectors[rng.permutation(chosen)]
            case "rotated":
                vectors[chosen] = (vectors @ turn)[chosen]
            case _:
                vectors[chosen] = vectors[0] if kind == "equal" else 0.0
        return log.set(table, embedding=to_list_column(vectors))

    return plant


DEFECTS: dict[str, Plant] = {
    "actions_hours_later": later(ACTED, "acted_at", "known_at"),
    "impressions_hours_later": later(SHOWN, "impressed_at", "known_at"),
    "impressions_days_missing": lose(SHOWN, on_days(SHOWN)),
    "impressions_days_doubled": show_days_again,
    "impressions_days_halved": lose(SHOWN, half_of_days(SHOWN)),
    "actions_days_missing": lose(ACTED, on_days(ACTED)),
    "actions_days_doubled": repeat(ACTED, on_days(ACTED)),
    "actions_days_halved": lose(ACTED, half_of_days(ACTED)),
    "holdout_requests_lost": lose(SHOWN, requests_where(
        lambda log: log.day_of(SHOWN) >= log.holdout_day)),
    "users_missing": lose_ids("user_id", lambda log: log.column(SHOWN, "user_id")),
    "segment_missing": lose_ids("user_id",
        lambda log: log.column("users", "user_id")[is_commonest(log.users["state"])]),
    "surface_missing": lose(SHOWN, requests_where(
        lambda log: is_commonest(log.impressions["surface"]))),
    "actions_tripled": repeat(ACTED, drawn(ACTED), times=2),
    "bots_with_actions": bots(with_actions=True),
    "bots_without_actions": bots(with_actions=False),
    "action_type_gone": lose(ACTED, of_commonest_type),
    "action_type_renamed": write(ACTED, of_commonest_type, another_type),
    "sequence_reversed": reverse_sequences,
    "leak_through_actions": leak,
    "feature_equals_label": write(SHOWN, drawn(SHOWN), label_as_category),
    **{f"pin_embeddings_{kind}": embeddings("pins", kind)
       for kind in ("random", "swapped", "shuffled", "rotated")},
    **{f"user_embeddings_{kind}": embeddings("users", kind)
       for kind in ("equal", "zero", "shuffled")},
    "user_embeddings_months_old": lose_newest_users,
    "position_constant": write(SHOWN, requests_where(lambda log: log.inside(SHOWN)),
                               lambda log, s: {"position": 0}),
    "pin_ids_colliding": collide,
    "all_exploration": write(SHOWN, drawn(SHOWN), lambda log, s: {"is_exploration": True}),
    "negatives_lost": lose(SHOWN, lambda log, s, rng: drawn(SHOWN)(log, s, rng) & ~acted_upon(log)),
    "exposures_twice": repeat(SHOWN, drawn(SHOWN)),
    "columns_swapped": write(ACTED, drawn(ACTED), lambda log, s: {
        "user_id": log.column(ACTED, "pin_id"), "pin_id": log.column(ACTED, "user_id")}),
    "categories_null": write(SHOWN, drawn(SHOWN), lambda log, s: {category(log): None}),
    "lag_gone": write(ACTED, drawn(ACTED), lambda log, s: {
        "known_at": log.column(ACTED, "acted_at")}),
    "lag_grown": later(ACTED, "known_at"),
}  # fmt: skip


def strengths_of(defect: str) -> tuple[float, float, float]:
    return HOURS if defect.endswith("_hours_later") or defect == "lag_grown" else SHARES


class Trial(NamedTuple):
    """What the gate said of rows into which something may have been planted."""

    defect: str
    strength: str
    has_effect: bool  # False where these rows have nothing that the defect could spoil.
    is_critical: bool
    told: tuple[str, ...]  # Embeddings, missing days, then numbers, the largest deviation first.


def load_log(event_log: EventLog, plan: SnapshotPlan, days: range) -> LogRows:
    """Read the rows of some days, and of the day before them, into memory."""
    rows = rows_of(event_log, plan, days)
    tables = map(pa.concat_tables, (rows.impressions, rows.actions, rows.pins, rows.users))
    return LogRows(*tables, days.start, plan.holdout.start_ms // DAY_MS, days.stop)


KNOWN = {name: (plant, strengths_of(name)) for name, plant in DEFECTS.items()}


def try_defects(
    event_log: EventLog,
    plan: SnapshotPlan,
    scratch: Path,
    kinds: Mapping[str, tuple[Plant, tuple[float, float, float]]] = KNOWN,
    strengths: Sequence[str] = STRENGTHS,
) -> Iterator[Trial]:
    """Yield what the gate says of the clean days of a plan's windows, and of each defect."""
    days = range(plan.training.start_ms // DAY_MS, -(-plan.holdout.end_ms // DAY_MS))
    clean = load_log(event_log, plan, days)
    before = range(days.start - EARLIER_DAYS, days.start)
    history = measure_log(event_log, plan, before, scratch)
    for defect in (CLEAN, *kinds):
        for strength in ("",) if defect == CLEAN else strengths:
            log = clean
            if defect != CLEAN:
                number, (plant, how_strong) = STRENGTHS.index(strength), kinds[defect]
                log = plant(clean, how_strong[number], np.random.default_rng([SEED, number]))
            with open_engine(str(scratch)) as engine:
                rows = DayRows([log.impressions], [log.actions], [log.users], [log.pins])
                found = measure_days(engine, rows, days.start, days.stop, categories_of(plan))
            yield Trial(defect, strength, *judge(clean, log, found, history))


def judge(
    clean: LogRows, log: LogRows, days: Sequence[DayProfile], history: Sequence[DayProfile]
) -> tuple[bool, bool, tuple[str, ...]]:
    """Return the last three fields of a Trial."""
    found = sorted(deviations(history, days), key=lambda each: -each.times_limit)
    missing = sorted({*range(log.first_day, log.end_day)} - {day.day for day in days})
    changed = {what: changed_share(clean, log, what) for what in ("pins", "users")}
    events = np.append(log.column(SHOWN, "pin_id"), log.column(ACTED, "pin_id"))
    has_rows = np.isin(events, log.column("pins", "pin_id")).all()
    told = (
        *(() if has_rows else ("pins without rows (contract)",)),
        *(f"embeddings of {what}" for what, share in changed.items() if share > 0),
        *(f"no rows on {date_of(day)}" for day in missing),
        *(f"{each.name} ({each.level})" for each in found if each.times_limit > 1),
    )
    is_critical = (
        not has_rows
        or any(each.risk >= 1 for each in found)
        or len(missing) > MISSING_DAYS.critical * (log.end_day - log.first_day)
        or max(changed.values()) > CHANGED_EMBEDDINGS.critical
    )
    has_effect = any(not getattr(log, table).equals(getattr(clean, table)) for table in TABLES)
    return has_effect, is_critical, told


def changed_share(clean: LogRows, log: LogRows, table: str) -> float:
    """Return the share of canaries that changed.

    Rows of users from after the last cycle are no canaries: nobody has accepted them.
    """
    kept, now = (
        Vectors(
            ids := rows.column(table, "pin_id" if table == "pins" else "user_id"),
            rows.column(table, "as_of") if table == "users" else np.zeros_like(ids),
            to_numpy(getattr(rows, table)["embedding"]).astype(np.float32),
        )
        for rows in (clean, log)
    )
    if table == "users":
        end_ms = (log.end_day - CYCLE_DAYS) * DAY_MS
        kept = kept.at((kept.as_of < end_ms) & (kept.as_of >= end_ms - USER_DAYS * DAY_MS))
    share, _ = compare_vectors(table, smallest_hashes([kept]), [now])
    return 0.0 if np.isnan(share) else share
