"""Snapshot files for the data gate, with a phrase for everything that is wrong with one.

Not for what a file must hold (`pipelines.contracts.schemas`) nor for opening sound ones
(`pipelines.contracts.snapshot_files`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.contracts.errors import DataContractError
from pipelines.contracts.snapshot_files import open_table


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


def read_or_explain(snapshot_dir: Path, relative: str) -> tuple[pa.Table | None, str]:
    """Return a file's table, or None and why it cannot be read."""
    try:
        return open_table(snapshot_dir, relative), ""
    except (DataContractError, pa.ArrowInvalid, OSError) as error:
        return None, f"{relative} cannot be read: {error}"


def numbers(table: pa.Table, column: str) -> NDArray[Any]:
    """Return a numeric or string column without nulls as numpy (rows,)."""
    return np.asarray(table[column])
