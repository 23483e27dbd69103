"""Column names and Arrow types of the event log and of a snapshot's files, in this one place.

Times are int64 milliseconds since the epoch, UTC. An adapter may add columns to `impressions`,
`pins` and `users`; they reach the model only if the recipe declares them as features.
"""

import pyarrow as pa

EMBEDDING_DIM = 32
EmbeddingType = pa.list_(pa.float32(), EMBEDDING_DIM)

IMPRESSIONS = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("pin_id", pa.int64(), nullable=False),
        pa.field("impressed_at", pa.int64(), nullable=False),
        pa.field("known_at", pa.int64(), nullable=False),
        pa.field("position", pa.int16(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),
        pa.field("is_exploration", pa.bool_(), nullable=False),
        pa.field("propensity", pa.float32(), nullable=True),
    ]
)
"""One row per candidate pin shown in a request; (request_id, pin_id) is the key."""

ACTIONS = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("pin_id", pa.int64(), nullable=False),
        pa.field("action_type", pa.string(), nullable=False),
        pa.field("acted_at", pa.int64(), nullable=False),
        pa.field("known_at", pa.int64(), nullable=False),
        pa.field("request_id", pa.string(), nullable=True),
    ]
)
"""One row per action; `request_id` is null when the action came from no logged request."""

PINS = pa.schema(
    [
        pa.field("pin_id", pa.int64(), nullable=False),
        pa.field("embedding_version", pa.string(), nullable=False),
        pa.field("embedding", EmbeddingType, nullable=False),
    ]
)
"""One row per (pin, embedding version). A version is a fixed basis: new pins are folded into it."""

USERS = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("as_of", pa.int64(), nullable=False),
        pa.field("embedding", EmbeddingType, nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("location", pa.string(), nullable=True),
    ]
)
"""One row per (user, as_of): what was known of the user at that instant, and nothing later."""

EVENT_LOG_TABLES: dict[str, pa.Schema] = {
    "impressions": IMPRESSIONS,
    "actions": ACTIONS,
    "pins": PINS,
    "users": USERS,
}

# --- snapshot files (Arrow IPC, uncompressed, one record batch: memory-mapped without a copy) ---

TIMELINE = pa.schema(
    [
        pa.field("pin_row", pa.int32(), nullable=False),
        pa.field("action_type_id", pa.int8(), nullable=False),
        pa.field("acted_at", pa.int64(), nullable=False),
        pa.field("known_at", pa.int64(), nullable=False),
    ]
)
"""A shard's actions, users one after another, each user's by (known_at, acted_at): so the actions
known before an instant are a prefix of the user's block. `action_type_id` counts from 1; 0 pads."""

REQUESTS = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("impressed_at", pa.int64(), nullable=False),
        pa.field("split", pa.int8(), nullable=False),  # 0 training, 1 holdout
        pa.field("is_core", pa.bool_(), nullable=False),  # a repin in the last 28 days
        pa.field("timeline_start", pa.int64(), nullable=False),  # the user's first row
        pa.field("timeline_end", pa.int64(), nullable=False),  # one past the newest known action
        pa.field("user_row", pa.int32(), nullable=False),
        pa.field("first_example", pa.int64(), nullable=False),
        pa.field("num_examples", pa.int32(), nullable=False),
    ]
)
"""A shard's requests; a request's examples are the rows [first_example, +num_examples)."""

SPLIT_TRAINING, SPLIT_HOLDOUT = 0, 1

EXAMPLE_KEYS = pa.schema(
    [
        pa.field("pin_row", pa.int32(), nullable=False),
        pa.field("position", pa.int16(), nullable=False),
        pa.field("is_exploration", pa.bool_(), nullable=False),
    ]
)
"""First columns of `examples`; then `cat_<feature>` int16 (0 = unknown value) for each impression
feature of the recipe, `num_<feature>` float32 for each of NUMERIC_FEATURES (always all of them: the
gates rank by them even where the model is not given them), and `label_<head>` int8 per head."""

NUMERIC_FEATURES = ("pin_popularity", "past_engagements")

USER_ROWS = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("as_of", pa.int64(), nullable=False),
        pa.field("embedding", EmbeddingType, nullable=False),
    ]
)
"""A shard's users, then `cat_<feature>` int16 per user feature; `requests.user_row` points here."""

PIN_ROWS = pa.schema(
    [
        pa.field("pin_id", pa.int64(), nullable=False),
        pa.field("embedding", EmbeddingType, nullable=False),
    ]
)
"""The snapshot's pins by pin_id, then `cat_<feature>` int16 for each pin feature."""


def categorical_column(feature_name: str) -> str:
    """Return the column that holds a categorical feature's codes (int16, 0 = unknown value)."""
    return f"cat_{feature_name}"


def numeric_column(feature_name: str) -> str:
    """Return the column that holds a numeric feature (float32, finite)."""
    return f"num_{feature_name}"


def label_column(head_name: str) -> str:
    """Return the column that holds a head's label (int8, 0 or 1)."""
    return f"label_{head_name}"
