"""The rows of an event log that a defect is planted into, and small helpers to change them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.time import DAY_MS

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

    @property
    def days(self) -> npt.NDArray[np.int64]:
        """The days that may be touched."""
        return np.arange(self.first_day, self.end_day)

    def with_table(self, name: str, rows: pa.Table) -> "LogRows":
        """Return the log with another table."""
        return replace(self, **{name: rows})

    def inside(self, name: str) -> Mask:
        """Return which rows of impressions or actions happened on the days that may be touched."""
        day = day_of(getattr(self, name))
        return (day >= self.first_day) & (day < self.end_day)


Plant = Callable[[LogRows, float, np.random.Generator], LogRows]
"""Plants a defect of a strength."""


def column(rows: pa.Table, name: str) -> npt.NDArray[Any]:
    """Return a column of numbers that a caller may change."""
    return np.array(rows[name].to_numpy(zero_copy_only=False))


def time_column(rows: pa.Table) -> str:
    """Return the name of the column that says when a row happened."""
    return "impressed_at" if "impressed_at" in rows.column_names else "acted_at"


def day_of(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return the day of each row of impressions or actions, in days since the epoch."""
    return np.asarray(rows[time_column(rows)]) // DAY_MS


def replaced(rows: pa.Table, **columns: Any) -> pa.Table:
    """Return the table with some columns of other values."""
    for name, values in columns.items():
        field = rows.schema.field(name)
        array = values if isinstance(values, pa.Array) else pa.array(values, type=field.type)
        rows = rows.set_column(rows.schema.get_field_index(name), field, array)
    return rows


def kept(rows: pa.Table, is_lost: Mask) -> pa.Table:
    """Return the rows that are not lost."""
    return rows.filter(pa.array(~is_lost))


def repeated(rows: pa.Table, mask: Mask, times: int) -> pa.Table:
    """Return the rows with those of a mask written some more times."""
    extra = rows.filter(pa.array(mask))
    return pa.concat_tables([rows, *[extra] * times])


def drawn(size: int, share: float, rng: np.random.Generator) -> Mask:
    """Return a mask of about a share of some rows."""
    return rng.random(size) < share


def of_keys(keys: npt.NDArray[Any], share: float, rng: np.random.Generator) -> Mask:
    """Return the rows of about a share of the different keys, such as users."""
    unique, place = np.unique(keys, return_inverse=True)
    return drawn(len(unique), share, rng)[place]


def acted_upon(log: LogRows) -> Mask:
    """Return which impressions some action names, by request and pin."""
    named = log.actions.filter(log.actions["request_id"].is_valid())
    found = pc.is_in(_pairs(log.impressions), value_set=_pairs(named).combine_chunks())
    return np.asarray(found)


def _pairs(rows: pa.Table) -> pa.ChunkedArray:
    """Return request and pin of each row as one text."""
    parts = (rows[name].cast(pa.string()) for name in ("request_id", "pin_id"))
    return pc.binary_join_element_wise(*parts, "/")


def requests_drawn(rows: pa.Table, share: float, rng: np.random.Generator) -> Mask:
    """Return the impressions of about a share of the requests."""
    codes = rows["request_id"].combine_chunks().dictionary_encode().indices
    return of_keys(np.asarray(codes), share, rng)


def some_days(log: LogRows, share: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return a share of the days that may be touched, at least one of them."""
    num = max(1, round(share * len(log.days)))
    return rng.choice(log.days, num, replace=False)
