"""The first pass reads many files as one, tells of each as if it were alone, and holds the rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.time import DAY_MS
from pipelines.snapshot import spill
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.pin_counts import ActionCounts, FirstSeen
from pipelines.snapshot.plan import WindowCounts
from pipelines.snapshot.spill import HeldRows
from support.random_log import AS_OF, build, config_of, write_random_log
from support.runs import make_run

BUILD = "pipelines.snapshot.build"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_random_log(tmp_path / "event_log")
    return tmp_path


def change(path: Path, column: str, make: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> None:
    rows = pq.read_table(path)
    index = rows.schema.get_field_index(column)
    pq.write_table(rows.set_column(index, column, make(rows[column])), path)


def files_of(log: Path, table: str) -> list[Path]:
    return sorted((log / "event_log" / table).rglob("*.parquet"))


def test_files_of_other_types_are_read_beside_the_others(log: Path) -> None:
    """Read as one they would be filled up with nulls or refused; alone each has the contract's."""
    before = build(log, config_of()).digest
    change(files_of(log, "impressions")[-5], "user_id", lambda found: found.cast(pa.int32()))
    change(files_of(log, "actions")[-6], "action_type", lambda found: found.dictionary_encode())
    assert build(log, config_of()).digest == before


def test_the_snapshot_does_not_depend_on_how_many_files_are_read_at_once(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for num_files in (1, 3, 32):
        monkeypatch.setattr(spill, "FILES_PER_TASK", num_files)
        digests.append(build(log, config_of()).digest)
    assert len(set(digests)) == 1


def test_counts_are_the_same_however_often_they_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pins and days occur in all parts, which are merged once or after each."""
    rng = np.random.default_rng(2)
    parts = []
    for _ in range(6):
        pin_id, days = rng.integers(0, 5, 50), rng.integers(0, 3, (2, 50))
        acted_at = days[0] * DAY_MS
        known_at = acted_at + days[1] * DAY_MS + rng.integers(0, 9, 50)
        counts = ActionCounts.of(pin_id, acted_at, known_at)
        seen, counted = FirstSeen.of(pin_id, acted_at, known_at), WindowCounts(1, 2)
        parts.append(spill.SpillSummary(np.unique(pin_id), (counts,), (seen,), counted))
    once = spill.merge_as_they_come(iter(parts))
    monkeypatch.setattr(spill, "ROWS_WORTH_A_MERGE", 1)
    often = spill.merge_as_they_come(iter(parts))
    assert (len(once.wanted_actions), len(often.wanted_actions)) == (6, 1)
    assert once.num_impressions == often.num_impressions == (6, 12)
    assert once.pin_ids.tolist() == often.pin_ids.tolist() == [0, 1, 2, 3, 4]
    for kind, name in ((ActionCounts, "wanted_actions"), (FirstSeen, "first_seen")):
        one, other = (vars(kind.merge(getattr(found, name))) for found in (once, often))
        for column, values in one.items():
            assert other[column].tolist() == values.tolist()
    assert int(ActionCounts.merge(often.wanted_actions).count.sum()) == 300


def test_rows_are_kept_until_memory_is_full_and_then_in_files(tmp_path: Path) -> None:
    held = HeldRows(tmp_path, memory_bytes=20)
    two, one = (pa.table({"user_id": ids}) for ids in ([1, 2], [3]))
    assert held.keep(0, "actions", two) and not held.keep(1, "actions", one)
    assert (held.kept_bytes, held.most_bytes) == (16, 16)
    assert (held.take(0).actions, held.take(1).actions) == (two, one)
    assert (held.take(0).actions, held.take(1).users, held.kept_bytes) == (None, None, 0)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_snapshot_does_not_depend_on_memory(
    log: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    """With all rows in memory, some, and none. What is left over lies in no folder."""
    run = make_run(log, config_of(), AS_OF)
    kept: list[int] = []
    keep = HeldRows.keep

    def count(held: HeldRows, shard: int, table: str, rows: pa.Table) -> bool:
        kept.append(keep(held, shard, table, rows))
        return kept[-1]

    monkeypatch.setattr(HeldRows, "keep", count)
    monkeypatch.setattr(f"{BUILD}.usable_cores", lambda: num_workers)
    digests, shares = [], []
    for memory_bytes in (1 << 30, 60_000, 1):
        kept.clear()
        monkeypatch.setattr(f"{BUILD}.memory_budget_bytes", lambda number=memory_bytes: number)
        snapshot = write_snapshot(run)
        digests.append(snapshot.digest)
        shares.append(sum(kept) / len(kept))
    assert len(set(digests)) == 1
    assert shares[0] == 1 > shares[1] > shares[2] == 0
