"""Planted defects: what can be wrong with an event log, at three strengths, and what is said of it.

The list and the strengths were fixed before the gate's thresholds. A share is that of the rows,
requests, users, pins or days that the defect is about, on the days of a snapshot's windows. For
trying a gate: in its self-test, in the benchmark and in tests; nothing here is called in a cycle. A
defect takes rows in memory and returns other rows; it changes no array in place, and draws from the
generator that it is given. It is found where an expectation about the days or about kept embeddings
is not met, and is critical where one of these is. Not for where the rows come from
(`pipelines.log_days.trials`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.arrow import to_list_column, to_numpy
from pipelines.contracts.data_rules import CHANGED_EMBEDDINGS, MISSING_DAYS
from pipelines.contracts.day_profile import DayProfile
from pipelines.contracts.time import DAY_MS, HOUR_MS
from validation.data_gate.canaries import USER_DAYS, Vectors, compare_vectors, smallest_hashes
from validation.data_gate.days.gate import date_of
from validation.data_gate.days.limits import deviations
from validation.data_gate.days.measure import DayRows, measure_days, open_engine

CYCLE_DAYS = 14
TABLES = ("impressions", "actions", "pins", "users")
_OLD_DAYS = 90
_NUM_BOTS = 3

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LogRows:
    """An event log in memory, and the days that a defect may touch."""

    impressions: pa.Table
    actions: pa.Table
    pins: pa.Table
    users: pa.Table
    first_day: int  # Days since the epoch.
    holdout_day: int  # The first day of the holdout.
    end_day: int  # The first day that is left as it is.

    def column(self, table: str, name: str) -> Array:
        """Return a column of numbers that a caller may change."""
        return np.array(getattr(self, table)[name].to_numpy(zero_copy_only=False))

    def day_of(self, table: str) -> Array:
        """Return the day of each row, in days since the epoch."""
        return self.column(table, _TIMES[table]) // DAY_MS

    def inside(self, table: str) -> Mask:
        """Return which rows are of the days that may be touched."""
        day = self.day_of(table)
        return (day >= self.first_day) & (day < self.end_day)

    def drawn(self, table: str, share: float, rng: "Rng") -> Mask:
        """Return about a share of a table's rows, on the days that may be touched."""
        return self.inside(table) & (rng.random(len(getattr(self, table))) < share)

    def with_columns(self, table: str, columns: Mapping[str, Any]) -> "LogRows":
        """Return the log with other values in some columns of a table."""
        rows = getattr(self, table)
        for name, values in columns.items():
            field, place = rows.schema.field(name), rows.schema.get_field_index(name)
            is_arrow = isinstance(values, pa.Array | pa.ChunkedArray)
            made = values if is_arrow else pa.array(values, field.type)
            rows = rows.set_column(place, field, made)
        return replace(self, **{table: rows})

    def without(self, table: str, lost: Mask) -> "LogRows":
        """Return the log without some rows of a table."""
        return replace(self, **{table: getattr(self, table).filter(pa.array(~lost))})

    def with_more(self, table: str, rows: pa.Table) -> "LogRows":
        """Return the log with more rows in a table."""
        return replace(self, **{table: pa.concat_tables([getattr(self, table), rows])})


_TIMES = {"impressions": "impressed_at", "actions": "acted_at", "users": "as_of"}

Rng = np.random.Generator
Plant = Callable[[LogRows, float, Rng], LogRows]
"""Plants a defect of a strength."""
Where = Callable[[LogRows, float, Rng], Mask]
"""Draws the rows of a table that a defect of a strength is about."""


def _drawn(table: str) -> Where:
    return lambda log, s, rng: log.drawn(table, s, rng)


def _requests(log: LogRows, strength: float, rng: Rng) -> Mask:
    """The impressions of about a share of the requests, on whichever day."""
    names = log.impressions["request_id"].combine_chunks().dictionary_encode()
    return _of_keys(np.asarray(names.indices), strength, rng)


def _of_keys(keys: Array, share: float, rng: Rng) -> Mask:
    """The rows of about a share of the different keys, such as users."""
    unique, place = np.unique(keys, return_inverse=True)
    return np.asarray((rng.random(len(unique)) < share)[place])


def _on_days(table: str) -> Where:
    """The rows of a share of the days that may be touched, at least of one."""

    def where(log: LogRows, strength: float, rng: Rng) -> Mask:
        days = np.arange(log.first_day, log.end_day)
        num = max(1, round(strength * len(days)))
        return np.isin(log.day_of(table), rng.choice(days, num, replace=False))

    return where


def _half_of_days(table: str) -> Where:
    """Half of the rows of a share of the days: whole requests, or single actions."""

    def where(log: LogRows, strength: float, rng: Rng) -> Mask:
        is_action = table == "actions"
        half = rng.random(len(log.actions)) < 0.5 if is_action else _requests(log, 0.5, rng)
        return half & _on_days(table)(log, strength, rng)

    return where


def _of_largest_surface(log: LogRows, strength: float, rng: Rng) -> Mask:
    surfaces = log.impressions["surface"].to_pandas()
    is_largest = (surfaces == surfaces.value_counts().index[0]).to_numpy()
    return is_largest & log.inside("impressions") & _requests(log, strength, rng)


def _types(log: LogRows) -> Array:
    return np.asarray(log.actions["action_type"].to_pandas().astype(str).to_numpy(dtype=object))


def _commonest_type(log: LogRows) -> str:
    """The commonest type among the actions that name a request."""
    named = log.actions.filter(log.actions["request_id"].is_valid())
    return str(named["action_type"].to_pandas().astype(str).value_counts().index[0])


def _acted_upon(log: LogRows) -> Mask:
    """Which impressions some action names, by request and pin."""
    named = log.actions.filter(log.actions["request_id"].is_valid())
    shown, acted = (
        pc.binary_join_element_wise(
            rows["request_id"].cast(pa.string()), rows["pin_id"].cast(pa.string()), "/"
        )
        for rows in (log.impressions, named)
    )
    return np.asarray(pc.is_in(shown, value_set=acted.combine_chunks()))


def _category(log: LogRows) -> str:
    """A category's column of the impressions: one of the log's own, or else the surface."""
    names = (field.name for field in log.impressions.schema if pa.types.is_string(field.type))
    return next((name for name in names if name not in ("request_id", "surface")), "surface")


def _lose(table: str, where: Where) -> Plant:
    return lambda log, strength, rng: log.without(table, where(log, strength, rng))


def _lose_users(users: Callable[[LogRows], Array]) -> Plant:
    """Lose a share of some users, in both tables of events."""

    def plant(log: LogRows, strength: float, rng: Rng) -> LogRows:
        unique = np.unique(users(log))
        lost = unique[rng.random(len(unique)) < strength]
        for table in ("impressions", "actions"):
            is_lost = np.isin(log.column(table, "user_id"), lost)
            log = log.without(table, log.inside(table) & is_lost)
        return log

    return plant


def _commonest_state(log: LogRows) -> Array:
    """The users in the commonest state."""
    states = log.users["state"].to_pandas()
    return log.column("users", "user_id")[(states == states.value_counts().index[0]).to_numpy()]


def _repeat(table: str, where: Where, times: int = 1) -> Plant:
    def plant(log: LogRows, strength: float, rng: Rng) -> LogRows:
        extra = getattr(log, table).filter(pa.array(where(log, strength, rng)))
        return log.with_more(table, pa.concat_tables([extra] * times))

    return plant


def _show_days_again(log: LogRows, strength: float, rng: Rng) -> LogRows:
    """Write days of impressions twice; the copies are requests of their own."""
    extra = log.impressions.filter(pa.array(_on_days("impressions")(log, strength, rng)))
    names = pc.binary_join_element_wise(extra["request_id"], "again", "-")
    copies = replace(log, impressions=extra).with_columns("impressions", {"request_id": names})
    return log.with_more("impressions", copies.impressions)


def _write(
    table: str, where: Where, values: Callable[[LogRows, float], Mapping[str, Any]]
) -> Plant:
    """Write other values, each one for all rows or one for each, where the mask is true."""

    def plant(log: LogRows, strength: float, rng: Rng) -> LogRows:
        mask, columns = pa.array(where(log, strength, rng)), {}
        for name, new in values(log, strength).items():
            old = getattr(log, table)[name].combine_chunks()
            make = pa.array if isinstance(new, np.ndarray) else pa.scalar
            columns[name] = pc.if_else(mask, make(new, old.type), old)
        return log.with_columns(table, columns)

    return plant


def _later(table: str, *names: str) -> Plant:
    """Move times by a number of hours."""
    return _write(
        table,
        lambda log, strength, rng: log.inside(table),
        lambda log, hours: {name: log.column(table, name) + int(hours * HOUR_MS) for name in names},
    )


def _label_as_category(log: LogRows, strength: float) -> dict[str, Any]:
    """The commonest value where an impression was acted upon, and the next one where not."""
    name = _category(log)
    counts = log.impressions[name].to_pandas().value_counts(sort=False).sort_index()
    first, second = [*counts.sort_values(ascending=False, kind="stable").index, "other"][:2]
    return {name: np.where(_acted_upon(log), first, second).astype(object)}


def _reverse_sequences(log: LogRows, strength: float, rng: Rng) -> LogRows:
    user, pin = log.column("actions", "user_id"), log.column("actions", "pin_id")
    chosen = np.flatnonzero(log.inside("actions") & _of_keys(user, strength, rng))
    order = chosen[np.lexsort((log.column("actions", "acted_at")[chosen], user[chosen]))]
    starts = np.flatnonzero(np.diff(user[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    reverse = np.repeat(starts + ends - 1, ends - starts) - np.arange(len(order))
    pin[order] = pin[order[reverse]]
    return log.with_columns("actions", {"pin_id": pin})


def _leak(log: LogRows, strength: float, rng: Rng) -> LogRows:
    """Log actions on a request once more, without it, a minute before it."""
    named = np.asarray(log.actions["request_id"].is_valid())
    chosen = log.actions.filter(pa.array(named & log.drawn("actions", strength, rng)))
    ids = log.impressions["request_id"].combine_chunks().dictionary_encode()
    asked_at = np.full(len(ids.dictionary), np.iinfo(np.int64).max)
    np.minimum.at(asked_at, np.asarray(ids.indices), log.column("impressions", "impressed_at"))
    place = np.asarray(
        pc.fill_null(pc.index_in(chosen["request_id"], value_set=ids.dictionary), -1)
    )
    chosen, before = chosen.filter(pa.array(place >= 0)), asked_at[place[place >= 0]] - 60_000
    none = [None] * len(chosen)
    times = {"acted_at": before, "known_at": before, "request_id": none}
    copies = replace(log, actions=chosen).with_columns("actions", times)
    return log.with_more("actions", copies.actions)


def _collide(log: LogRows, strength: float, rng: Rng) -> LogRows:
    """Give a share of the pins the id of another pin, in impressions and actions alike."""
    pins = np.unique(log.column("impressions", "pin_id"))
    is_lost = rng.random(len(pins)) < strength
    target = np.where(is_lost, pins[rng.integers(0, max(1, len(pins) // 20), len(pins))], pins)
    for table in ("impressions", "actions"):
        ids = log.column(table, "pin_id")
        place = np.minimum(np.searchsorted(pins, ids), len(pins) - 1)
        hit = log.inside(table) & (pins[place] == ids)
        log = log.with_columns(table, {"pin_id": np.where(hit, target[place], ids)})
    return log


def _bots(with_actions: bool) -> Plant:
    """Add a few users whose impressions are a share of all; they act on each, or on none."""

    def plant(log: LogRows, strength: float, rng: Rng) -> LogRows:
        is_inside = log.inside("impressions")
        num = max(1, int(strength * is_inside.sum()))
        model = log.impressions.filter(pa.array(is_inside))
        place = np.sort(rng.integers(0, len(model), num))
        size = max(1, len(model) // len(model["request_id"].unique()))
        request = (np.arange(num) // size) * _NUM_BOTS + place % _NUM_BOTS
        copies = replace(log, impressions=model.take(pa.array(place)))
        days = copies.day_of("impressions")
        new = {
            "user_id": int(log.column("impressions", "user_id").max()) + 1 + place % _NUM_BOTS,
            "request_id": [f"bot-{day}-{n}" for day, n in zip(days, request, strict=True)],
        }
        copies = copies.with_columns("impressions", new)
        shown = copies.impressions
        log = log.with_more("impressions", shown)
        if not with_actions:
            return log
        names = ("user_id", "pin_id", "request_id")
        columns = {name: shown[name] for name in names} | {
            "action_type": pa.array([_commonest_type(log)] * num),
            "acted_at": copies.column("impressions", "impressed_at") + 1000,
            "known_at": copies.column("impressions", "known_at") + 1000,
        }
        schema = log.actions.schema
        kept = [name for name in schema.names if name in columns]
        extra = pa.table({name: columns[name] for name in kept})
        return log.with_more("actions", extra.cast(log.actions.select(kept).schema))

    return plant


Change = Callable[[Array, Callable[[], Mask], Rng], Array]
"""Returns other embeddings, by those that there are and what draws the rows that may change."""


def _embeddings(table: str, change: Change) -> Plant:
    """Change embeddings of pins, or of the users' rows of the days that may be touched."""

    def plant(log: LogRows, strength: float, rng: Rng) -> LogRows:
        vectors = np.array(to_numpy(getattr(log, table)["embedding"]), dtype=np.float32)
        inside = np.ones(len(vectors), dtype=bool) if table == "pins" else log.inside(table)
        made = change(vectors, lambda: inside & (rng.random(len(vectors)) < strength), rng)
        column = to_list_column(made.astype(np.float32))
        return log.with_columns(table, {"embedding": column})

    return plant


def _random(vectors: Array, draw: Callable[[], Mask], rng: Rng) -> Array:
    """Random vectors of the same lengths."""
    mask, noise = draw(), rng.normal(size=vectors.shape)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    noise *= length / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.where(mask[:, None], noise, vectors)


def _swapped(vectors: Array, draw: Callable[[], Mask], rng: Rng) -> Array:
    """Vectors that are exchanged in pairs."""
    chosen = rng.permutation(np.flatnonzero(draw()))
    chosen = chosen[: len(chosen) // 2 * 2]
    vectors[chosen] = vectors[chosen.reshape(-1, 2)[:, ::-1].ravel()]
    return vectors


def _shuffled(vectors: Array, draw: Callable[[], Mask], rng: Rng) -> Array:
    chosen = np.flatnonzero(draw())
    vectors[chosen] = vectors[rng.permutation(chosen)]
    return vectors


def _rotated(vectors: Array, draw: Callable[[], Mask], rng: Rng) -> Array:
    """Vectors in another basis."""
    turn, _ = np.linalg.qr(rng.normal(size=(vectors.shape[1], vectors.shape[1])))
    return np.where(draw()[:, None], vectors @ turn, vectors)


def _lose_newest_users(log: LogRows, strength: float, rng: Rng) -> LogRows:
    """Lose the last months' rows of a share of the users, so that older ones are in use."""
    is_old = _of_keys(log.column("users", "user_id"), strength, rng)
    is_new = log.column("users", "as_of") >= (log.end_day - _OLD_DAYS) * DAY_MS
    return log.without("users", is_old & is_new)


SHARES, HOURS = (0.05, 0.2, 0.6), (1.0, 3.0, 12.0)
"""How strong a defect is planted: weak, middle and strong."""


class Defect(NamedTuple):
    """One way in which an event log can be wrong."""

    name: str
    plant: Plant
    strengths: tuple[float, float, float] = SHARES


def _of_commonest_type(log: LogRows, s: float, rng: Rng) -> Mask:
    return log.drawn("actions", s, rng) & (_types(log) == _commonest_type(log))


_SHOWN, _ACTED = "impressions", "actions"
DEFECTS = (
    Defect("actions_hours_later", _later(_ACTED, "acted_at", "known_at"), HOURS),
    Defect("impressions_hours_later", _later(_SHOWN, "impressed_at", "known_at"), HOURS),
    Defect("impressions_days_missing", _lose(_SHOWN, _on_days(_SHOWN))),
    Defect("impressions_days_doubled", _show_days_again),
    Defect("impressions_days_halved", _lose(_SHOWN, _half_of_days(_SHOWN))),
    Defect("actions_days_missing", _lose(_ACTED, _on_days(_ACTED))),
    Defect("actions_days_doubled", _repeat(_ACTED, _on_days(_ACTED))),
    Defect("actions_days_halved", _lose(_ACTED, _half_of_days(_ACTED))),
    Defect("holdout_requests_lost", _lose(_SHOWN, lambda log, s, rng: (
        log.inside(_SHOWN) & (log.day_of(_SHOWN) >= log.holdout_day) & _requests(log, s, rng)))),
    Defect("users_missing", _lose_users(lambda log: log.column(_SHOWN, "user_id"))),
    Defect("segment_missing", _lose_users(_commonest_state)),
    Defect("surface_missing", _lose(_SHOWN, _of_largest_surface)),
    Defect("actions_tripled", _repeat(_ACTED, _drawn(_ACTED), times=2)),
    Defect("bots_with_actions", _bots(with_actions=True)),
    Defect("bots_without_actions", _bots(with_actions=False)),
    Defect("action_type_gone", _lose(_ACTED, _of_commonest_type)),
    Defect("action_type_renamed", _write(_ACTED, _of_commonest_type, lambda log, s: {
        "action_type": min(_types(log)[_types(log) != _commonest_type(log)])})),
    Defect("sequence_reversed", _reverse_sequences),
    Defect("leak_through_actions", _leak),
    Defect("feature_equals_label", _write(_SHOWN, _drawn(_SHOWN), _label_as_category)),
    Defect("pin_embeddings_random", _embeddings("pins", _random)),
    Defect("pin_embeddings_swapped", _embeddings("pins", _swapped)),
    Defect("pin_embeddings_shuffled", _embeddings("pins", _shuffled)),
    Defect("pin_embeddings_rotated", _embeddings("pins", _rotated)),
    Defect("user_embeddings_equal", _embeddings("users", lambda vectors, draw, rng: (
        np.where(draw()[:, None], vectors[:1], vectors)))),
    Defect("user_embeddings_zero", _embeddings("users", lambda vectors, draw, rng: (
        np.where(draw()[:, None], 0.0, vectors)))),
    Defect("user_embeddings_shuffled", _embeddings("users", _shuffled)),
    Defect("user_embeddings_months_old", _lose_newest_users),
    Defect("position_constant", _write(
        _SHOWN, lambda log, s, rng: log.inside(_SHOWN) & _requests(log, s, rng),
        lambda log, s: {"position": 0})),
    Defect("pin_ids_colliding", _collide),
    Defect("all_exploration", _write(
        _SHOWN, _drawn(_SHOWN), lambda log, s: {"is_exploration": True})),
    Defect("negatives_lost", _lose(_SHOWN, lambda log, s, rng: (
        log.drawn(_SHOWN, s, rng) & ~_acted_upon(log)))),
    Defect("exposures_twice", _repeat(_SHOWN, _drawn(_SHOWN))),
    Defect("columns_swapped", _write(_ACTED, _drawn(_ACTED), lambda log, s: {
        "user_id": log.column(_ACTED, "pin_id"), "pin_id": log.column(_ACTED, "user_id")})),
    Defect("categories_null", _write(_SHOWN, _drawn(_SHOWN), lambda log, s: {
        _category(log): None})),
    Defect("lag_gone", _write(_ACTED, _drawn(_ACTED), lambda log, s: {
        "known_at": log.column(_ACTED, "acted_at")})),
    Defect("lag_grown", _later(_ACTED, "known_at"), HOURS),
)  # fmt: skip
"""Every defect, in the order in which the benchmark tells of them."""


class Trial(NamedTuple):
    """What the gate said of rows into which something may have been planted."""

    has_effect: bool  # False where these rows have nothing that the defect could spoil.
    is_critical: bool
    told: tuple[str, ...]  # Embeddings, missing days, then numbers, the largest deviation first.

    @property
    def is_found(self) -> bool:
        """Whether the gate said anything."""
        return bool(self.told)


@dataclass(frozen=True)
class Workbench:
    """Sound rows, and what they are held against."""

    clean: LogRows
    history: Sequence[DayProfile]
    categories: Sequence[str]
    scratch: str  # An existing folder, for what does not fit into memory.

    def judge(self, log: LogRows) -> Trial:
        """Return what the gate says of rows that were sound before."""
        rows = DayRows([log.impressions], [log.actions], [log.users])
        with open_engine(self.scratch) as engine:
            days = measure_days(engine, rows, log.first_day, log.end_day, self.categories)
        found = sorted(deviations(self.history, days), key=lambda each: -each.times_limit)
        missing = sorted({*range(log.first_day, log.end_day)} - {day.day for day in days})
        changed = {what: self._changed(log, what) for what in ("pins", "users")}
        told = (
            *(f"embeddings of {what}" for what, share in changed.items() if share > 0),
            *(f"no rows on {date_of(day)}" for day in missing),
            *(f"{each.name} ({each.level})" for each in found if each.times_limit > 1),
        )
        is_critical = (
            any(each.is_harmful for each in found)
            or len(missing) > MISSING_DAYS.critical * (log.end_day - log.first_day)
            or max(changed.values()) > CHANGED_EMBEDDINGS.critical
        )
        has_effect = any(not getattr(log, t).equals(getattr(self.clean, t)) for t in TABLES)
        return Trial(has_effect, is_critical, told)

    def _changed(self, log: LogRows, table: str) -> float:
        """Return the share of canaries that changed.

        Rows of users from after the last cycle are no canaries: nobody has accepted them.
        """
        kept, now = (
            Vectors(
                ids := rows.column(table, "pin_id" if table == "pins" else "user_id"),
                rows.column(table, "as_of") if table == "users" else np.zeros_like(ids),
                to_numpy(getattr(rows, table)["embedding"]).astype(np.float32),
            )
            for rows in (self.clean, log)
        )
        if table == "users":
            end_ms = (log.end_day - CYCLE_DAYS) * DAY_MS
            kept = kept.at((kept.as_of < end_ms) & (kept.as_of >= end_ms - USER_DAYS * DAY_MS))
        compared = compare_vectors(table, smallest_hashes([kept]), [now])
        return compared.changed_share if compared.num_compared else 0.0
