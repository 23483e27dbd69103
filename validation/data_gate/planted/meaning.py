"""Defects of meaning: as many rows as before, but columns that say something else."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.time import HOUR_MS
from validation.data_gate.planted.log_rows import (
    LogRows,
    Plant,
    acted_upon,
    column,
    drawn,
    of_keys,
    replaced,
    requests_drawn,
)
from validation.data_gate.planted.volume import Table

_MINUTE_MS = HOUR_MS // 60


def hours_later(table: Table) -> Plant:
    """Return the defect of one table."""

    def plant(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
        """Tell the rows of some days a number of hours too late; they are known as much later."""
        rows, shift = getattr(log, table), int(strength * HOUR_MS)
        moved = log.inside(table) * shift
        name = "impressed_at" if table == "impressions" else "acted_at"
        times = {key: column(rows, key) + moved for key in (name, "known_at")}
        return log.with_table(table, replaced(rows, **times))

    return plant


def lag_gone(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Say of a share of the actions that they were known when they happened."""
    rows = log.actions
    mask = log.inside("actions") & drawn(len(rows), strength, rng)
    known = np.where(mask, column(rows, "acted_at"), column(rows, "known_at"))
    return log.with_table("actions", replaced(rows, known_at=known))


def lag_grown(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Let the actions become known a number of hours later."""
    known = column(log.actions, "known_at") + log.inside("actions") * int(strength * HOUR_MS)
    return log.with_table("actions", replaced(log.actions, known_at=known))


def sequence_reversed(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Give the actions of a share of the users their pins in the reverse order."""
    rows = log.actions
    user, pin = column(rows, "user_id"), column(rows, "pin_id")
    chosen = np.flatnonzero(log.inside("actions") & of_keys(user, strength, rng))
    order = chosen[np.lexsort((column(rows, "acted_at")[chosen], user[chosen]))]
    starts = np.flatnonzero(np.diff(user[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    reverse = np.repeat(starts + ends - 1, ends - starts) - np.arange(len(order))
    pin[order] = pin[order[reverse]]
    return log.with_table("actions", replaced(rows, pin_id=pin))


def leak_through_actions(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Log a share of the actions on a request once more, without it, a minute before it."""
    rows = log.actions
    named = log.inside("actions") & np.asarray(rows["request_id"].is_valid())
    chosen = rows.filter(pa.array(named & drawn(len(rows), strength, rng)))
    asked_at = _asked_at(log, chosen)
    chosen = chosen.filter(pa.array(asked_at > 0))
    before = asked_at[asked_at > 0] - _MINUTE_MS
    none = pa.nulls(len(chosen), rows.schema.field("request_id").type)
    copies = replaced(chosen, acted_at=before, known_at=before, request_id=none)
    return log.with_table("actions", pa.concat_tables([rows, copies]))


def feature_equals_label(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Let a category of the impressions tell, for a share of the rows, which were acted upon."""
    rows, name = log.impressions, _category(log.impressions)
    is_positive = acted_upon(log)
    values = rows[name].to_pandas().astype(object).to_numpy(copy=True)
    first, second = _two_values(values)
    mask = log.inside("impressions") & drawn(len(rows), strength, rng)
    values[mask] = np.where(is_positive[mask], first, second)
    return log.with_table("impressions", replaced(rows, **{name: pa.array(values, pa.string())}))


def position_constant(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Log the position 0 for all impressions of a share of the requests."""
    rows = log.impressions
    mask = log.inside("impressions") & requests_drawn(rows, strength, rng)
    return log.with_table(
        "impressions", replaced(rows, position=np.where(mask, 0, column(rows, "position")))
    )


def pin_ids_colliding(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Give a share of the pins the id of another pin, in impressions and actions alike."""
    pins = np.unique(column(log.impressions, "pin_id"))
    is_lost = drawn(len(pins), strength, rng)
    target = np.where(is_lost, pins[rng.integers(0, max(1, len(pins) // 20), len(pins))], pins)
    for table in ("impressions", "actions"):
        rows = getattr(log, table)
        ids = column(rows, "pin_id")
        place = np.minimum(np.searchsorted(pins, ids), len(pins) - 1)
        hit = log.inside(table) & (pins[place] == ids)
        log = log.with_table(table, replaced(rows, pin_id=np.where(hit, target[place], ids)))
    return log


def all_exploration(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Mark a share of the impressions as randomised traffic."""
    rows = log.impressions
    mask = log.inside("impressions") & drawn(len(rows), strength, rng)
    marked = column(rows, "is_exploration").astype(bool) | mask
    return log.with_table("impressions", replaced(rows, is_exploration=marked))


def columns_swapped(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Exchange user_id and pin_id in a share of the actions."""
    rows = log.actions
    mask = log.inside("actions") & drawn(len(rows), strength, rng)
    user, pin = column(rows, "user_id"), column(rows, "pin_id")
    swapped = {"user_id": np.where(mask, pin, user), "pin_id": np.where(mask, user, pin)}
    return log.with_table("actions", replaced(rows, **swapped))


def categories_null(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Lose a category of the impressions in a share of the rows."""
    rows, name = log.impressions, _category(log.impressions)
    mask = log.inside("impressions") & drawn(len(rows), strength, rng)
    values = rows[name].to_pandas().astype(object).to_numpy(copy=True)
    values[mask] = None
    field = pa.field(name, pa.string())
    index = rows.schema.get_field_index(name)
    rows = rows.set_column(index, field, pa.array(values, pa.string()))
    return log.with_table("impressions", rows)


def _category(rows: pa.Table) -> str:
    """Return a category's column: one of the log's own, or else the surface."""
    known = {"request_id", "surface"}
    own = [f.name for f in rows.schema if pa.types.is_string(f.type) and f.name not in known]
    return own[0] if own else "surface"


def _two_values(values: np.ndarray) -> tuple[str, str]:
    """Return the two commonest values, or the one that there is and another."""
    found, counts = np.unique(values[values != None].astype(str), return_counts=True)  # noqa: E711
    order = found[np.argsort(-counts)]
    return str(order[0]), str(order[1]) if len(order) > 1 else "other"


def _asked_at(log: LogRows, actions: pa.Table) -> np.ndarray:
    """Return when the request that each action names was made, in ms; 0 where it is not known."""
    rows = log.impressions
    ids = rows["request_id"].combine_chunks().dictionary_encode()
    first = np.full(len(ids.dictionary), np.iinfo(np.int64).max)
    np.minimum.at(first, np.asarray(ids.indices), column(rows, "impressed_at"))
    place = pc.fill_null(pc.index_in(actions["request_id"], value_set=ids.dictionary), -1)
    place = np.asarray(place)
    return np.where(place >= 0, first[place], 0)
