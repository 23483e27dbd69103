"""Pins: what a request may know of them, zeros where that came no earlier, and which are shown."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import CategoricalFeature
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING
from pipelines.storage import local_path
from support.tiny_log import build_tiny, tiny_config, with_pin_times, write_tiny_log
from training.data.batches import Batch
from training.data.reader import SnapshotReader, load_rows, pins_shown
from validation.data_gate.snapshot_profile import profile_snapshot

KNOWN = {10: "01 00:00", 20: "16 11:59:59.999", 30: "18 00:00", 40: "16 00:00"}
"""Pin 20 becomes known in the millisecond before request B, and pin 30 in the one of request C."""


def build(folder: Path, known: dict[int, str]) -> Snapshot:
    write_tiny_log(folder / "event_log")
    with_pin_times(folder / "event_log", known)
    path = folder / "event_log" / "pins" / "part-0.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.append_column("tone", [["red"] * len(rows)]), path)
    tone, config = {"name": "tone", "table": "pins", "values": ("blue", "red")}, tiny_config()
    features = config.features.model_copy(update={"categorical": (CategoricalFeature(**tone),)})
    return build_tiny(folder, config.model_copy(update={"features": features}))


def batch_of(snapshot: Snapshot, split: int) -> tuple[list[str], Batch]:
    reader = SnapshotReader(snapshot.shards, local_path(snapshot.uri), snapshot.features, 10)
    index = reader.index(split)
    return reader.request_column(index, "request_id").tolist(), reader.make_batch(index)


def test_an_embedding_that_did_not_come_before_the_request_is_zero_to_it(tmp_path: Path) -> None:
    snapshot = build(tmp_path, KNOWN)
    requests, batch = batch_of(snapshot, SPLIT_TRAINING)
    assert requests == ["A", "B"]
    first = (batch.candidate_pins_CE[:, 0] * 100).round().int().tolist()
    assert first == [10, 0, 20, 0]  # A shows 10 and 20, B shows 20 and 30
    assert batch.categorical_CG[:, 0].tolist() == [2, 0, 2, 0]
    assert not batch.candidate_pins_CE[1].any()
    # A's sequence is the click on 40, B's is the repin of 20.
    assert (batch.action_pins_RSE[:, 0, 0] * 100).round().int().tolist() == [0, 20]

    requests, batch = batch_of(snapshot, SPLIT_HOLDOUT)
    assert requests == ["C", "D"]
    first = (batch.candidate_pins_CE[:, 0] * 100).round().int().tolist()
    assert first == [10, 0, 20, 10]  # C shows 10 and 30, D shows 20 and 10
    assert (batch.action_pins_RSE[0, :3, 0] * 100).round().int().tolist() == [20, 10, 40]
    # The pin itself is known: who acted on which pin does not depend on its embedding.
    assert (batch.candidate_pin_keys_C >= 0).all()


def test_the_data_gate_counts_them_as_embeddings_of_zeros(tmp_path: Path) -> None:
    snapshot = build(tmp_path, KNOWN)
    profile = profile_snapshot(snapshot, local_path(snapshot.uri))
    assert profile.measures.zero_embeddings == 3  # 20 in A, 30 in B and in C
    assert profile.measures.examples.sum() == 8
    assert not profile.pins.has("schema", "no_nulls", "pin_embeddings_finite")
    early = build(tmp_path / "early", dict.fromkeys(KNOWN, "01 00:00"))
    assert profile_snapshot(early, local_path(early.uri)).measures.zero_embeddings == 0


def test_the_pins_of_a_split_are_those_of_all_its_requests(planted) -> None:
    place = planted.snapshot, planted.folder, SPLIT_TRAINING
    shown = pins_shown(*place)
    assert (shown == np.unique(load_rows(*place).pin_row)).all()
    assert len(shown) > len(np.unique(load_rows(*place, max_examples=100).pin_row))
