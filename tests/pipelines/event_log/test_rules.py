"""Rows that break the contract are refused: the table, the file, what was found, what to change."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.snapshot_files import open_table
from pipelines.storage import local_path
from support.tiny_log import (
    ACTIONS_15,
    IMPRESSIONS_15,
    assert_refused,
    build_tiny,
    january,
    rewrite,
)


@pytest.mark.parametrize(
    ("file", "column"),
    [
        (IMPRESSIONS_15, "request_id"),
        (IMPRESSIONS_15, "known_at"),
        (ACTIONS_15, "action_type"),
        ("pins/part-0.parquet", "embedding"),
        ("users/part-0.parquet", "as_of"),
    ],
)
def test_a_missing_column_is_named_with_its_file(log: Path, file: str, column: str) -> None:
    rewrite(log, file, column, None)
    assert_refused(log.parent, rf"{re.escape(file)}: missing column '{column}'; found \[")


@pytest.mark.parametrize(
    ("file", "column", "values", "found"),
    [
        (IMPRESSIONS_15, "user_id", pa.array(["1", "1"]), "string; expected int64"),
        (IMPRESSIONS_15, "pin_id", pa.array([10.0, 20.0]), "double; expected int64"),
        (
            IMPRESSIONS_15,
            "impressed_at",
            pa.array([january("15 00:00")] * 2, pa.timestamp("ms")),
            r"timestamp\[ms\]; expected int64 milliseconds since the epoch",
        ),
        (IMPRESSIONS_15, "is_exploration", pa.array([0, 1]), "int64; expected bool"),
        (ACTIONS_15, "action_type", pa.array([1]), "int64; expected string"),
        ("pins/part-0.parquet", "embedding", pa.array(["x"] * 5), "string; expected fixed_size"),
    ],
)
def test_a_wrong_type_is_refused(
    log: Path, file: str, column: str, values: pa.Array, found: str
) -> None:
    rewrite(log, file, column, values)
    assert_refused(log.parent, rf"{re.escape(file)}: column '{column}' is {found}")


def test_other_widths_of_the_same_kind_are_cast(log: Path) -> None:
    expected = build_tiny(log.parent).digest
    for path in sorted(log.glob("impressions/*/*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        rows = rows.set_column(1, "user_id", rows["user_id"].cast(pa.int32()))
        rows = rows.set_column(5, "position", rows["position"].cast(pa.int64()))
        rows = rows.set_column(6, "surface", rows["surface"].dictionary_encode())
        pq.write_table(rows, path)
    pins = pq.read_table(log / "pins" / "part-0.parquet")
    lists = pins["embedding"].cast(pa.list_(pa.float64()))
    pq.write_table(pins.set_column(2, "embedding", lists), log / "pins" / "part-0.parquet")
    assert build_tiny(log.parent).digest == expected


@pytest.mark.parametrize("chance", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_propensity_that_is_no_chance_is_refused(log: Path, chance: float) -> None:
    rewrite(log, IMPRESSIONS_15, "propensity", pa.array([None, chance], pa.float32()))
    assert_refused(
        log.parent, r"a propensity is outside \(0, 1\] \(1 such row, first row 1: .*pin_id="
    )


def test_propensities_reach_the_snapshot_and_none_is_0(log: Path) -> None:
    rewrite(log, IMPRESSIONS_15, "propensity", pa.array([1.0, 0.25], pa.float32()))
    snapshot = build_tiny(log.parent)
    examples = open_table(local_path(snapshot.uri), "shard-00000/examples.arrow")
    assert sorted(set(examples["propensity"].to_pylist())) == [0.0, 0.25, 1.0]


def test_a_value_too_wide_is_refused(log: Path) -> None:
    rewrite(log, IMPRESSIONS_15, "position", pa.array([0, 70_000]))
    assert_refused(log.parent, "'position' .* does not fit int16")


@pytest.mark.parametrize(
    "embeddings",
    [pa.array([[0.5] * 31] * 5), pa.array([[0.5] * 31] * 5, pa.list_(pa.float32(), 31))],
)
def test_pins_and_users_of_different_widths_are_refused(log: Path, embeddings: pa.Array) -> None:
    rewrite(log, "pins/part-0.parquet", "embedding", embeddings)
    assert_refused(
        log.parent,
        r"users/part-0\.parquet: embedding of user_id=1 has 32 numbers; expected 31, as pin_id=10 "
        r"in .*pins/part-0\.parquet has, because the model multiplies .*; write users and pins of",
    )


def test_pins_of_a_version_in_two_widths_are_refused(log: Path) -> None:
    path = log / "pins" / "part-0.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.slice(0, 3), path)
    wide = pa.array([[0.5] * 48] * 2, pa.list_(pa.float16(), 48))
    pq.write_table(rows.slice(3).set_column(2, "embedding", wide), log / "pins" / "part-1.parquet")
    assert_refused(
        log.parent,
        r"pins/part-1\.parquet: embedding of pin_id=40 has 48 numbers; expected 32, as pin_id=10 "
        r"in .*part-0\.parquet has, because all pins of version 'planted-1' lie in one space; ",
    )


@pytest.mark.parametrize(
    ("place", "embedding", "says"),
    [
        (
            1,
            None,
            r"is null \(1 such row, first row 1: pin_id=20, .*\); expected 32 numbers; leave out",
        ),
        (
            3,
            [0.5] * 31,
            r"has 31 numbers \(1 such row, first row 3: pin_id=40, .*\); expected 32, the width",
        ),
        (0, [], r"has 0 numbers \(1 such row, first row 0: pin_id=10, .*\); expected 32"),
    ],
)
def test_a_row_with_another_list_is_named(
    log: Path, place: int, embedding: list[float] | None, says: str
) -> None:
    lists = pq.read_table(log / "pins" / "part-0.parquet")["embedding"].to_pylist()
    lists[place] = embedding
    rewrite(log, "pins/part-0.parquet", "embedding", pa.array(lists, pa.list_(pa.float32())))
    assert_refused(log.parent, rf"pins/part-0\.parquet: an embedding {says}")


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
    users = open_table(local_path(snapshot.uri), "shard-00000/users.arrow")
    assert {len(row) for row in users["embedding"].to_pylist()} == {16}


@pytest.mark.parametrize(
    ("file", "column", "values"),
    [
        (IMPRESSIONS_15, "pin_id", pa.array([10, None], pa.int64())),
        (IMPRESSIONS_15, "known_at", pa.array([january("15 00:00"), None], pa.int64())),
        (ACTIONS_15, "acted_at", pa.array([None], pa.int64())),
        ("pins/part-0.parquet", "pin_id", pa.array([10, 20, 30, 40, None], pa.int64())),
    ],
)
def test_a_null_where_none_may_be_is_refused(
    log: Path, file: str, column: str, values: pa.Array
) -> None:
    rewrite(log, file, column, values)
    assert_refused(log.parent, rf"{re.escape(file)}: column '{column}' is null \(1 such row")


def test_an_unknown_action_type_is_named(log: Path) -> None:
    rewrite(log, ACTIONS_15, "action_type", pa.array(["hide"]))
    assert_refused(log.parent, rf"{re.escape(ACTIONS_15)}: unknown action type 'hide'.*'repin'")


@pytest.mark.parametrize(
    ("factor", "unit"), [(0.001, "seconds"), (1000, "microseconds"), (1_000_000, "nanoseconds")]
)
def test_times_in_another_unit_are_recognised(log: Path, factor: float, unit: str) -> None:
    for column in ("impressed_at", "known_at"):
        rewrite(log, IMPRESSIONS_15, column, pa.array([int(january("15 00:00") * factor)] * 2))
    assert_refused(log.parent, rf"{re.escape(IMPRESSIONS_15)}: .*looks like {unit}")


def test_a_row_in_another_days_partition_is_refused(log: Path) -> None:
    (log / "actions" / "day=2017-01-15").rename(log / "actions" / "day=2017-01-14")
    assert_refused(log.parent, "in the partition day=2017-01-14 .*; expected")


@pytest.mark.parametrize("days", [("15", "16"), ("14", "15")])
def test_a_file_that_reaches_into_another_day_is_refused(log: Path, days: tuple[str, str]) -> None:
    times = pa.array([january(f"{day} 12:00") for day in days])
    for column in ("impressed_at", "known_at"):
        rewrite(log, IMPRESSIONS_15, column, times)
    assert_refused(log.parent, "in the partition day=2017-01-15 .*; expected")


def test_known_before_it_happened_is_refused(log: Path) -> None:
    rewrite(log, ACTIONS_15, "known_at", pa.array([january("14 00:00")]))
    assert_refused(log.parent, rf"{re.escape(ACTIONS_15)}: acted_at is after known_at \(1 such row")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("table", ["pins", "users"])
def test_a_number_that_is_none_in_an_embedding_is_refused(
    log: Path, table: str, number: float | None
) -> None:
    path = log / table / "part-0.parquet"
    lists = pq.read_table(path)["embedding"].to_pylist()
    lists[1][7] = number
    rewrite(
        log, f"{table}/part-0.parquet", "embedding", pa.array(lists, pa.list_(pa.float32(), 32))
    )
    key = "pin_id=20" if table == "pins" else "user_id=1"
    assert_refused(
        log.parent,
        rf"{table}/part-0\.parquet: an embedding has a null, NaN or infinite number .*: {key}",
    )
