"""Ids of users and pins: integers as they are, names as 64-bit hashes of them.

A name's id is the BLAKE2b digest of its UTF-8 bytes, 8 bytes long, read as a signed integer with
the most significant byte first: the same on every machine, for ever. The names are kept beside the
log, so that two names with one id are found out. Not for the texts of requests.
"""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.event_log.record import IdKind
from pipelines.sources.writer.batches import Problems

NAMES_SCHEMA = pa.schema(
    [pa.field("id", pa.int64(), nullable=False), pa.field("name", pa.string(), nullable=False)]
)
"""Columns of the tables below names/."""


def id_of(name: str) -> int:
    """Return the id of a name, in [-2^63, 2^63)."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def is_text(type_: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's for text, a dictionary of texts included."""
    if isinstance(type_, pa.DictionaryType):
        return is_text(type_.value_type)
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(type_) for is_kind in kinds)


def to_ids(
    name: str, column: pa.ChunkedArray, before: IdKind | None, problems: Problems
) -> tuple[pa.ChunkedArray, pa.Table, IdKind] | None:
    """Return ids as int64, the names that they were made from (NAMES_SCHEMA), and their kind.

    Args:
        name: 'user_id' or 'pin_id'.
        column: integers or texts, without nulls.
        before: the kind of this log's ids so far; None where it has none.
        problems: receives what is wrong; then None is returned.
    """
    kind: IdKind = "string" if is_text(column.type) else "integer"
    if kind == "integer" and not pa.types.is_integer(column.type):
        problems.add(
            f"column {name!r} is {column.type}; expected integers or strings; cast it, and leave "
            f"out rows without an id (they turn integers into floats in pandas)"
        )
        return None
    if before not in (None, kind):
        problems.add(
            f"column {name!r} has {kind} ids, and this log has {before} ids there; expected one "
            f"kind in a log, because the same user or pin would have two ids; give "
            f"{'texts' if before == 'string' else 'integers'}, or write a log of its own"
        )
        return None
    if kind == "integer":
        if pa.types.is_uint64(column.type):
            is_large = np.asarray(column) > np.uint64((1 << 63) - 1)
            expected = "less than 2^63; give such ids as strings"
            if problems.add_rows(name, is_large, column, expected):
                return None
        return column.cast(pa.int64()), NAMES_SCHEMA.empty_table(), kind
    encoded = pc.dictionary_encode(column.cast(pa.string()).combine_chunks())
    ids = pa.array([id_of(text) for text in encoded.dictionary.to_pylist()], pa.int64())
    names = pa.table([ids, encoded.dictionary], schema=NAMES_SCHEMA)
    return pa.chunked_array([ids.take(encoded.indices)]), names, kind
