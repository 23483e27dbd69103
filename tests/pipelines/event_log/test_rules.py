"""Rows that break the contract: readers refuse them, and the check lists them in the same words."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.snapshot_files import open_table
from pipelines.log_check.measuring import check_log
from pipelines.storage import local_path
from support.mistakes import MISTAKES, PINS
from support.tiny_log import IMPRESSIONS_15, assert_refused, build_tiny, rewrite, tiny_config


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_by_readers_and_listed_by_the_check(log: Path, name: str) -> None:
    rule, plant, says = MISTAKES[name]
    plant(log)
    assert_refused(log.parent, says)
    problems = [each for each in check_log(str(log), tiny_config()).problems if each.rule == rule]
    assert any(re.search(says, each.message) for each in problems)
    assert all("; expected " in each.message for each in problems)


def test_other_widths_of_the_same_kind_are_cast(log: Path) -> None:
    expected = build_tiny(log.parent).digest
    for path in sorted(log.glob("impressions/*/*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        rows = rows.set_column(1, "user_id", rows["user_id"].cast(pa.int32()))
        rows = rows.set_column(5, "position", rows["position"].cast(pa.int64()))
        rows = rows.set_column(6, "surface", rows["surface"].dictionary_encode())
        pq.write_table(rows, path)
    lists = pq.read_table(log / PINS)["embedding"].cast(pa.list_(pa.float64()))
    rewrite(log, PINS, "embedding", lists.combine_chunks())
    assert build_tiny(log.parent).digest == expected


def test_propensities_reach_the_snapshot_and_none_is_0(log: Path) -> None:
    rewrite(log, IMPRESSIONS_15, "propensity", pa.array([1.0, 0.25], pa.float32()))
    snapshot = build_tiny(log.parent)
    examples = open_table(local_path(snapshot.uri), "shard-00000/examples.arrow")
    assert sorted(set(examples["propensity"].to_pylist())) == [0.0, 0.25, 1.0]


def two_widths_of_pins(log: Path) -> None:
    rows = pq.read_table(log / PINS)
    pq.write_table(rows.slice(0, 3), log / PINS)
    wide = pa.array([[0.5] * 48] * 2, pa.list_(pa.float16(), 48))
    pq.write_table(rows.slice(3).set_column(2, "embedding", wide), log / "pins" / "part-1.parquet")


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (lambda log: rewrite(
            log, PINS, "embedding", pa.array([[0.5] * 31] * 5, pa.list_(pa.float32(), 31))),
         r"users/part-0\.parquet: embedding of user_id=1 has 32 numbers; expected 31, as "
         r"pin_id=10 in .*pins/part-0\.parquet has, because .* the model multiplies .*; embed"),
        (two_widths_of_pins,
         r"pins/part-1\.parquet: embedding of pin_id=40 has 48 numbers; expected 32, as pin_id=10 "
         r"in .*part-0\.parquet has, because all pins of a version lie in one space"),
    ],
)  # fmt: skip
def test_embeddings_of_several_widths_are_refused(
    log: Path, plant: Callable[[Path], None], says: str
) -> None:
    plant(log)
    assert_refused(log.parent, says)


def test_embeddings_of_16_bits_are_widened(log: Path) -> None:
    """Their numbers are multiples of 1/128, which 16 bits hold exactly."""
    digests = []
    for type_ in (pa.float32(), pa.float16()):
        for table, count in (("pins", 5), ("users", 3)):
            numbers = [[row / 128] * 16 for row in range(1, count + 1)]
            column = pa.array(numbers, pa.list_(type_, 16))
            rewrite(log, f"{table}/part-0.parquet", "embedding", column)
        snapshot = build_tiny(log.parent)
        digests.append(snapshot.digest)
    assert digests[0] == digests[1]
    pins = open_table(local_path(snapshot.uri), "pins.arrow")
    assert pins["embedding"].type == pa.list_(pa.float32(), 16)
    assert pins["embedding"][1].as_py() == [2 / 128] * 16
