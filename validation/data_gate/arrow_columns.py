"""Snapshot files as numpy columns for the data gate, refused politely where they cannot be read.

Not a general reader: `pipelines.contracts.snapshot_files` opens the files; this module knows which
columns a snapshot of these features must have and hands them out without a copy.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import (
    EMBEDDING_DIM,
    EXAMPLE_KEYS,
    NUMERIC_FEATURES,
    PIN_ROWS,
    REQUESTS,
    TIMELINE,
    USER_ROWS,
    categorical_column,
    label_column,
    numeric_column,
)
from pipelines.contracts.snapshot_files import open_table

SHARD_FILES = ("timeline", "requests", "examples", "users")
PINS_FILE = "pins.arrow"


def expected_schema(file: str, features: FeatureConfig) -> pa.Schema:
    """Return the columns that a snapshot file must have; it may have more.

    Args:
        file: 'timeline', 'requests', 'examples', 'users' or 'pins'.
        features: The snapshot's features; they name the code and label columns.
    """
    if file in ("timeline", "requests"):
        return TIMELINE if file == "timeline" else REQUESTS
    table = {"examples": "impressions", "users": "users", "pins": "pins"}[file]
    keys = {"examples": EXAMPLE_KEYS, "users": USER_ROWS, "pins": PIN_ROWS}[file]
    fields = list(keys)
    fields += [
        pa.field(categorical_column(feature.name), pa.int16())
        for feature in features.categorical_of(table)
    ]
    if file == "examples":
        fields += [pa.field(numeric_column(name), pa.float32()) for name in NUMERIC_FEATURES]
        fields += [pa.field(label_column(name), pa.int8()) for name in features.head_names]
    return pa.schema(fields)


def schema_problems(table: pa.Table, expected: pa.Schema) -> list[str]:
    """Return one phrase per column that is missing or of another type."""
    problems = []
    for wanted in expected:
        if wanted.name not in table.column_names:
            problems.append(f"column {wanted.name} is missing")
        elif table.schema.field(wanted.name).type != wanted.type:
            found = table.schema.field(wanted.name).type
            problems.append(f"column {wanted.name} is {found}, expected {wanted.type}")
    return problems


def read_or_explain(snapshot_dir: Path, relative: str) -> tuple[pa.Table | None, str]:
    """Return a file's table, or None and why it cannot be read."""
    try:
        return open_table(snapshot_dir, relative), ""
    except (DataContractError, pa.ArrowInvalid, OSError) as error:
        return None, f"{relative} cannot be read: {error}"


def numbers(table: pa.Table, column: str) -> NDArray[Any]:
    """Return a numeric or string column without nulls as numpy (rows,)."""
    return np.asarray(table[column])


def embeddings(table: pa.Table, column: str = "embedding") -> NDArray[np.float32]:
    """Return a fixed-size list column as (rows, 32) float32."""
    array = table[column].combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # an empty column combines into no chunk
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    flat = array.values.slice(array.offset * EMBEDDING_DIM, len(array) * EMBEDDING_DIM)
    return np.asarray(flat, dtype=np.float32).reshape(-1, EMBEDDING_DIM)
