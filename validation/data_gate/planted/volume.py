"""Defects of volume: of some days, people, surfaces or types, rows are missing or too many."""

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from validation.data_gate.planted.log_rows import (
    LogRows,
    Mask,
    Plant,
    acted_upon,
    column,
    day_of,
    drawn,
    kept,
    repeated,
    requests_drawn,
    some_days,
)

Table = Literal["impressions", "actions"]


def days_missing(table: Table) -> Plant:
    """Return the defect of one table."""

    def plant(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
        """Lose a share of the days."""
        rows = getattr(log, table)
        lost = np.isin(day_of(rows), some_days(log, strength, rng))
        return log.with_table(table, kept(rows, lost))

    return plant


def days_doubled(table: Table) -> Plant:
    """Return the defect of one table."""

    def plant(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
        """Write a share of the days twice; the copies of impressions are requests of their own."""
        rows = getattr(log, table)
        extra = rows.filter(pa.array(np.isin(day_of(rows), some_days(log, strength, rng))))
        if table == "impressions":
            index = extra.schema.get_field_index("request_id")
            names = pc.binary_join_element_wise(extra["request_id"], "again", "-")
            extra = extra.set_column(index, extra.schema.field("request_id"), names)
        return log.with_table(table, pa.concat_tables([rows, extra]))

    return plant


def days_halved(table: Table) -> Plant:
    """Return the defect of one table."""

    def plant(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
        """Lose half of a share of the days: whole requests, or single actions."""
        rows = getattr(log, table)
        is_half = (
            requests_drawn(rows, 0.5, rng) if table == "impressions" else drawn(len(rows), 0.5, rng)
        )
        lost = np.isin(day_of(rows), some_days(log, strength, rng)) & is_half
        return log.with_table(table, kept(rows, lost))

    return plant


def holdout_requests_lost(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Lose a share of the holdout's requests, with all their impressions."""
    rows, day = log.impressions, day_of(log.impressions)
    is_holdout = (day >= log.holdout_day) & (day < log.end_day)
    return log.with_table(
        "impressions", kept(rows, is_holdout & requests_drawn(rows, strength, rng))
    )


def users_missing(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Lose a share of the users, with their impressions and their actions."""
    users = np.unique(np.asarray(log.impressions["user_id"]))
    lost = users[drawn(len(users), strength, rng)]
    return _without_users(log, lost)


def segment_missing(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Lose a share of the users in the state that most users are in."""
    states = log.users["state"].to_pandas()
    largest = states.value_counts().index[0]
    users = np.unique(np.asarray(log.users["user_id"])[(states == largest).to_numpy()])
    return _without_users(log, users[drawn(len(users), strength, rng)])


def surface_missing(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Lose a share of the requests of the surface with most of them."""
    rows = log.impressions
    surfaces = rows["surface"].to_pandas()
    is_largest = (surfaces == surfaces.value_counts().index[0]).to_numpy()
    lost = is_largest & log.inside("impressions") & requests_drawn(rows, strength, rng)
    return log.with_table("impressions", kept(rows, lost))


def actions_tripled(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Write a share of the actions three times."""
    mask = log.inside("actions") & drawn(len(log.actions), strength, rng)
    return log.with_table("actions", repeated(log.actions, mask, 2))


def action_type_gone(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Lose a share of the actions of the type that is most common among those with a request."""
    is_type = _commonest_type(log.actions)
    lost = log.inside("actions") & is_type & drawn(len(log.actions), strength, rng)
    return log.with_table("actions", kept(log.actions, lost))


def action_type_renamed(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Call a share of the commonest type's actions by the name of another type that there is."""
    rows = log.actions
    is_type = _commonest_type(rows)
    types = rows["action_type"].to_pandas().astype(str).to_numpy(dtype=object)
    others = np.unique(types[~is_type].astype(str))
    renamed = log.inside("actions") & is_type & drawn(len(rows), strength, rng)
    types[renamed] = others[0]
    index = rows.schema.get_field_index("action_type")
    names = pa.array(types, pa.string()).cast(rows.schema.field("action_type").type)
    field = rows.schema.field("action_type")
    return log.with_table("actions", rows.set_column(index, field, names))


def negatives_lost(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Lose a share of the impressions that nobody acted upon."""
    rows = log.impressions
    lost = log.inside("impressions") & ~acted_upon(log) & drawn(len(rows), strength, rng)
    return log.with_table("impressions", kept(rows, lost))


def exposures_twice(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Write a share of the impressions twice, at a later position of the same request."""
    mask = log.inside("impressions") & drawn(len(log.impressions), strength, rng)
    return log.with_table("impressions", repeated(log.impressions, mask, 1))


def _without_users(log: LogRows, user_ids: np.ndarray) -> LogRows:
    for table in ("impressions", "actions"):
        rows = getattr(log, table)
        lost = log.inside(table) & np.isin(column(rows, "user_id"), user_ids)
        log = log.with_table(table, kept(rows, lost))
    return log


def _commonest_type(actions: pa.Table) -> Mask:
    """Return which actions are of the commonest type among those that name a request."""
    types = actions["action_type"].to_pandas().astype(str)
    named = types[np.asarray(actions["request_id"].is_valid())]
    return (types == named.value_counts().index[0]).to_numpy()
