"""Sorted runs: any range of keys, whatever the order in which rows came."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.contracts.time import DAY_MS
from pipelines.sources.writer import runs
from pipelines.sources.writer.runs import KeyRange, Runs

LARGEST = 2**63 - 1


def rows_of(keys: list[int]) -> pa.Table:
    return pa.table({"key": pa.array(keys, pa.int64()), "name": [str(key) for key in keys]})


@pytest.fixture
def three_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setattr(runs, "MAX_BYTES", 40)  # two rows fill a run
    kept = Runs(tmp_path / "rows", "key")
    for keys in ([5, -(2**63)], [9, 5, LARGEST], [7], []):
        kept.add(rows_of(keys))
    kept.settle()
    return kept


def test_a_range_of_keys_comes_from_every_run(three_runs: Runs, tmp_path: Path) -> None:
    assert len(list((tmp_path / "rows").iterdir())) == 3
    assert three_runs.num_rows == 6
    assert three_runs.whole() == KeyRange(-(2**63), LARGEST)
    found = three_runs.read(KeyRange(5, 8)).to_pydict()
    assert found == {"key": [5, 5, 7], "name": ["5", "5", "7"]}
    assert len(three_runs.read(KeyRange(LARGEST, LARGEST))) == 1


@pytest.mark.parametrize("max_rows", [1, 2, 3, 6])
def test_slices_are_bounded_and_leave_out_nothing(three_runs: Runs, max_rows: int) -> None:
    whole = three_runs.whole()
    assert whole is not None
    slices = list(three_runs.slices(whole, max_rows))
    keys = [three_runs.read(each)["key"].to_pylist() for each in slices]
    assert sorted(key for part in keys for key in part) == [-(2**63), 5, 5, 7, 9, LARGEST]
    # Equal keys stay together, however few rows a slice may have.
    assert all(len(part) <= max_rows or set(part) == {5} for part in keys)
    assert all(first.last < second.first for first, second in zip(slices, slices[1:], strict=False))


def test_days_are_those_of_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_BYTES", 1)
    kept = Runs(tmp_path / "rows", "key")
    for day in (4, 2, 4):
        kept.add(rows_of([day * DAY_MS + 5, day * DAY_MS]))
    assert kept.days(DAY_MS) == [2, 4]
    assert np.asarray(kept.read(KeyRange(4 * DAY_MS, 5 * DAY_MS - 1))["key"]).tolist() == [
        4 * DAY_MS,
        4 * DAY_MS + 5,
        4 * DAY_MS,
        4 * DAY_MS + 5,
    ]


def test_nothing_has_no_range(tmp_path: Path) -> None:
    kept = Runs(tmp_path / "rows", "key")
    kept.settle()
    assert kept.whole() is None
    assert not (tmp_path / "rows").exists()


def test_a_mark_brings_back_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_BYTES", 35)
    kept, plain = Runs(tmp_path / "rows", "key"), Runs(tmp_path / "plain", "key")
    for each in (kept, plain):
        each.add(rows_of([3, 1, 2]))  # a run
        each.add(rows_of([5]))  # waits
    mark = kept.mark()
    kept.add(rows_of([7, 8, 9]))  # a run, with what waited
    kept.add(rows_of([6]))
    kept.return_to(mark)
    for each in (kept, plain):
        each.add(rows_of([4]))
        each.settle()
    assert kept.read(KeyRange(0, 9)) == plain.read(KeyRange(0, 9))
    assert (kept.num_rows, kept.num_bytes) == (plain.num_rows, plain.num_bytes) == (5, 5 * 13)
    assert len(list((tmp_path / "rows").iterdir())) == 2


def test_the_bytes_of_rows_do_not_depend_on_how_they_came(tmp_path: Path) -> None:
    table = pa.table(
        {
            "key": pa.array([1, 2, 3, 4], pa.int64()),
            "text": ["", "abc", None, "de"],
            "flag": [True, None, False, True],
            "vector": pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float32(), 2)),
            "tags": pa.array([["x"], [], None, ["yz", "w"]], pa.list_(pa.string())),
        }
    )
    sizes = set()
    for step in (1, 3, 4):
        kept = Runs(tmp_path / f"rows-{step}", "key")
        for start in range(0, 4, step):
            kept.add(table.slice(start, step))
        sizes.add(kept.num_bytes)
    assert len(sizes) == 1
