"""Rows between the passes: in memory while they fit, in files beyond, and the same snapshot."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.snapshot import pool
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.pool import memory_budget_bytes, workers_that_fit
from pipelines.snapshot.spill import HeldRows
from support.random_log import AS_OF, config_of, write_random_log
from support.runs import make_run


def rows_of(*user_ids: int) -> pa.Table:
    return pa.table({"user_id": pa.array(user_ids, pa.int64())})


def test_rows_are_kept_until_memory_is_full(tmp_path: Path) -> None:
    held = HeldRows(tmp_path, num_shards=2, memory_bytes=20)
    assert held.keep(0, "actions", rows_of(1, 2))
    assert not held.keep(1, "actions", rows_of(3))
    assert (held.kept_bytes, held.most_bytes) == (16, 16)
    assert held.take(0).actions == rows_of(1, 2)
    assert (held.take(0).actions, held.take(1).actions, held.kept_bytes) == (None, None, 0)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_snapshot_does_not_depend_on_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    """With all rows in memory, some, and none. What is left over lies in no folder."""
    write_random_log(tmp_path / "event_log")
    run = make_run(tmp_path, config_of(), AS_OF)
    kept: list[int] = []
    keep = HeldRows.keep

    def count(held: HeldRows, shard: int, table: str, rows: pa.Table) -> bool:
        kept.append(keep(held, shard, table, rows))
        return kept[-1]

    monkeypatch.setattr(HeldRows, "keep", count)
    digests, shares = [], []
    for memory_bytes in (1 << 30, 60_000, 1):
        kept.clear()
        snapshot = write_snapshot(run, num_workers, memory_bytes=memory_bytes)
        digests.append(snapshot.digest)
        shares.append(sum(kept) / len(kept))
    assert len(set(digests)) == 1
    assert shares[0] == 1 > shares[1] > shares[2] == 0


@pytest.mark.parametrize(
    ("free", "task", "expected"), [(100, 10, 4), (39, 10, 3), (10, 10, 1), (9, 10, 1), (0, 0, 1)]
)
def test_as_many_work_as_have_room(free: int, task: int, expected: int) -> None:
    assert workers_that_fit(4, free, task, "a task") == expected


def test_the_budget_is_the_settings_without_what_the_process_takes_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOMEFEED_SNAPSHOT_MEMORY_GIB", "3.0")
    assert 1 << 30 < memory_budget_bytes() < 3 << 30
    monkeypatch.setenv("HOMEFEED_SNAPSHOT_MEMORY_GIB", "0.001")
    assert memory_budget_bytes() == 0
    monkeypatch.delenv("HOMEFEED_SNAPSHOT_MEMORY_GIB")
    monkeypatch.setattr("pipelines.metrics.usage.memory_limit_bytes", lambda: 10 << 30)
    assert 3 << 30 < memory_budget_bytes() < 5 << 30
    assert pool.usable_cores() >= 1
