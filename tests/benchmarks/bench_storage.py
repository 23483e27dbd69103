"""Bytes of a snapshot for each candidate, against rows that hold their user's last actions.

The peer is what a log of impressions with features is: one Parquet row for each candidate, with its
labels and numbers and the newest 100 actions that were known (pin, type, time), compressed by zstd.
Embeddings are no part of its rows, and the snapshot's are counted; the note says how many bytes
they are, and what the snapshot's files would take if zstd compressed them too. Where a request's
rows stand together, as they are logged, zstd writes their common lists about once. Rows that are
shuffled, as they are for a training, have them as often as there are rows.
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from record import Row, row
from sample import AS_OF, make_run

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.snapshot_files import open_table
from pipelines.recipes import completejourney
from pipelines.snapshot.build import write_snapshot

NUM_ACTIONS = 100
ROWS_AT_ONCE = 20_000
SEED = 1


def measure() -> list[Row]:
    """Build the sample's snapshot, write the same candidates as rows, and compare the sizes."""
    with tempfile.TemporaryDirectory(prefix="homefeed-bench-") as folder:
        snapshot = write_snapshot(make_run(completejourney(), AS_OF, Path(folder)))
        snapshot_dir = storage.local_path(snapshot.uri)
        embeddings, packed, packed_rest = _parts(snapshot, snapshot_dir)
        together = write_rows(snapshot, snapshot_dir, Path(folder) / "rows", seed=None)
        shuffled = write_rows(snapshot, snapshot_dir, Path(folder) / "shuffled", seed=SEED)
    num = snapshot.num_examples
    told = (
        f"Embeddings, which the rows lack, are {embeddings / num:.0f} of the bytes. Compressed by "
        f"zstd the snapshot would take {packed / num:.0f}, without embeddings "
        f"{packed_rest / num:.0f}, which is {shuffled / packed_rest:.1f} times smaller than the "
        f"shuffled rows and {together / packed_rest:.1f} times than those as logged."
    )
    own = sum(file.num_bytes for file in snapshot.files)
    return [
        _row("snapshot_bytes_vs_impression_rows", "shuffled", own, shuffled, num, told),
        _row("snapshot_bytes_vs_rows_as_logged", "as logged", own, together, num, told),
    ]


def _parts(snapshot: Snapshot, snapshot_dir: Path) -> tuple[int, int, int]:
    """Return the bytes of embeddings; of all files, compressed; and of these without embeddings."""
    embeddings, packed, packed_rest = 0, 0, 0
    for file in snapshot.files:
        table = open_table(snapshot_dir, file.path)
        rest = table
        if "embedding" in table.column_names:
            embeddings += table["embedding"].nbytes
            rest = table.drop_columns(["embedding"])
        packed += _compressed(table)
        packed_rest += _compressed(rest)
    return embeddings, packed, packed_rest


def _compressed(table: pa.Table) -> int:
    sink, options = pa.BufferOutputStream(), pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return int(sink.getvalue().size)


def _row(name: str, order: str, own: int, peer: int, num: int, told: str) -> Row:
    return row(
        name,
        own / num,
        "bytes per candidate",
        ratio=peer / own,
        peer=f"Parquet rows {order} with the last {NUM_ACTIONS} actions, zstd, {peer / num:,.0f} "
        f"bytes",
        spread="one size",
        rows=num,
        seed=str(SEED),
        note=f"The ratio says how many times smaller the snapshot is; below 1 it is larger. Its "
        f"files are not compressed, because they are mapped into memory. {told}",
    )


def write_rows(snapshot: Snapshot, snapshot_dir: Path, out: Path, seed: int | None) -> int:
    """Write one Parquet file for each shard, shuffled where a seed is given; return all bytes."""
    out.mkdir()
    rng = np.random.default_rng(seed)
    pin_id = np.asarray(open_table(snapshot_dir, "pins.arrow")["pin_id"])
    for shard in snapshot.shards:
        timeline, requests, examples = (
            open_table(snapshot_dir, f"{shard.name}/{name}.arrow")
            for name in ("timeline", "requests", "examples")
        )
        owner, order = _request_of_example(requests), np.arange(len(examples))
        order = order if seed is None else rng.permutation(order)
        writer = None
        for start in range(0, len(examples), ROWS_AT_ONCE):
            part = order[start : start + ROWS_AT_ONCE]
            batch = _batch(timeline, requests.take(owner[part]), examples.take(part), pin_id)
            writer = writer or pq.ParquetWriter(
                out / f"{shard.name}.parquet", batch.schema, compression="zstd"
            )
            writer.write_table(batch)
        if writer is not None:
            writer.close()
    return sum(path.stat().st_size for path in out.iterdir())


def _request_of_example(requests: pa.Table) -> np.ndarray:
    """Return the request of each example; a shard's examples stand in the order of its requests."""
    sizes = np.asarray(requests["num_examples"])
    first = np.asarray(requests["first_example"])
    assert (first == np.cumsum(sizes) - sizes).all()
    return np.repeat(np.arange(len(requests)), sizes)


def _batch(timeline: pa.Table, asked: pa.Table, examples: pa.Table, pin_id: np.ndarray) -> pa.Table:
    """Return some candidates as rows with the lists of their user's newest known actions."""
    ends = np.asarray(asked["timeline_end"])
    starts = np.maximum(np.asarray(asked["timeline_start"]), ends - NUM_ACTIONS)
    sizes = ends - starts
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - starts, sizes)
    actions = timeline.take(places)
    lists = {
        "actions_pin": pin_id[np.asarray(actions["pin_row"])],
        "actions_type": np.asarray(actions["action_type_id"]),
        "actions_time": np.asarray(actions["acted_at"]),
    }
    columns = {name: asked[name] for name in ("request_id", "user_id", "impressed_at")}
    columns |= {"pin_id": pin_id[np.asarray(examples["pin_row"])]}
    columns |= {name: examples[name] for name in examples.column_names if name != "pin_row"}
    columns |= {
        name: pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
        for name, values in lists.items()
    }
    return pa.table(columns)
