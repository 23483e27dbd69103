"""A planted event log in which one user has 10 % of all rows, and one pin 30 % of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from support.worlds import write_events, write_planted_world

HOT_USER, HOT_PIN = 0, 0
_ONE_IN = 11
"""One request in so many more is the hot user's, who has some of their own."""


def write_skewed_log(folder: Path) -> None:
    """Write the log. Requests have three candidates, because none may show a pin twice."""
    write_planted_world(folder, candidates=3, requests_per_user_day=0.6)
    shown, acted = (_read(folder, table) for table in ("impressions", "actions"))
    with_hot_pin = _with_pin(shown, np.asarray(shown["position"]) == 0)
    write_events(folder, "impressions", _without_repeats(_with_user(with_hot_pin)))
    is_hot = np.arange(len(acted)) % 10 < 3
    write_events(folder, "actions", _with_user(_with_pin(acted, is_hot)))


def shares(folder: Path) -> dict[str, tuple[float, float]]:
    """Return which part of each table's rows are the hot user's, and the hot pin's."""
    found = {}
    for table in ("impressions", "actions"):
        rows = _read(folder, table)
        keys = (("user_id", HOT_USER), ("pin_id", HOT_PIN))
        user, pin = (float((np.asarray(rows[name]) == hot).mean()) for name, hot in keys)
        found[table] = (user, pin)
    return found


def _read(folder: Path, table: str) -> pa.Table:
    files = sorted((folder / table).glob("*/*.parquet"))
    return pa.concat_tables(pq.read_table(path, partitioning=None) for path in files)


def _with_user(rows: pa.Table) -> pa.Table:
    """Give some requests, with all that happened in them, to the hot user."""
    number = pc.utf8_slice_codeunits(pc.fill_null(rows["request_id"], "r000001"), 1, 9)
    is_theirs = np.asarray(number.cast(pa.int64())) % _ONE_IN == 0
    return _with(rows, "user_id", np.where(is_theirs, HOT_USER, np.asarray(rows["user_id"])))


def _with_pin(rows: pa.Table, is_hot: np.ndarray) -> pa.Table:
    return _with(rows, "pin_id", np.where(is_hot, HOT_PIN, np.asarray(rows["pin_id"])))


def _with(rows: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(name), pa.array(values, rows[name].type))


def _without_repeats(rows: pa.Table) -> pa.Table:
    """Leave out a candidate that is the hot pin a second time in its request."""
    is_second = (np.asarray(rows["position"]) > 0) & (np.asarray(rows["pin_id"]) == HOT_PIN)
    return rows.filter(pa.array(~is_second))
