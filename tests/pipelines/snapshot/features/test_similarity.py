"""Cosines come out the same to the last bit, in whatever order products are added."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.snapshot_files import open_table
from pipelines.snapshot.features.vectors import UnitVectors
from pipelines.storage import local_path
from support.random_log import build, config_of, write_random_log
from support.worlds import embedding_column

NAMES = ("similarity_best", "similarity_mean", "similarity_decayed")


def cosines(snapshot: Snapshot) -> list[bytes]:
    folder = local_path(snapshot.uri)
    tables = [open_table(folder, f"{s.name}/examples.arrow") for s in snapshot.shards]
    return [np.asarray(table[f"num_{name}"]).tobytes() for table in tables for name in NAMES]


def test_the_order_of_the_components_changes_no_bit(tmp_path: Path) -> None:
    write_random_log(tmp_path / "event_log")
    config = config_of(*(NumericFeature(name=name) for name in NAMES))
    first = build(tmp_path, config)
    [path] = (tmp_path / "event_log" / "pins").glob("*.parquet")
    pins = pq.read_table(path)
    index = pins.schema.get_field_index("embedding")
    turned = np.array(pins["embedding"].to_pylist())[:, ::-1]
    field = pins.schema.field(index)
    pq.write_table(pins.set_column(index, field, embedding_column(turned)), path)
    second = build(tmp_path, config)
    assert first.digest != second.digest
    assert cosines(first) == cosines(second)


def test_unit_vectors_are_short_binary_fractions() -> None:
    rng = np.random.default_rng(4)
    embedding = rng.normal(size=(6, 32)).astype(np.float32)
    embedding[2] = 0
    units = UnitVectors.of_pins(embedding, [np.array([5, 1]), np.array([2])])
    assert units.matrix.shape == (3, 32)
    found = units.of(np.array([1, 2, 5]))
    assert (found * 2048 == np.round(found * 2048)).all()
    exact = embedding[[1, 5]] / np.linalg.norm(embedding[[1, 5]], axis=1, keepdims=True)
    assert np.abs(found[[0, 2]] - exact).max() <= 1 / 4096 + 1e-6
    assert not found[1].any()
