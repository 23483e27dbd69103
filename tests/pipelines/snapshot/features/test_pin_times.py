"""What a pin's row says is not told to a request before the log knew the row."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.schemas import numeric_column
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, HOUR_MS, to_ms
from pipelines.storage import local_path
from support.random_log import AS_OF, START_MS, Row, build, config_of, write_random_log

LATE_FROM_MS = to_ms(AS_OF) - 7 * DAY_MS - 5 * HOUR_MS
"""In the middle of the training window, and in the millisecond of a request of such pins."""
FEATURES = (
    NumericFeature(name="similarity_best"),
    NumericFeature(name="similarity_mean"),
    NumericFeature(name="similarity_decayed"),
    NumericFeature(name="since_last_touch_of_category", category="brand"),
    NumericFeature(name="pin_age", column="created_at"),
    NumericFeature(name="pins.created_at"),
)


def is_late(row: Row) -> bool:
    return row["pin_id"] % 3 == 0


def as_known(rows: list[Row]) -> list[Row]:
    """Return the pins with times: a third of them became known in the training window."""
    return [row | {"known_at": LATE_FROM_MS if is_late(row) else START_MS} for row in rows]


def otherwise(rows: list[Row]) -> list[Row]:
    """Return the same with other content in the rows that became known late."""
    other = {"red": "blue", "blue": "red"}
    return [
        row
        | {
            "embedding": np.roll(row["embedding"], 5),
            "brand": other.get(row["brand"], row["brand"]),
            "created_at": START_MS + 5 * DAY_MS,
        }
        if is_late(row)
        else row
        for row in as_known(rows)
    ]


@pytest.fixture(scope="module")
def twice(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """When each example was asked for, and its numbers, with the one and the other content."""
    asked_at, found = np.array([]), []
    for number, change in enumerate((as_known, otherwise)):
        folder = tmp_path_factory.mktemp(f"pins{number}")
        write_random_log(folder / "event_log", change_pins=change)
        asked_at, numbers = numbers_of(folder)
        found.append(numbers)
    return asked_at, found


def numbers_of(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    snapshot = build(folder, config_of(*FEATURES))
    root = local_path(snapshot.uri)
    requests, examples = (
        [open_table(root, f"{shard.name}/{file}.arrow") for shard in snapshot.shards]
        for file in ("requests", "examples")
    )
    asked_at = [
        np.repeat(t["impressed_at"].to_numpy(), t["num_examples"].to_numpy()) for t in requests
    ]
    names = [name for feature in FEATURES for name in feature.inputs]
    numbers = {
        name: np.concatenate([table[numeric_column(name)].to_numpy() for table in examples])
        for name in names
    }
    return np.concatenate(asked_at), numbers


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_request_is_not_told_what_a_row_of_later_says(
    twice: tuple[np.ndarray, list[dict[str, np.ndarray]]], feature: NumericFeature
) -> None:
    asked_at, (one, other) = twice
    is_before = asked_at <= LATE_FROM_MS
    assert (asked_at == LATE_FROM_MS).any() and (~is_before).any()
    for name in feature.inputs:
        np.testing.assert_array_equal(one[name][is_before], other[name][is_before])
    changed = [(one[name][~is_before] != other[name][~is_before]).any() for name in feature.inputs]
    assert any(changed)
