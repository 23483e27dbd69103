"""Which pins a snapshot has, and pins that it cannot have."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.schemas import NEVER_MS
from pipelines.contracts.snapshot_files import open_table
from pipelines.storage import local_path
from support.tiny_log import assert_refused, build_tiny, january, pins_of, rewrite, with_pin_times
from support.worlds import write_rows

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


def test_a_pin_that_nobody_knew_before_as_of_is_cold_with_or_without_a_later_row(log: Path) -> None:
    digests = set()
    for known in (KNOWN | {30: "20 00:00"}, {p: KNOWN[p] for p in (10, 20, 40)}):
        with_pin_times(log, known)
        snapshot = build_tiny(log.parent)
        pins = open_table(local_path(snapshot.uri), "pins.arrow").to_pylist()
        assert pins[2] == {"pin_id": 30, "embedding": [0.0] * 32, "known_at": NEVER_MS}
        assert [row["pin_id"] for row in pins] == [10, 20, 30, 40]
        assert (snapshot.num_pins, snapshot.num_cold_pins) == (4, 1)
        digests.add(snapshot.digest)
    assert len(digests) == 1


def two_files(log: Path, rows: pa.Table) -> None:
    pq.write_table(rows, log / "pins" / "part-1.parquet")


def known_at(log: Path, times: list[int | float | None]) -> None:
    rewrite(log, "pins/part-0.parquet", "known_at", pa.array(times))


SECOND, LATE = january("02 00:00"), january("20 00:00")
REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda log: write_rows(log, "pins", pins_of([10, 20, 30, 40], "other-7")),
        r"no embedding of version 'planted-1'.*found the versions \['other-7'\]",
    ),
    (
        lambda log: write_rows(log, "pins", pins_of([10, 20, 40])),
        "1 of 4 pins .* have no embedding of version 'planted-1', first: 30",
    ),
    (
        lambda log: two_files(log, pins_of([60])),
        r"pins: .*part-1.parquet has no column 'known_at', and .*part-0.parquet has;",
    ),
    (
        lambda log: two_files(log, pins_of([10]).append_column("known_at", [[SECOND]])),
        "pin 10 has more than one embedding",
    ),
    (
        lambda log: known_at(log, [1, 2, 3, 4]),
        "part-0.parquet: known_at is not a plausible time .*known_at=1",
    ),
    (lambda log: known_at(log, [None, *[SECOND] * 3]), "'known_at' is null .1 such row"),
    (
        lambda log: known_at(log, [1.0] * 4),
        "part-0.parquet: column 'known_at' is double; expected int64",
    ),
    (lambda log: known_at(log, [LATE] * 4), "4 of 4 pins .* 'planted-1', first: 10"),
]


@pytest.mark.parametrize(("spoil", "says"), REFUSED)
def test_pins_that_a_snapshot_cannot_have_are_named(
    log: Path, spoil: Callable[[Path], object], says: str
) -> None:
    with_pin_times(log, KNOWN)
    spoil(log)
    assert_refused(log.parent, says)
