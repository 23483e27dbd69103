"""Categorical features of an event log table: the columns to read, and their texts as codes.

Not for numbers that are computed from events: `pipelines.snapshot.features`.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.features.categorical import CategoricalFeature
from pipelines.contracts.schemas import categorical_column


def extra_columns(schema: pa.Schema, features: Sequence[CategoricalFeature]) -> tuple[str, ...]:
    """Return the features' columns that a table has beyond its schema."""
    return tuple(feature.name for feature in features if feature.name not in schema.names)


def append_codes(
    table: pa.Table, rows: pa.Table, features: Sequence[CategoricalFeature]
) -> pa.Table:
    """Return the table with a column of int16 codes appended for each feature.

    A code is the position of the value in the feature's list + 1; a null and a value that is not
    listed have 0.

    Args:
        table: what the codes are appended to, row for row.
        rows: the same rows with the features' texts.
        features: the categorical features of the rows' event log table.
    """
    for feature in features:
        text = rows[feature.name].cast(pa.string())
        index = pc.index_in(text, value_set=pa.array(feature.values, pa.string()))
        codes = pc.add(pc.fill_null(index, -1), 1).cast(pa.int16())
        field = pa.field(categorical_column(feature.name), pa.int16(), nullable=False)
        table = table.append_column(field, codes)
    return table
