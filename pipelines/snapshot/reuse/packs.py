"""A pack: the checked rows of some files of the event log, by shard, and what was counted in them.

It is one Arrow file of one row, whose lists are mapped and not read. Its name holds a checksum of
its bytes, so a damaged pack is told from a sound one, and a killed writer leaves none. Nothing in
it depends on the windows of a snapshot. Not for which packs there are (`shelf`), nor for what a
snapshot takes of one (`dealing`). Tested in tests/pipelines/snapshot/reuse/test_reuse.py.
"""

import json
import mmap
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.contracts.files import unfinished
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.event_index import (
    Bools,
    Ints,
    least_of,
    order_by,
    runs_of,
)
from pipelines.snapshot.plan import SnapshotPlan, shard_of
from pipelines.snapshot.spill import WholeFiles, is_of_wanted_type

_HEADER = b"pack"

Small = npt.NDArray[np.int32]


class DamagedPackError(Exception):
    """A pack's bytes are not those that were written."""


@dataclass(frozen=True)
class PackedFile:
    """A file of the event log, as it was when its rows were read."""

    path: str  # relative to the log
    state: str  # size and time of writing
    day: int  # days since the epoch
    latest_known: int  # ms; the file has no row that was known later


@dataclass(frozen=True)
class Header:
    """What lies in a pack, told without reading it."""

    table: str
    files: tuple[PackedFile, ...]


@dataclass(frozen=True)
class Pack:
    """The rows of files, and what is counted of them by file. Letters: S shards, F files."""

    header: Header
    num_rows: Ints  # [S, F]
    rows: pa.Table  # by shard, then by file
    seen: tuple[Ints, Small, Ints]  # by pin_id and file: those, and the earliest known_at, ms
    wanted: tuple[Ints, Small, Small, Small]  # pin_id, file, day when known, number of actions


def pack_of(header: Header, whole: WholeFiles, plan: SnapshotPlan) -> Pack:
    """Return the pack of files that were read whole."""
    num_shards, num_files = plan.config.num_shards, len(header.files)
    shard = shard_of(np.asarray(whole.rows["user_id"]), num_shards)
    order = order_by(shard, whole.file)
    counts = np.bincount(shard * num_files + whole.file, minlength=num_shards * num_files)
    pin_id, known_at = (np.asarray(whole.rows[name]) for name in ("pin_id", "known_at"))
    seen_pin, seen_in, seen_at = least_of(pin_id, whole.file, known_at)
    return Pack(
        header=header,
        num_rows=counts.reshape(num_shards, num_files),
        rows=whole.rows.take(pa.array(order)).combine_chunks(),
        seen=(seen_pin, seen_in.astype(np.int32), seen_at),
        wanted=_wanted(header.table, whole, plan),
    )


def _wanted(table: str, whole: WholeFiles, plan: SnapshotPlan) -> tuple[Ints, Small, Small, Small]:
    """Count the actions that make a pin popular; impressions make none."""
    if table != "actions":
        none = np.array([], dtype=np.int32)
        return none.astype(np.int64), none, none, none
    is_wanted = is_of_wanted_type(whole.rows, plan)
    pin_id, known_at = (np.asarray(whole.rows[name])[is_wanted] for name in ("pin_id", "known_at"))
    file, known_day = whole.file[is_wanted], known_at // DAY_MS
    order, first = runs_of(pin_id, file, known_day)
    count = np.diff(first, append=len(order))
    first = order[first]
    in_file, days = file[first].astype(np.int32), known_day[first].astype(np.int32)
    return pin_id[first], in_file, days, count.astype(np.int32)


def where(whole: WholeFiles, is_taken: Bools) -> WholeFiles:
    """Return the rows of some of the files, whose places are counted anew."""
    if is_taken.all():
        return whole
    is_row_taken = is_taken[whole.file]
    places = np.cumsum(is_taken) - 1
    rows = whole.rows.filter(pa.array(is_row_taken))
    return WholeFiles(rows, places[whole.file[is_row_taken]], (True,) * int(is_taken.sum()))


def write_pack(folder: Path, pack: Pack) -> Path:
    """Write a pack into a folder, and return where it lies; the same pack has the same name.

    It is not forced to the disk: after a loss of power its checksum tells whether it is whole.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    lists = {
        "rows": _in_one(pack.rows),
        "num_rows": _in_one(pack.num_rows.ravel()),
        **{f"seen_{n}": _in_one(values) for n, values in enumerate(pack.seen)},
        **{f"wanted_{n}": _in_one(values) for n, values in enumerate(pack.wanted)},
    }
    header = {_HEADER: json.dumps(asdict(pack.header)).encode()}
    table = pa.table(lists).replace_schema_metadata(header)
    with unfinished(folder / "pack") as scratch:
        with pa.ipc.new_file(str(scratch), table.schema) as writer:
            writer.write_table(table)
        path = folder / f"{pack.header.table}-{_checksum(scratch)}.arrow"
        scratch.replace(path)
    return path


def read_header(path: Path) -> Header:
    """Return what lies in a pack; its rows are not looked at.

    Raises:
        DamagedPackError: it cannot be read.
    """
    try:
        metadata = pa.ipc.open_file(pa.memory_map(str(path))).schema.metadata or {}
        found = json.loads(metadata[_HEADER])
        files = tuple(PackedFile(**each) for each in found["files"])
        return Header(found["table"], files)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedPackError(f"{path} is no pack: {error}") from error


def open_pack(path: Path, is_checked: bool = True) -> Pack:
    """Map a pack.

    Args:
        path: Where it lies.
        is_checked: Whether its bytes are compared with the checksum in its name.

    Raises:
        DamagedPackError: its bytes are others than were written, or it is gone.
    """
    try:
        if is_checked and _checksum(path) != path.stem.rpartition("-")[2]:
            raise DamagedPackError(f"{path} has other bytes than were written")
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedPackError(f"{path} cannot be read: {error}") from error
    header = read_header(path)
    seen, wanted = (
        [np.asarray(_out_of_one(table[f"{name}_{n}"])) for n in range(count)]
        for name, count in (("seen", 3), ("wanted", 4))
    )
    rows = pa.RecordBatch.from_struct_array(_out_of_one(table["rows"]))
    return Pack(
        header=header,
        num_rows=np.asarray(_out_of_one(table["num_rows"])).reshape(-1, len(header.files)),
        rows=pa.Table.from_batches([rows]),
        seen=(seen[0], seen[1], seen[2]),
        wanted=(wanted[0], wanted[1], wanted[2], wanted[3]),
    )


def _in_one(values: Ints | pa.Table) -> pa.ListArray:
    """Return a list of one row that holds all values, or all rows of a table, without a copy."""
    if isinstance(values, pa.Table):
        assert all(column.num_chunks == 1 for column in values.columns), "combined before"
        # `combine_chunks` would copy even a single one.
        arrays = [column.chunk(0) for column in values.columns]
        held = pa.StructArray.from_arrays(arrays, fields=list(values.schema))
    else:
        held = pa.array(values)
    return pa.LargeListArray.from_arrays(pa.array([0, len(held)], pa.int64()), held)


def _out_of_one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0).values


def _checksum(path: Path) -> str:
    """Return the CRC-32 of a file, as Parquet has one of its pages; a cache needs no more."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return ""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return f"{zlib.crc32(content):08x}"
