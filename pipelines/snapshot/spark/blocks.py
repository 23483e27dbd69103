"""The form in which rows travel to their shard: blocks of compressed Arrow, opaque to Spark.

Spark's own types know no fixed-size lists, no dictionaries and no "never null", so a table that
passed through them would come back as another one. A block comes back as it was. Tested in
tests/pipelines/snapshot/spark/test_blocks.py.
"""

from collections.abc import Iterable

import pyarrow as pa

from pipelines.snapshot.rows import DealtRows
from pipelines.snapshot.shard import ShardRows

BLOCK_BYTES = 256 << 10
"""About how large a block may grow, compressed. Spark's Python side gathers up to a thousand blocks
of a task before it hands them on."""
_BATCH_BYTES = 1 << 20
"""What is written into a block at a time, not compressed: a block outgrows its size by less."""
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")

Block = tuple[str, bytes]
"""Name of the event log's table, and an Arrow stream of rows of it that are of one shard."""


class BlocksByShard(DealtRows):
    """A sink that gathers the rows of one table in blocks for their shards."""

    def __init__(self, table: str, num_shards: int) -> None:
        super().__init__(num_shards)
        self._table = table
        self._open: dict[int, tuple[pa.BufferOutputStream, pa.ipc.RecordBatchStreamWriter]] = {}
        self._full: list[tuple[int, Block]] = []

    def put(self, shard: int, rows: pa.Table) -> None:
        """Write rows to the shard's block."""
        step = max(1, len(rows) * _BATCH_BYTES // max(rows.nbytes, 1))
        for first in range(0, len(rows), step):
            if shard not in self._open:
                stream = pa.BufferOutputStream()
                writer = pa.ipc.new_stream(stream, rows.schema, options=_OPTIONS)
                self._open[shard] = (stream, writer)
            stream, writer = self._open[shard]
            writer.write_table(rows.slice(first, step))
            if stream.tell() >= BLOCK_BYTES:
                self._close(shard)

    def take_full(self) -> list[tuple[int, Block]]:
        """Return shards with their blocks that have reached their size, each once."""
        taken, self._full = self._full, []
        return taken

    def take_rest(self) -> list[tuple[int, Block]]:
        """Return shards with all the other blocks."""
        for shard in tuple(self._open):
            self._close(shard)
        return self.take_full()

    def _close(self, shard: int) -> None:
        stream, writer = self._open.pop(shard)
        writer.close()
        self._full.append((shard, (self._table, stream.getvalue().to_pybytes())))


def rows_of(blocks: Iterable[Block]) -> ShardRows:
    """Return a shard's rows, whose blocks come in any order."""
    parts: dict[str, list[pa.Table]] = {"impressions": [], "actions": [], "users": []}
    for table, content in blocks:
        parts[table].append(pa.ipc.open_stream(content).read_all())
    return ShardRows(**{table: _together(found) for table, found in parts.items()})


def _together(parts: list[pa.Table]) -> pa.Table | None:
    return pa.concat_tables(parts) if parts else None
