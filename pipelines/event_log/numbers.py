"""Number columns of an event log table that a recipe names as features, as float64.

Not for numbers that are computed from events: `pipelines.snapshot.features`.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.contracts.errors import DataContractError


def raw_column(name: str) -> str:
    """Return the column that holds a table's number as it was logged, until the kernel is done."""
    return f"raw_{name}"


def append_numbers(path: str, table: pa.Table, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return the table with a float64 column appended for each number column; NaN is a null.

    Args:
        path: the file that the rows come from, for the message.
        table: what the numbers are appended to, row for row.
        rows: the same rows with the number columns.
        columns: their names.

    Raises:
        DataContractError: a number is infinite, or too large for a feature.
    """
    for name in columns:
        # A cast that may round: an int64 beyond 2**53 is no exact float64, and need not be.
        numbers = rows[name].cast(pa.float64(), safe=False)
        values = np.asarray(numbers.to_numpy())
        with np.errstate(over="ignore"):
            is_bad = np.isinf(values.astype(np.float32))
        if is_bad.any():
            raise DataContractError(
                f"{path}: column {name!r} has {int(is_bad.sum())} numbers that are infinite or too "
                f"large, first {values[is_bad][0]}; expected finite float32 numbers, or null where "
                f"none is known; correct it where the table is written"
            )
        field = pa.field(raw_column(name), pa.float64(), nullable=False)
        table = table.append_column(field, pa.array(values, pa.float64(), from_pandas=False))
    return table
