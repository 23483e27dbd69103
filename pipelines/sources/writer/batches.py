"""Batches as people have them (pandas, polars, Arrow, numpy) as Arrow tables of bounded size.

Whatever has `__arrow_c_stream__` is read through it, so that no such library is imported here.
`Problems` gathers all that is wrong with a batch. Not for what the columns mean:
`pipelines.sources.writer.columns`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.errors import DataContractError

MAX_BYTES = 128 << 20
"""Rows of a larger table are taken in several parts, so that memory stays bounded."""
_INDEX = "__index_level_"
"""How pandas names the columns that it makes of an index; an index is no column of the log."""
_MOST_SHOWN = 12


class Problems:
    """What was found wrong with one batch so far.

    Args:
        place: what to call the batch, such as 'impressions, batch 3'.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._found: list[str] = []

    def add(self, problem: str) -> None:
        """Note a problem: what was found, what was expected, what to change."""
        self._found.append(problem)

    def add_rows(
        self,
        column: str,
        is_bad: npt.NDArray[np.bool_],
        values: Any,
        expected: str,
        show: Callable[[Any], str] = repr,
    ) -> bool:
        """Note the rows that are marked, if any, by the first of them; return whether there are.

        Args:
            column: its name.
            is_bad: one mark per row.
            values: the column's values, for the message.
            expected: what was expected, and what to change.
            show: makes the text of a value.
        """
        if not is_bad.any():
            return False
        row = int(np.flatnonzero(is_bad)[0])
        self.add(
            f"column {column!r} is {show(values[row].as_py())} in row {row} ({int(is_bad.sum())} "
            f"such rows); expected {expected}"
        )
        return True

    def note(self, check: Callable[..., Any], *args: Any) -> Any:
        """Return what a check of the reader returns, or None and note what it raises."""
        try:
            return check(*args)
        except DataContractError as error:
            self.add(str(error).removeprefix(f"{self.place}: "))
            return None

    def refuse(self) -> None:
        """Raise for what was noted, if anything was.

        Raises:
            DataContractError: it names every problem; nothing of the batch is written.
        """
        if not self._found:
            return
        if len(self._found) == 1:
            raise DataContractError(f"{self.place}: {self._found[0]}")
        shown = self._found[:_MOST_SHOWN]
        text = " ".join(f"({number}) {problem}." for number, problem in enumerate(shown, 1))
        rest = len(self._found) - len(shown)
        more = f" And {rest} more." if rest else ""
        raise DataContractError(f"{self.place}: {len(self._found)} problems. {text}{more}")


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
    elif isinstance(batch, Mapping):
        is_matrix = {name: getattr(values, "ndim", 1) == 2 for name, values in batch.items()}
        yield pa.table(
            {
                name: to_list_column(np.ascontiguousarray(values)) if is_matrix[name] else values
                for name, values in batch.items()
            }
        )
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
