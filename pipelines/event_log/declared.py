"""The columns of an event log table that a recipe declares as features: texts, and numbers.

Not for numbers that are computed from events: `pipelines.snapshot.features`. Tested in
tests/pipelines/event_log/test_declared.py.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.schemas import categorical_column
from pipelines.event_log.rules import number_problems, numbers_of, require_none


def extra_columns(schema: pa.Schema, features: Sequence[CategoricalFeature]) -> tuple[str, ...]:
    """Return the features' columns that a table has beyond its schema."""
    return tuple(feature.name for feature in features if feature.name not in schema.names)


def append_codes(
    table: pa.Table, rows: pa.Table, features: Sequence[CategoricalFeature]
) -> pa.Table:
    """Return the table with a column of int16 codes appended for each feature of its rows' texts.

    A code is the position of the value in the feature's list + 1; a null and a value that is not
    listed have 0.
    """
    for feature in features:
        codes = pa.array(positions(rows[feature.name], feature.values) + 1).cast(pa.int16())
        field = pa.field(categorical_column(feature.name), pa.int16(), nullable=False)
        table = table.append_column(field, codes)
    return table


def positions(texts: pa.ChunkedArray, values: Sequence[str]) -> npt.NDArray[np.int32]:
    """Return the position of each text among some values; -1 for a null, or where it is not there.

    The texts of a dictionary are looked up once each.
    """

    def among(each: pa.Array) -> npt.NDArray[np.int32]:
        places = pc.index_in(each.cast(pa.string()), value_set=pa.array(values, pa.string()))
        return np.asarray(pc.fill_null(places, -1))

    found = [np.array([], dtype=np.int32)]
    for chunk in texts.chunks:
        if isinstance(chunk, pa.DictionaryArray):
            places = among(chunk.dictionary)
            # The last one is of null.
            codes = np.asarray(pc.fill_null(chunk.indices, len(places)))
            found.append(np.append(places, np.int32(-1))[codes])
        else:
            found.append(among(chunk))
    return np.concatenate(found) if len(found) != 2 else found[1]


def raw_column(name: str) -> str:
    """Return the column that holds a table's number as it was logged, until the kernel is done."""
    return f"raw_{name}"


def append_numbers(path: str, table: pa.Table, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return the table with a float64 column appended for each number column; NaN is a null.

    The rows come from the file at `path` and are those of the table.

    Raises:
        DataContractError: a number is infinite, or too large for a feature.
    """
    require_none(number_problems(path, rows, columns))
    for name in columns:
        field = pa.field(raw_column(name), pa.float64(), nullable=False)
        values = pa.array(numbers_of(rows[name]), pa.float64(), from_pandas=False)
        table = table.append_column(field, values)
    return table
