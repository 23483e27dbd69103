"""Built snapshots and planted defects in them, for the tests of the data gate."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import storage
from pipelines.contracts.arrow import to_list_column, to_numpy
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.files import digest_files
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import Window
from support.runs import PLANTED_AS_OF, make_run

Change = Callable[[pa.Table], pa.Table]


def copy_snapshot(snapshot: Snapshot, target: Path) -> tuple[Snapshot, Path]:
    """Copy a local snapshot, so that a test may break it."""
    shutil.copytree(storage.local_path(snapshot.uri), target)
    return snapshot.model_copy(update={"uri": storage.to_uri(target)}), target


def rewrite(snapshot: Snapshot, folder: Path, relative: str, change: Change) -> Snapshot:
    """Change one file and let the manifest agree with the result, as a faulty builder would."""
    table = change(open_table(folder, relative)).combine_chunks()
    scratch = folder / "scratch"
    with pa.OSFile(str(scratch), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    scratch.replace(folder / relative)
    files = tuple(f for f in digest_files(folder) if f.path != "manifest.json")
    return snapshot.model_copy(update={"files": files})


def with_column(name: str, values: Callable[[np.ndarray], Any]) -> Change:
    """Return a change of one column's values; its type stays."""

    def change(table: pa.Table) -> pa.Table:
        index = table.column_names.index(name)
        column = np.asarray(table[name]).copy()
        return table.set_column(
            index, table.schema.field(name), pa.array(values(column), table.schema.field(name).type)
        )

    return change


def with_value(name: str, row: int, value: Any) -> Change:
    """Return a change of one value."""

    def one(column: np.ndarray) -> np.ndarray:
        column[row] = value
        return column

    return with_column(name, one)


def with_embedding(row: int, value: Any) -> Change:
    """Return a change of one embedding, to one number throughout; row -1 means all of them."""

    def one(vectors: np.ndarray) -> np.ndarray:
        vectors[slice(None) if row < 0 else row] = value
        return vectors

    return with_vectors(one)


def with_vectors(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Return a change of all embeddings."""

    def apply(table: pa.Table) -> pa.Table:
        vectors = change(np.array(to_numpy(table["embedding"]))).astype(np.float32)
        index = table.column_names.index("embedding")
        return table.set_column(index, table.schema.field(index), to_list_column(vectors))

    return apply


def drop(column: str) -> Change:
    return lambda table: table.drop_columns([column])


def null(column: str) -> Change:
    return with_column(column, lambda values: [None, *values[1:].tolist()])


def snapshot_of(days: int = 0) -> Snapshot:
    """Return a snapshot without files, of so many days after the planted one."""
    end = PLANTED_AS_OF + timedelta(days=days)
    return Snapshot(
        uri="file:///w/snapshots/abc",
        digest="a" * 64,
        as_of=end,
        training=Window(start=end - timedelta(days=20), end=end - timedelta(days=6)),
        holdout=Window(start=end - timedelta(days=5), end=end),
        embedding_version="v1",
        features=make_run(Path("/w")).config.features,
        shards=(),
        num_pins=7,
        files=(),
        num_duplicate_impressions=0,
        num_immature_impressions=0,
    )
