"""Cosines come out the same to the last bit in any order, within [-1, 1] and in bounded memory."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.snapshot_files import open_table
from pipelines.snapshot.features import similarity
from pipelines.snapshot.features.inputs import FeatureInputs, UnitVectors
from pipelines.snapshot.kernel import order_rows, point
from pipelines.snapshot.shard import PinIndex
from pipelines.storage import local_path
from support.random_log import build, config_of, write_random_log
from support.worlds import embedding_column

NAMES = ("similarity_best", "similarity_mean", "similarity_decayed")


def columns_of(snapshot: Snapshot) -> list[np.ndarray]:
    folder = local_path(snapshot.uri)
    tables = [open_table(folder, f"{s.name}/examples.arrow") for s in snapshot.shards]
    return [np.asarray(table[f"num_{name}"]) for table in tables for name in NAMES]


def requests_of_one_candidate(num_requests: int, num_actions: int, width: int) -> FeatureInputs:
    """Return requests of one user with one candidate each, all after all actions on one pin."""
    nothing = np.zeros(num_requests, dtype=np.int64)
    impressed_at = num_actions + 1 + np.arange(num_requests)
    impressions = {
        "request_id": [f"r{number:06d}" for number in range(num_requests)],
        **{"user_id": nothing, "pin_id": nothing, "position": nothing},
        **{"impressed_at": impressed_at, "known_at": impressed_at},
    }
    times, ones = np.arange(num_actions), np.ones(num_actions, dtype=np.int64)
    actions = {
        **{"user_id": ones * 0, "pin_id": ones, "action_type_id": ones},
        **{"acted_at": times, "known_at": times},
        "request_id": pa.nulls(num_actions, pa.string()),
    }
    vectors = np.zeros((2, width), dtype=np.float32)
    vectors[:, 0] = 3.0
    table = pa.table({"pin_id": [0, 1], "embedding": to_list_column(vectors)})
    pins = PinIndex(np.array([0, 1]), None, np.array([]), table, {})
    ordered = order_rows(pa.table(impressions), pa.table(actions))
    return FeatureInputs(ordered, point(ordered, pins, 0), None, None, pins, None)


def test_the_order_of_the_components_changes_no_bit(tmp_path: Path) -> None:
    write_random_log(tmp_path / "event_log")
    config = config_of(*(NumericFeature(name=name) for name in NAMES))
    first = build(tmp_path, config)
    [path] = (tmp_path / "event_log" / "pins").glob("*.parquet")
    pins = pq.read_table(path)
    turned = embedding_column(np.array(pins["embedding"].to_pylist())[:, ::-1])
    place = pins.schema.get_field_index("embedding")
    pq.write_table(pins.set_column(place, pins.schema.field(place), turned), path)
    second = build(tmp_path, config)
    assert first.digest != second.digest
    for one, other in zip(columns_of(first), columns_of(second), strict=True):
        assert one.tobytes() == other.tobytes()


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


def test_no_pin_is_more_than_alike_to_itself(tmp_path: Path) -> None:
    """A rounded unit vector may be longer than 1, and its cosine with itself is the square."""
    log = write_random_log(tmp_path / "event_log")
    embeddings = np.stack([row["embedding"] for row in log.pins])
    units = UnitVectors.of_pins(embeddings, [np.arange(len(embeddings))]).matrix
    assert (np.square(units).sum(axis=1) > 1).any()
    features = [NumericFeature(name=name, num_actions=1) for name in NAMES]
    for column in columns_of(build(tmp_path, config_of(*features))):
        assert column.max() == 1.0


@pytest.mark.parametrize("compute", [similarity.best, similarity.decayed])
def test_memory_is_bounded_by_the_actions_and_not_by_the_candidates_alone(
    compute: Callable[[FeatureInputs, NumericFeature], np.ndarray],
) -> None:
    """One block of the 400 requests, which have one candidate each, would take 102 MB a copy."""
    num_requests, num_actions, width = 400, 1000, 64
    seen = requests_of_one_candidate(num_requests, num_actions, width)
    name = f"similarity_{compute.__name__}"
    feature = NumericFeature(name=name, num_actions=num_actions)
    tracemalloc.start()
    found = compute(seen, feature)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
    assert found.tolist() == [1.0] * num_requests
