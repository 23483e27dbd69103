"""Arrow tables from columns, and Arrow files from tables, byte for byte the same each time.

Not for reading: `pipelines.contracts.snapshot_files`.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.schemas import EMBEDDING_DIM


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write an Arrow IPC file: uncompressed, one record batch, the same bytes for equal tables.

    Raises:
        ConfigurationError: the table is too large for one batch.
    """
    batches = table.combine_chunks().to_batches()
    if len(batches) > 1:
        raise ConfigurationError(
            f"{path.name} does not fit one record batch (more than 2 GiB of text in a column); "
            f"expected less; raise snapshot.num_shards in the recipe"
        )
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_batch(
            batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
        )


def embeddings_of(rows: npt.NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Return [n, 32] numbers as an Arrow column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), EMBEDDING_DIM)


def table_of(schema: pa.Schema, *columns: npt.NDArray | pa.Array) -> pa.Table:  # type: ignore[type-arg]
    """Return a table of the schema from columns in its order, cast without loss."""
    arrays = [
        (column if isinstance(column, pa.Array) else pa.array(column)).cast(field.type)
        for field, column in zip(schema, columns, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def field_of(name: str, type_: pa.DataType) -> pa.Field:
    """Return a field without nulls."""
    return pa.field(name, type_, nullable=False)
