"""Positions of impressions that were given without: a request's rows are counted as one.

The rows of a request may come in several batches, on both sides of midnight, and among more others
than fit into memory. So they are brought together by a hash of their request first. Not for rows of
a request that are in the log already: these are not read again.
"""

import numpy as np
import pyarrow as pa

from pipelines.contracts.errors import DataContractError
from pipelines.event_log.event_index import place_in_run
from pipelines.sources.writer.identifiers import id_of
from pipelines.sources.writer.runs import Runs

_LARGEST_POSITION = (1 << 15) - 1
_KEY = "hash of request_id"


def with_positions(runs: Runs, max_rows: int) -> Runs:
    """Return impressions in which each row has a position.

    Args:
        runs: settled impressions by impressed_at; they are taken over.
        max_rows: how many of them may be in memory.

    Raises:
        DataContractError: a request has more rows than positions.
    """
    if runs.num_nulls("position") == 0:
        return runs
    by_request = Runs(runs.folder / "by_request", _KEY)
    whole = runs.whole()
    for keys in runs.slices(whole, max_rows) if whole else ():
        rows = runs.read(keys)
        in_order = np.argsort(np.asarray(rows["impressed_at"]), kind="stable")
        rows = rows.take(pa.array(in_order))
        by_request.add(rows.append_column(_KEY, _hashes(rows["request_id"])))
    by_request.settle()
    runs.discard()
    numbered = Runs(runs.folder / "numbered", "impressed_at")
    whole = by_request.whole()
    for keys in by_request.slices(whole, max_rows) if whole else ():
        numbered.add(_numbered(by_request.read(keys).drop_columns(_KEY)))
    numbered.settle()
    by_request.discard()
    return numbered


def _hashes(requests: pa.ChunkedArray) -> pa.Array:
    encoded = requests.combine_chunks().dictionary_encode()
    hashes = pa.array([id_of(name) for name in encoded.dictionary.to_pylist()], pa.int64())
    return hashes.take(encoded.indices)


def _numbered(rows: pa.Table) -> pa.Table:
    """Number the rows of each request that have no position; the rows are in order of time."""
    position = rows["position"]
    is_missing = np.asarray(position.is_null())
    request = np.asarray(rows["request_id"].combine_chunks().dictionary_encode().indices)
    order = np.argsort(request, kind="stable")
    counted = np.empty(len(rows), dtype=np.int64)
    counted[order] = place_in_run(request[order])
    if counted[is_missing].max(initial=0) > _LARGEST_POSITION:
        row = int(np.where(is_missing, counted, 0).argmax())
        raise DataContractError(
            f"impressions: request {rows['request_id'][row].as_py()!r} has more than "
            f"{_LARGEST_POSITION:,} rows; expected one request_id for each page that was shown; "
            f"make request_id unique"
        )
    filled = np.where(is_missing, counted, np.asarray(position.fill_null(0)))
    place = rows.schema.get_field_index("position")
    return rows.set_column(place, rows.schema.field(place), pa.array(filled, pa.int16()))
