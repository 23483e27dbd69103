"""Third step of the kernel: for each request, what the daily batch knew of its user at that time.

Not for what the users did: that is the timeline (`pointers`).
"""

import numpy as np
import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.schemas import snapshot_schema
from pipelines.event_log.cross_rules import repeated_user_row
from pipelines.event_log.event_index import EventIndex, Ints
from pipelines.event_log.findings import require_none
from pipelines.snapshot.shard import Requests, UserRows

NEW_STATE = "new"


def pick_user_rows(
    users: pa.Table | None, requests: Requests, features: FeatureConfig, embedding_dim: int
) -> UserRows:
    """Return, for each request, its user's row of the latest as_of that is not after the request.

    A user who has no row yet is new, not an error: the daily batch has not met them. Their row has
    a zero embedding, the state 'new' (code 0 where the recipe does not list it) and as_of 0.

    Args:
        users: the users' embeddings and codes in any order; None where there are none.
        requests: the shard's requests.
        features: for the categorical features of users.
        embedding_dim: width of the users' embeddings.

    Raises:
        DataContractError: a user has two rows of the same as_of.
    """
    schema = snapshot_schema("users", features, embedding_dim=embedding_dim)
    known = schema.empty_table() if users is None else users.select(schema.names).cast(schema)
    user_id, as_of = np.asarray(known["user_id"]), np.asarray(known["as_of"])
    index = EventIndex(user_id, as_of)
    _check_unique_users(user_id[index.order], as_of[index.order])
    newest = index.position(requests.user_id, requests.impressed_at + 1) - 1
    has_row = newest >= index.first(requests.user_id)
    spilled_row = np.full(len(has_row), -1)
    spilled_row[has_row] = index.order[newest[has_row]]
    wanted_as_of = np.zeros(len(has_row), dtype=np.int64)
    wanted_as_of[has_row] = as_of[spilled_row[has_row]]

    newcomers = _newcomer_rows(np.unique(requests.user_id[~has_row]), features, schema)
    rows = pa.concat_tables([known.take(pa.array(spilled_row[has_row])), newcomers])
    keys = np.stack([np.asarray(rows["user_id"]), np.asarray(rows["as_of"])], axis=1)
    unique, places = np.unique(keys, axis=0, return_index=True)
    user_row = EventIndex(unique[:, 0], unique[:, 1]).position(requests.user_id, wanted_as_of)
    return UserRows(rows.take(pa.array(places)), user_row, spilled_row)


def _check_unique_users(user_id: Ints, as_of: Ints) -> None:
    is_repeat = (np.diff(user_id) == 0) & (np.diff(as_of) == 0)
    if is_repeat.any():
        bad = int(np.flatnonzero(is_repeat)[0])
        require_none([repeated_user_row(int(user_id[bad]), int(as_of[bad]))])


def _newcomer_rows(user_ids: Ints, features: FeatureConfig, schema: pa.Schema) -> pa.Table:
    width = schema.field("embedding").type.list_size
    zeros = np.zeros((len(user_ids), width), dtype=np.float32)
    columns = [user_ids, np.zeros_like(user_ids), to_list_column(zeros)]
    for feature in features.categorical_of("users"):
        is_state = feature.name == "state" and NEW_STATE in feature.values
        code = feature.values.index(NEW_STATE) + 1 if is_state else 0
        columns.append(np.full(len(user_ids), code, dtype=np.int16))
    return pa.table(columns, schema=schema)
