"""A shard's user rows: for each request, what the daily batch knew of its user at that time.

Not for the users' timelines: those are actions.
"""

import numpy as np
import pyarrow as pa

from pipelines.contracts import schemas
from pipelines.contracts.errors import DataContractError
from pipelines.snapshot.features import EventIndex, Ints
from pipelines.snapshot.order import LONG_AGO, Examples
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.tables import embeddings_of, field_of, table_of

NEW_STATE = "new"


def user_schema(plan: SnapshotPlan) -> pa.Schema:
    """Return the schema of `users`: USER_ROWS and codes."""
    features = plan.features.categorical_of("users")
    codes = [field_of(schemas.categorical_column(f.name), pa.int16()) for f in features]
    return pa.schema([*schemas.USER_ROWS, *codes])


def pick_user_rows(
    users: pa.Table | None, examples: Examples, plan: SnapshotPlan
) -> tuple[pa.Table, Ints]:
    """Return the users' rows in use and, per request, which: the latest of as_of <= its time.

    A user who has no row yet is new, not an error: the daily batch has not met them. They get a
    zero embedding, the state 'new' (0 where the recipe does not list it) and as_of 0.
    """
    schema = user_schema(plan)
    known = schema.empty_table() if users is None else users
    user_id, as_of = np.asarray(known["user_id"]), np.asarray(known["as_of"])
    index = EventIndex(user_id, as_of)
    _check_unique_users(user_id[index.order], as_of[index.order])
    first = index.position(examples.user_id, np.full(len(examples.user_id), LONG_AGO))
    newest = index.position(examples.user_id, examples.impressed_at + 1) - 1
    has_row = newest >= first
    rows = known.take(pa.array(index.order[newest[has_row]]))
    newcomers = np.unique(examples.user_id[~has_row])
    rows = pa.concat_tables([rows.cast(schema), _newcomer_rows(newcomers, plan, schema)])
    keys = np.stack([np.asarray(rows["user_id"]), np.asarray(rows["as_of"])], axis=1)
    unique, places = np.unique(keys, axis=0, return_index=True)
    wanted_as_of = np.zeros(len(has_row), dtype=np.int64)
    wanted_as_of[has_row] = keys[: int(has_row.sum()), 1]
    user_row = EventIndex(unique[:, 0], unique[:, 1]).position(examples.user_id, wanted_as_of)
    return rows.take(pa.array(places)), user_row


def _check_unique_users(user_id: Ints, as_of: Ints) -> None:
    is_repeat = (np.diff(user_id) == 0) & (np.diff(as_of) == 0)
    if is_repeat.any():
        bad = int(np.flatnonzero(is_repeat)[0])
        raise DataContractError(
            f"users: user {user_id[bad]} has more than one row of as_of={as_of[bad]}; expected "
            f"one per (user_id, as_of); remove the repeated row"
        )


def _newcomer_rows(user_ids: Ints, plan: SnapshotPlan, schema: pa.Schema) -> pa.Table:
    zeros = np.zeros((len(user_ids), schemas.EMBEDDING_DIM), dtype=np.float32)
    columns = [user_ids, np.zeros_like(user_ids), embeddings_of(zeros)]
    for feature in plan.features.categorical_of("users"):
        is_state = feature.name == "state" and NEW_STATE in feature.values
        code = feature.values.index(NEW_STATE) + 1 if is_state else 0
        columns.append(np.full(len(user_ids), code, dtype=np.int16))
    return table_of(schema, *columns)
