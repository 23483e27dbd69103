"""Column names and Arrow types of the event log and of a snapshot's files, in this one place.

Times are int64 milliseconds since the epoch, UTC. An adapter may add columns to `impressions`,
`pins` and `users`; they reach the model only if the recipe declares them as features. The columns
that a recipe's features add to a snapshot's files are in `snapshot_schema`.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.config import FeatureConfig

EMBEDDING_DIM = 32
"""Width of the published system's embeddings and of both samples'. A log may have any other: what
reads a log takes the width that the rows of the version have (`event_log.rules`).
"""
EmbeddingType = pa.list_(pa.float32(), EMBEDDING_DIM)


def _columns(**types: pa.DataType) -> pa.Schema:
    """Return a schema of columns without nulls. A column that may hold nulls is appended to it."""
    return pa.schema([pa.field(name, type_, nullable=False) for name, type_ in types.items()])


IMPRESSIONS = _columns(
    request_id=pa.string(),
    user_id=pa.int64(),
    pin_id=pa.int64(),
    impressed_at=pa.int64(),
    known_at=pa.int64(),
    position=pa.int16(),
    surface=pa.string(),
    is_exploration=pa.bool_(),
).append(pa.field("propensity", pa.float32()))
"""One row per candidate pin shown in a request; (request_id, pin_id) is the key."""

ACTIONS = _columns(
    user_id=pa.int64(),
    pin_id=pa.int64(),
    action_type=pa.string(),
    acted_at=pa.int64(),
    known_at=pa.int64(),
).append(pa.field("request_id", pa.string()))
"""One row per action; `request_id` is null when the action came from no logged request."""

PINS = _columns(pin_id=pa.int64(), embedding_version=pa.string(), embedding=EmbeddingType)
"""One row per (pin, embedding version). A version is a fixed basis: new pins are folded into it.
All its rows have one width. A log may add PIN_TIME to this table."""

PIN_TIME = pa.field("known_at", pa.int64(), nullable=False)
"""The optional column of `pins`: when the row reached the log. A request sees the row, as it sees
an action, only if this time is before the request (`is_known_late`)."""
NEVER_MS = (1 << 63) - 1
"""PIN_TIME of a snapshot's pin that had no row before as_of: its embedding is never seen."""

USERS = _columns(
    user_id=pa.int64(),
    as_of=pa.int64(),
    embedding=EmbeddingType,
    state=pa.string(),
).append(pa.field("location", pa.string()))
"""One row per (user, as_of): what was known of the user at that instant, and nothing later."""

EVENT_LOG_TABLES: dict[str, pa.Schema] = {
    "impressions": IMPRESSIONS,
    "actions": ACTIONS,
    "pins": PINS,
    "users": USERS,
}


def contract_of(table: str, names: Collection[str]) -> pa.Schema:
    """Return the contract of an event log file that has columns of these names.

    It is the table's, with PIN_TIME where the table may have it and the file does.
    """
    schema = EVENT_LOG_TABLES[table]
    return schema.append(PIN_TIME) if table == "pins" and PIN_TIME.name in names else schema


# The files of a snapshot follow. They are uncompressed Arrow IPC files with one record batch, so
# that mapping a file into memory copies nothing.

TIMELINE = _columns(
    pin_row=pa.int32(),
    action_type_id=pa.int8(),
    acted_at=pa.int64(),
    known_at=pa.int64(),
)
"""A shard's actions, users one after another, each user's sorted by (known_at, acted_at). The
actions known before an instant are thus the first rows of the user's block. `action_type_id` counts
from 1, because 0 is padding."""

REQUESTS = _columns(
    request_id=pa.string(),
    user_id=pa.int64(),
    impressed_at=pa.int64(),
    split=pa.int8(),  # SPLIT_TRAINING or SPLIT_HOLDOUT
    is_core=pa.bool_(),
    timeline_start=pa.int64(),  # The first row of the user in the timeline.
    timeline_end=pa.int64(),  # One past the newest action known before the request.
    user_row=pa.int32(),
    first_example=pa.int64(),
    num_examples=pa.int32(),
)
"""A shard's requests. A request's examples are `num_examples` rows from row `first_example` on.

`is_core`: within `core_days` before the request the user did the main head's action."""

SPLIT_TRAINING, SPLIT_HOLDOUT = 0, 1

EXAMPLE_KEYS = _columns(
    pin_row=pa.int32(), position=pa.int16(), is_exploration=pa.bool_(), propensity=pa.float32()
)
"""The columns that `examples` has whatever the recipe; `snapshot_schema` adds the others.

`propensity`: the logged chance that this pin was among the request's candidates, in (0, 1]; 0 where
none was logged."""

USER_ROWS = _columns(user_id=pa.int64(), as_of=pa.int64(), embedding=EmbeddingType)
"""The columns that a shard's `users` has whatever the recipe; `requests.user_row` points here."""

PIN_ROWS = _columns(pin_id=pa.int64(), embedding=EmbeddingType)
"""The columns that the snapshot's pins have whatever the recipe; the rows are sorted by pin_id."""

SHARD_FILES = ("timeline", "requests", "examples", "users")
"""The Arrow files of every shard, without their ending."""

PINS_FILE = "pins.arrow"
"""The one file that all shards share."""

_OF_SHARDS = (TIMELINE, REQUESTS, EXAMPLE_KEYS, USER_ROWS)
KEYS_OF_FILES = {"pins": PIN_ROWS} | dict(zip(SHARD_FILES, _OF_SHARDS, strict=True))
"""The columns that each file of a snapshot has whatever the recipe."""


def snapshot_schema(
    file: str,
    features: FeatureConfig,
    *,
    embedding_dim: int = EMBEDDING_DIM,
    has_pin_times: bool = False,
) -> pa.Schema:
    """Return the columns of one snapshot file of a recipe with these features.

    After the file's own columns come the codes of the categorical features that live in its event
    log table (int16, 0 is an unknown value). `examples` goes on with every number of
    NUMERIC_FEATURES (float32) and the label of every head (int8).

    Args:
        file: one of SHARD_FILES, or 'pins'.
        features: the recipe's features.
        embedding_dim: width of the embeddings of users and pins.
        has_pin_times: the log's pins have PIN_TIME; 'pins' then has it after its own columns.
    """
    table = {"examples": "impressions", "users": "users", "pins": "pins"}.get(file, "")
    keys = [*KEYS_OF_FILES[file], *([PIN_TIME] if file == "pins" and has_pin_times else ())]
    added = {categorical_column(f.name): pa.int16() for f in features.categorical_of(table)}
    if file == "examples":
        for number, *flag in (feature.inputs for feature in features.numeric_held):
            added[numeric_column(number)] = pa.float32()
            added |= {numeric_column(name): pa.int8() for name in flag}
        added |= {label_column(name): pa.int8() for name in features.head_names}
    return with_embedding_dim(pa.schema([*keys, *_columns(**added)]), embedding_dim)


def with_embedding_dim(schema: pa.Schema, embedding_dim: int) -> pa.Schema:
    """Return the schema with embeddings of another width; one without embeddings is unchanged."""
    type_ = pa.list_(pa.float32(), embedding_dim)
    return pa.schema(f.with_type(type_) if f.name == "embedding" else f for f in schema)


def is_known_late(
    known_at_ms: npt.NDArray[np.int64], asked_at_ms: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return which rows a request cannot know: those that were not known strictly before it.

    Args:
        known_at_ms: when rows reached the log, of any shape.
        asked_at_ms: when they are asked for, of the same shape or one that broadcasts.
    """
    return np.asarray(known_at_ms >= asked_at_ms)


def categorical_column(feature_name: str) -> str:
    """Return the column that holds a categorical feature's codes (int16, 0 = unknown value)."""
    return f"cat_{feature_name}"


def numeric_column(feature_name: str) -> str:
    """Return the column of a numeric feature (float32, finite) or of its flag (int8, 0 or 1)."""
    return f"num_{feature_name}"


def label_column(head_name: str) -> str:
    """Return the column that holds a head's label (int8, 0 or 1)."""
    return f"label_{head_name}"
