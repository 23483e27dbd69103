"""Columns of a snapshot file for the data gate: as numpy, and whether they are the contract's.

Not for what a file must hold (`pipelines.contracts.schemas`) nor for opening one
(`pipelines.contracts.snapshot_files`). Tested in tests/validation/data_gate/test_shard_checks.py.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def schema_problems(table: pa.Table, expected: pa.Schema) -> list[str]:
    """Return one phrase for each column that is missing or of another type."""
    problems = []
    for wanted in expected:
        if wanted.name not in table.column_names:
            problems.append(f"column {wanted.name} is missing")
        elif table.schema.field(wanted.name).type != wanted.type:
            found = table.schema.field(wanted.name).type
            problems.append(f"column {wanted.name} is {found}, expected {wanted.type}")
    return problems


def numbers(table: pa.Table, column: str) -> NDArray[Any]:
    """Return a numeric or string column without nulls as numpy (rows,)."""
    return np.asarray(table[column])
