"""Defects of users and pins: bots, and embeddings that are not what they were."""

import numpy as np
import pyarrow as pa

from pipelines.contracts.arrow import to_list_column, to_numpy
from pipelines.contracts.time import DAY_MS
from validation.data_gate.planted.log_rows import (
    LogRows,
    Mask,
    Plant,
    column,
    day_of,
    drawn,
    replaced,
)

_OLD_DAYS = 90
_NUM_BOTS = 3


def bots(with_actions: bool) -> Plant:
    """Return the defect of bots that act, or do not."""

    def plant(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
        """Add a few users whose impressions are a share of all; they act on each, or on none."""
        rows = log.impressions
        num = max(1, int(strength * log.inside("impressions").sum()))
        model = rows.filter(pa.array(log.inside("impressions")))
        place = np.sort(rng.integers(0, len(model), num))
        copies = model.take(pa.array(place))
        bot = int(column(rows, "user_id").max()) + 1 + place % _NUM_BOTS
        size = max(1, len(model) // len(model["request_id"].unique()))
        request = (np.arange(num) // size) * _NUM_BOTS + place % _NUM_BOTS
        names = pa.array([f"bot-{day}-{n}" for day, n in zip(day_of(copies), request, strict=True)])
        copies = replaced(copies, user_id=bot, request_id=names)
        log = log.with_table("impressions", pa.concat_tables([rows, copies]))
        return log.with_table("actions", _act(log.actions, copies)) if with_actions else log

    return plant


def _act(actions: pa.Table, shown: pa.Table) -> pa.Table:
    """Return the actions with one on each impression of a bot, of the commonest type."""
    types = actions["action_type"].to_pandas().astype(str)
    named = types[np.asarray(actions["request_id"].is_valid())]
    columns = {
        "user_id": shown["user_id"],
        "pin_id": shown["pin_id"],
        "action_type": pa.array([named.value_counts().index[0]] * len(shown)),
        "acted_at": column(shown, "impressed_at") + 1000,
        "known_at": column(shown, "known_at") + 1000,
        "request_id": shown["request_id"],
    }
    extra = pa.table({name: columns[name] for name in actions.column_names if name in columns})
    return pa.concat_tables([actions, extra.cast(actions.select(extra.column_names).schema)])


def pins_random(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Give a share of the pins random embeddings of the usual length."""
    vectors = _vectors(log.pins)
    mask = drawn(len(vectors), strength, rng)
    noise = rng.normal(size=vectors.shape)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    noise *= length / np.linalg.norm(noise, axis=1, keepdims=True)
    return _with_vectors(log, "pins", np.where(mask[:, None], noise, vectors))


def pins_swapped(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Exchange the embeddings of a share of the pins in pairs."""
    vectors = _vectors(log.pins)
    chosen = rng.permutation(np.flatnonzero(drawn(len(vectors), strength, rng)))
    chosen = chosen[: len(chosen) // 2 * 2]
    partner = chosen.reshape(-1, 2)[:, ::-1].ravel()
    vectors[chosen] = vectors[partner]
    return _with_vectors(log, "pins", vectors)


def pins_shuffled(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Deal out the embeddings of a share of the pins anew among them."""
    vectors = _vectors(log.pins)
    chosen = np.flatnonzero(drawn(len(vectors), strength, rng))
    vectors[chosen] = vectors[rng.permutation(chosen)]
    return _with_vectors(log, "pins", vectors)


def pins_rotated(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Turn the embeddings of a share of the pins into another basis, under the same version."""
    vectors = _vectors(log.pins)
    turn, _ = np.linalg.qr(rng.normal(size=(vectors.shape[1], vectors.shape[1])))
    mask = drawn(len(vectors), strength, rng)
    return _with_vectors(log, "pins", np.where(mask[:, None], vectors @ turn, vectors))


def users_equal(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Give a share of the users' rows one and the same embedding."""
    vectors = _vectors(log.users)
    mask = _recent(log) & drawn(len(vectors), strength, rng)
    return _with_vectors(log, "users", np.where(mask[:, None], vectors[:1], vectors))


def users_zero(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Give a share of the users' rows an embedding of zeros."""
    vectors = _vectors(log.users)
    mask = _recent(log) & drawn(len(vectors), strength, rng)
    return _with_vectors(log, "users", np.where(mask[:, None], 0.0, vectors))


def users_shuffled(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Deal out the embeddings of a share of the users' rows anew among them."""
    vectors = _vectors(log.users)
    chosen = np.flatnonzero(_recent(log) & drawn(len(vectors), strength, rng))
    vectors[chosen] = vectors[rng.permutation(chosen)]
    return _with_vectors(log, "users", vectors)


def users_months_old(log: LogRows, strength: float, rng: np.random.Generator) -> LogRows:
    """Lose the last months' rows of a share of the users, so that older ones are in use."""
    users, as_of = column(log.users, "user_id"), column(log.users, "as_of")
    unique, place = np.unique(users, return_inverse=True)
    is_old = drawn(len(unique), strength, rng)[place]
    lost = is_old & (as_of >= (log.end_day - _OLD_DAYS) * DAY_MS)
    return log.with_table("users", log.users.filter(pa.array(~lost)))


def _recent(log: LogRows) -> Mask:
    """Return which rows of users were written in the days that may be touched."""
    as_of = column(log.users, "as_of")
    return (as_of >= log.first_day * DAY_MS) & (as_of < log.end_day * DAY_MS)


def _vectors(rows: pa.Table) -> np.ndarray:
    return np.array(to_numpy(rows["embedding"]), dtype=np.float32)


def _with_vectors(log: LogRows, table: str, vectors: np.ndarray) -> LogRows:
    rows = getattr(log, table)
    index = rows.schema.get_field_index("embedding")
    made = to_list_column(vectors.astype(np.float32))
    return log.with_table(table, rows.set_column(index, rows.schema.field("embedding"), made))
