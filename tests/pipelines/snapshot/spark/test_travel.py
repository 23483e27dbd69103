"""What travels to and from Spark's executors arrives as it was, and small. Needs no Spark."""

import dataclasses
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.arrow import to_list_column
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.time import DAY_MS
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.rules import FoundWidth
from pipelines.snapshot.pin_counts import ActionCounts, FirstSeen
from pipelines.snapshot.pins import count_pins
from pipelines.snapshot.plan import WindowCounts, plan_of
from pipelines.snapshot.spark import travel
from pipelines.snapshot.spark.travel import BlocksByShard, gathered, open_pin_index, write_pin_index
from pipelines.snapshot.spill import HeldRows, SpillSummary, deal_out, make_tasks, merge_summaries
from pipelines.storage import to_uri
from support.random_log import AS_OF, config_of, write_random_log

FIRST_DAY = 20_000


def users(count: int, width: int = 4) -> pa.Table:
    """Return rows of types that Spark has no like of."""
    numbers = np.random.default_rng(3).normal(size=(count, width)).astype(np.float32)
    columns = {
        "user_id": pa.array(np.arange(count)),
        "embedding": to_list_column(numbers),
        "country": pa.array(["de", None] * (count // 2)).dictionary_encode(),
    }
    schema = pa.schema([pa.field(n, c.type, nullable=n == "country") for n, c in columns.items()])
    return pa.table(columns, schema=schema)


def test_rows_come_back_as_they_were_in_pieces_of_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of two widths as well: it is the driver who refuses them."""
    monkeypatch.setattr(travel, "BLOCK_BYTES", 64 << 10)
    monkeypatch.setattr(travel, "_BATCH_BYTES", 16 << 10)
    table, small, sink = users(20_000, width=32), users(10), BlocksByShard()
    sink.put(0, "users", table)
    sink.put(2, "users", small.slice(0, 6))
    sink.put(2, "users", small.slice(6))
    sink.put(3, "users", small)
    sink.put(3, "users", users(10, width=8))
    sent = sink.take()
    assert len(sent) > 20
    assert max(len(content) for _, (_, content) in sent) < (64 + 24) << 10
    assert sink.take() == [] and [shard for shard, _ in sent].count(3) == 2
    for shard, expected in ((0, table), (2, small)):
        [(name, rows)] = gathered(block for number, block in sent if number == shard)
        assert name == "users" and rows.schema.equals(expected.schema, check_metadata=True)
        assert rows.equals(expected)
    assert len([*gathered(block for number, block in sent if number == 3)]) == 2
    assert [*gathered([])] == []
    monkeypatch.setattr(travel, "_GATHERED_BYTES", 1 << 20)
    parts = [rows for _, rows in gathered(block for number, block in sent if number == 0)]
    assert len(parts) > 2 and pa.concat_tables(parts).equals(table)


def summary(seed: int, count: int = 5_000) -> SpillSummary:
    rng = np.random.default_rng(seed)
    pin_id = rng.integers(0, 2**62, 50)[rng.integers(0, 50, count)]
    acted_at = FIRST_DAY * DAY_MS + rng.integers(0, 3 * DAY_MS, count)
    known_at = acted_at + rng.integers(0, DAY_MS, count)
    return SpillSummary(
        pin_ids=np.unique(pin_id),
        wanted_actions=(ActionCounts.of(pin_id, acted_at, known_at),),
        first_seen=(FirstSeen.of(pin_id, acted_at, known_at),),
        num_impressions=WindowCounts(3, seed),
        num_immature_impressions=seed,
        user_widths=(FoundWidth("users/part-0.parquet", "user_id=1", 8),),
    )


@pytest.mark.parametrize(
    "expected", [summary(1), SpillSummary(), merge_summaries([summary(2), summary(3)])]
)
def test_a_summary_says_afterwards_what_it_said_before(expected: SpillSummary) -> None:
    found = pickle.loads(pickle.dumps(expected))
    for name in ("pin_ids", "num_impressions", "num_immature_impressions", "user_widths"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    for name, rows in (("wanted_actions", ActionCounts), ("first_seen", FirstSeen)):
        [once] = getattr(found, name)
        for column, values in vars(rows.merge(getattr(expected, name))).items():
            assert np.array_equal(vars(once)[column], values), (name, column)


def test_it_travels_in_a_fraction_of_its_size() -> None:
    rng = np.random.default_rng(5)
    pin_id = np.repeat(np.sort(rng.choice(10**9, 20_000, replace=False)), 30)
    known_at = FIRST_DAY * DAY_MS + np.tile(np.arange(30), 20_000) * DAY_MS
    known_at += rng.integers(0, DAY_MS, len(pin_id))
    seen = FirstSeen.of(pin_id, known_at, known_at)
    size = sum(values.nbytes for values in vars(seen).values())
    assert len(pickle.dumps(SpillSummary(first_seen=(seen,)))) < size / 4


@pytest.mark.parametrize("are_counted", [True, False])
def test_the_pins_arrive_as_they_were(tmp_path: Path, are_counted: bool) -> None:
    """Also where nobody acted on any pin, so that nothing was counted."""
    write_random_log(tmp_path / "event_log")
    plan = plan_of(config_of(NumericFeature(name="pins.created_at")), AS_OF)
    log, held = open_event_log(to_uri(tmp_path / "event_log")), HeldRows(tmp_path, 1 << 30)
    found = merge_summaries([deal_out(task, held.keep) for task in make_tasks(log, plan)])
    if not are_counted:
        found = dataclasses.replace(found, wanted_actions=(), first_seen=())
    index = count_pins(log, found, plan, tmp_path)
    write_pin_index(index, tmp_path / "pins.arrow", tmp_path / "all.zip")
    shutil.unpack_archive(tmp_path / "all.zip", tmp_path / "unpacked")
    again = open_pin_index(tmp_path / "unpacked", plan)
    assert again.table.equals(index.table)
    one, other = (
        {
            "pins": each.pin_ids,
            "known_at": each.first_seen,
            **each.numbers,
            **each.popularity,
        }
        for each in (index, again)
    )
    for name, values in one.items():
        np.testing.assert_array_equal(other[name], values, err_msg=str(name))
    assert all(totals.any() == are_counted for totals in index.popularity.values())
