"""Batches as people have them (pandas, polars, Arrow, numpy) as Arrow tables of bounded size.

Whatever has `__arrow_c_stream__` is read through it, so that no such library is imported here. Not
for what the columns mean: `pipelines.sources.writer.columns`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import DataContractError

MAX_BYTES = 128 << 20
"""Rows of a larger table are taken in several parts, so that memory stays bounded."""
_INDEX = "__index_level_"
"""How pandas names the columns that it makes of an index; an index is no column of the log."""


def tables_of(batch: Any, place: str) -> Iterator[pa.Table]:
    """Yield the rows of a batch in order, as tables of about MAX_BYTES at most.

    Args:
        batch: a pandas or polars DataFrame, an Arrow table, record batch or reader, or a mapping
            from column names to arrays, of which a two-dimensional one holds a list per row.
        place: what to call the batch in a message.

    Raises:
        DataContractError: it is none of these, or one of its columns has no single type.
    """
    try:
        for given in _arrow_tables(batch, place):
            names = enumerate(given.column_names)
            columns = [place for place, name in names if not name.startswith(_INDEX)]
            table = given.select(columns).replace_schema_metadata(None)
            step = max(1, len(table) * MAX_BYTES // max(1, table.nbytes))
            for start in range(0, len(table), step):
                yield table.slice(start, step)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataContractError(
            f"{place} cannot be read as an Arrow table: {error}; expected one type in each column, "
            f"as in a column of ids that are all integers or all strings; cast the column that "
            f"mixes them"
        ) from error


def _arrow_tables(batch: Any, place: str) -> Iterator[pa.Table]:
    if isinstance(batch, pa.Table):
        yield batch
    elif isinstance(batch, pa.RecordBatch):
        yield pa.Table.from_batches([batch])
    elif isinstance(batch, Mapping):
        yield pa.table({name: _column(values) for name, values in batch.items()})
    elif hasattr(batch, "__arrow_c_stream__"):
        for part in pa.RecordBatchReader.from_stream(batch):
            yield pa.Table.from_batches([part])
    elif hasattr(batch, "__arrow_c_array__"):
        yield pa.Table.from_batches([pa.record_batch(batch)])
    else:
        raise DataContractError(
            f"{place} is a {type(batch).__name__}; expected a pandas or polars DataFrame, an Arrow "
            f"table, record batch or reader, or a dictionary of columns; give it as one of these"
        )


def _column(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return to_list_column(np.ascontiguousarray(values))
    return values
