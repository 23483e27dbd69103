"""In which form rows, summaries and pins travel between the driver and the executors.

Rows go to their shard in blocks of compressed Arrow that are opaque to Spark: its own types know no
fixed-size lists, no dictionaries and no "never null", so a table that passed through them would
come back as another one. Summaries go to the driver, and Spark holds them in its Java process on
the way: they know how often each pin was acted upon on each day and when each appeared, which may
be millions of numbers. So counts of the same pin and days are added up first, and sorted columns
travel as differences, compressed. The pins go to the executors in files of plain numbers, which
are mapped into memory there: all Python processes of an executor share them. Tested in
tests/pipelines/snapshot/spark/test_travel.py.
"""

import copyreg
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.contracts.schemas import PINS_FILE
from pipelines.contracts.snapshot_files import open_table
from pipelines.event_log.event_index import Ints
from pipelines.snapshot.pin_counts import ActionCounts, FirstSeen
from pipelines.snapshot.plan import SnapshotPlan
from pipelines.snapshot.shard import PinIndex
from pipelines.snapshot.spill import SpillSummary

BLOCK_BYTES = 256 << 10
"""About how large a block may grow, compressed. Spark's Python side gathers up to a thousand blocks
of a task before it hands them on."""
_BATCH_BYTES = 1 << 20
"""What is written into a block at a time, not compressed: a block outgrows its size by less."""
_GATHERED_BYTES = 64 << 20
_QUICK = pa.ipc.IpcWriteOptions(compression="lz4")
_SMALL = pa.ipc.IpcWriteOptions(compression="zstd")

Block = tuple[str, bytes]
"""Name of the event log's table, and an Arrow stream of rows of it that are of one shard."""


class BlocksByShard:
    """Gathers rows in blocks for their shards, in place of `spill.HeldRows`."""

    def __init__(self) -> None:
        # By shard, table and schema, which has the width of embeddings.
        self._open: dict[
            tuple[int, str, pa.Schema], tuple[pa.BufferOutputStream, pa.ipc.RecordBatchStreamWriter]
        ] = {}
        self._full: list[tuple[int, Block]] = []

    def put(self, shard: int, table: str, rows: pa.Table) -> None:
        """Write rows to a block of the shard."""
        step, key = max(1, len(rows) * _BATCH_BYTES // max(rows.nbytes, 1)), rows.schema
        for first in range(0, len(rows), step):
            if (shard, table, key) not in self._open:
                stream = pa.BufferOutputStream()
                writer = pa.ipc.new_stream(stream, rows.schema, options=_QUICK)
                self._open[shard, table, key] = (stream, writer)
            stream, writer = self._open[shard, table, key]
            writer.write_table(rows.slice(first, step))
            if stream.tell() >= BLOCK_BYTES:
                self._close((shard, table, key))

    def take(self) -> list[tuple[int, Block]]:
        """Return shards with their blocks, each once."""
        for key in tuple(self._open):
            self._close(key)
        taken, self._full = self._full, []
        return taken

    def _close(self, key: tuple[int, str, pa.Schema]) -> None:
        stream, writer = self._open.pop(key)
        writer.close()
        self._full.append((key[0], (key[1], stream.getvalue().to_pybytes())))


def gathered(blocks: Iterable[Block]) -> Iterator[tuple[str, pa.Table]]:
    """Give tables with their rows, of which blocks bring a few at a time, in no order."""
    parts: dict[tuple[str, pa.Schema], list[pa.Table]] = {}
    sizes: dict[tuple[str, pa.Schema], int] = {}
    for table, content in blocks:
        rows = pa.ipc.open_stream(content).read_all()
        key = table, rows.schema
        parts.setdefault(key, []).append(rows)
        sizes[key] = sizes.get(key, 0) + rows.nbytes
        if sizes[key] > _GATHERED_BYTES:
            yield table, pa.concat_tables(parts.pop(key))
            del sizes[key]
    for (table, _), several in parts.items():
        yield table, pa.concat_tables(several)


def _pack(found: SpillSummary) -> tuple[Any, ...]:
    """Return how a summary is pickled: columns, in which the same pin and days are one row."""
    counted = (ActionCounts.merge(found.wanted_actions), FirstSeen.merge(found.first_seen))
    columns = [_pack_columns([*vars(each).values()]) for each in counted]
    others = (found.num_impressions, found.num_immature_impressions, found.user_widths)
    return _unpack, (_pack_columns([found.pin_ids]), *columns, others)


def _unpack(pin_ids: bytes, wanted: bytes, seen: bytes, others: tuple[Any, ...]) -> SpillSummary:
    wanted_actions = ActionCounts(*_unpack_columns(wanted))
    first_seen = FirstSeen(*_unpack_columns(seen))
    return SpillSummary(_unpack_columns(pin_ids)[0], (wanted_actions,), (first_seen,), *others)


copyreg.pickle(SpillSummary, _pack)


def _pack_columns(columns: Sequence[Ints]) -> bytes:
    steps = [np.diff(each.astype(np.int64), prepend=np.int64(0)) for each in columns]
    table = pa.table(steps, names=[str(number) for number in range(len(steps))])
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema, options=_SMALL) as writer:
        writer.write_table(table)
    return stream.getvalue().to_pybytes()


def _unpack_columns(content: bytes) -> list[Ints]:
    table = pa.ipc.open_stream(content).read_all()
    return [np.cumsum(np.asarray(column), dtype=np.int64) for column in table.columns]


def write_pin_index(index: PinIndex, pins: Path, archive: Path) -> None:
    """Write what the kernel needs of the pins, and their file, into an archive of plain files."""
    arrays: dict[str, Any] = {
        "known_at": index.first_seen,
        **{f"total_{days}": totals for days, totals in index.popularity.items()},
        **{f"number_{place}": each for place, each in enumerate(index.numbers.values())},
    }
    with archive.open("wb") as file:
        np.savez(file, **arrays)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.write(pins, pins.name)


def open_pin_index(folder: Path, plan: SnapshotPlan) -> PinIndex:
    """Return what `write_pin_index` wrote to an archive, which was unpacked into a folder."""

    def load(name: str) -> np.ndarray:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))

    pins = open_table(folder, PINS_FILE)
    columns = plan.number_columns("pins")
    return PinIndex(
        pin_ids=np.asarray(pins["pin_id"]),
        popularity={days: load(f"total_{days}") for days in plan.popularity_windows},
        first_seen=load("known_at"),
        table=pins,
        numbers={name: load(f"number_{place}") for place, name in enumerate(columns)},
    )
