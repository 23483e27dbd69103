"""Blocks bring a table's rows to their shards as they were, in pieces of bounded size."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.arrow import to_list_column
from pipelines.snapshot.plan import shard_of
from pipelines.snapshot.spark import blocks
from pipelines.snapshot.spark.blocks import BlocksByShard, rows_of

NUM_SHARDS = 3


def users(count: int, width: int = 4) -> pa.Table:
    """Return rows of types that Spark has no like of."""
    schema = pa.schema(
        [
            pa.field("user_id", pa.int64(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), width), nullable=False),
            pa.field("state", pa.int16(), nullable=False),
            pa.field("country", pa.dictionary(pa.int32(), pa.string())),
        ]
    )
    numbers = np.random.default_rng(3).normal(size=(count, width)).astype(np.float32)
    columns = [
        pa.array(np.arange(count)),
        to_list_column(numbers),
        pa.array(np.arange(count) % 5, pa.int16()),
        pa.array(["de", None] * (count // 2)).dictionary_encode(),
    ]
    return pa.table(columns, schema=schema)


def test_rows_come_back_as_they_were() -> None:
    table = users(100)
    sink = BlocksByShard("users", NUM_SHARDS)
    sink.add(table.slice(0, 60))
    sink.add(table.slice(60))
    sent = sink.take_rest()
    shards = shard_of(np.arange(100), NUM_SHARDS)
    for shard in range(NUM_SHARDS):
        rows = rows_of(block for number, block in sent if number == shard)
        assert rows.impressions is None and rows.actions is None and rows.users is not None
        assert rows.users.schema.equals(table.schema, check_metadata=True)
        assert rows.users.equals(table.filter(pa.array(shards == shard)))
    assert sink.take_rest() == []


def test_a_large_table_is_sent_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64 << 10)
    monkeypatch.setattr(blocks, "_BATCH_BYTES", 16 << 10)
    table = users(20_000, width=32)
    sink = BlocksByShard("users", 1)
    sink.add(table)
    full = sink.take_full()
    assert len(full) > 20
    sizes = [len(content) for _, (_, content) in full]
    assert max(sizes) < (64 + 24) << 10
    rows = rows_of(block for _, block in [*full, *sink.take_rest()])
    assert rows.users is not None and rows.users.equals(table)


def test_a_shard_without_rows_has_none() -> None:
    rows = rows_of([])
    assert (rows.impressions, rows.actions, rows.users) == (None, None, None)
