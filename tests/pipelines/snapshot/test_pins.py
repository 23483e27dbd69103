"""Which pins a snapshot has, and pins that it cannot have."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.schemas import NEVER_MS
from pipelines.contracts.snapshot_files import open_table
from pipelines.storage import local_path
from support.tiny_log import (
    assert_refused,
    build_tiny,
    january,
    pins_of,
    rewrite,
    with_pin_times,
)
from support.worlds import write_rows


def test_only_referenced_pins_are_kept_with_their_embedding(tiny: Snapshot) -> None:
    pins = open_table(local_path(tiny.uri), "pins.arrow")
    assert pins["pin_id"].to_pylist() == [10, 20, 30, 40]
    assert pins["embedding"][3].as_py() == pytest.approx([0.4] * 32)
    assert tiny.num_pins == 4


def test_a_missing_embedding_version_lists_what_is_there(log: Path) -> None:
    write_rows(log, "pins", pins_of([10, 20, 30, 40], version="other-7"))
    assert_refused(
        log.parent, r"no embedding of version 'planted-1'.*found the versions \['other-7'\]"
    )


def test_a_pin_without_embedding_is_named(log: Path) -> None:
    write_rows(log, "pins", pins_of([10, 20, 40]))
    assert_refused(log.parent, "1 of 4 pins .* have no embedding of version 'planted-1', first: 30")


def test_a_pin_with_two_embeddings_is_named(log: Path) -> None:
    write_rows(log, "pins", pins_of([10, 20, 20, 30, 40]))
    assert_refused(log.parent, "pin 20 has more than one embedding")


KNOWN = {10: "01 00:00", 20: "16 12:00", 30: "18 00:00:00.001", 40: "16 00:00"}


def test_pins_that_have_a_time_bring_it_along(log: Path) -> None:
    plain = build_tiny(log.parent)
    with_pin_times(log, KNOWN | {50: "20 00:00"})
    snapshot = build_tiny(log.parent)
    pins = open_table(local_path(snapshot.uri), "pins.arrow")
    assert pins.column_names == ["pin_id", "embedding", "known_at"]
    assert pins["known_at"].to_pylist() == [january(when) for when in KNOWN.values()]
    assert (snapshot.num_pins, snapshot.num_cold_pins) == (4, 0)
    assert snapshot.digest != plain.digest
    assert "known_at" not in open_table(local_path(plain.uri), "pins.arrow").column_names


@pytest.mark.parametrize("known", [KNOWN | {30: "20 00:00"}, {p: KNOWN[p] for p in (10, 20, 40)}])
def test_a_pin_that_nobody_knew_before_as_of_is_cold(log: Path, known: dict[int, str]) -> None:
    with_pin_times(log, known)
    snapshot = build_tiny(log.parent)
    [cold] = [r for r in pins_of_snapshot(snapshot) if r["pin_id"] == 30]
    assert cold == {"pin_id": 30, "embedding": [0.0] * 32, "known_at": NEVER_MS}
    assert [row["pin_id"] for row in pins_of_snapshot(snapshot)] == [10, 20, 30, 40]
    assert (snapshot.num_pins, snapshot.num_cold_pins) == (4, 1)


def test_a_row_that_becomes_known_at_as_of_changes_nothing(log: Path) -> None:
    with_pin_times(log, {p: KNOWN[p] for p in (10, 20, 40)})
    expected = build_tiny(log.parent).digest
    with_pin_times(log, KNOWN | {30: "20 00:00"})
    assert build_tiny(log.parent).digest == expected


def test_pins_with_a_time_in_some_files_only_are_refused(log: Path) -> None:
    with_pin_times(log, KNOWN)
    pq.write_table(pins_of([60]), log / "pins" / "part-1.parquet")
    assert_refused(
        log.parent, r"pins: .*part-1.parquet has no column 'known_at', and .*part-0.parquet has;"
    )


def test_a_version_that_nobody_knew_yet_is_missing(log: Path) -> None:
    with_pin_times(log, dict.fromkeys(KNOWN, "20 00:00"))
    assert_refused(log.parent, "4 of 4 pins .* have no embedding of version 'planted-1', first: 10")


def test_two_rows_of_a_pin_with_different_times_are_refused(log: Path) -> None:
    with_pin_times(log, KNOWN)
    path = log / "pins" / "part-0.parquet"
    pq.write_table(pq.read_table(path), path.with_name("part-1.parquet"))
    rewrite(log, "pins/part-1.parquet", "known_at", pa.array([january("02 00:00")] * 4))
    assert_refused(log.parent, "pin 10 has more than one embedding")


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (pa.array([1, 2, 3, 4]), "known_at is not a plausible time .*first row 0: .*known_at=1"),
        (pa.array([None, *[january("02 00:00")] * 3]), "column 'known_at' is null .1 such row"),
        (pa.array([1.0] * 4), "column 'known_at' is double; expected int64"),
    ],
)
def test_times_of_pins_that_are_none_are_refused(log: Path, times: pa.Array, says: str) -> None:
    with_pin_times(log, KNOWN)
    rewrite(log, "pins/part-0.parquet", "known_at", times)
    assert_refused(log.parent, rf"pins/part-0.parquet: {says}")


def pins_of_snapshot(snapshot: Snapshot) -> list[dict]:
    return open_table(local_path(snapshot.uri), "pins.arrow").to_pylist()
