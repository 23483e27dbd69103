"""The tiny log's labels, worked by hand, and which actions fit no request."""

from pathlib import Path

import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.snapshot_files import open_table
from pipelines.storage import local_path
from support.tiny_log import acted, build_tiny, rows_of, shown, write_tiny_log


def test_labels_follow_request_pin_and_window(tiny: Snapshot) -> None:
    pins = open_table(local_path(tiny.uri), "pins.arrow")["pin_id"].to_pylist()
    examples = rows_of(tiny, "examples")
    labels = {}
    for request in rows_of(tiny, "requests"):
        first = request["first_example"]
        for row in examples[first : first + request["num_examples"]]:
            key = (request["request_id"], pins[row["pin_row"]])
            labels[key] = (row["label_repin"], row["label_long_click"], row["label_save"])
    assert labels == {
        ("A", 10): (1, 0, 0),
        ("A", 20): (0, 0, 0),
        ("C", 10): (1, 0, 0),
        ("C", 30): (0, 0, 0),
        ("D", 10): (0, 0, 0),
        ("D", 20): (0, 0, 0),
        ("B", 20): (0, 0, 0),
        ("B", 30): (1, 1, 0),
    }


@pytest.mark.parametrize(
    ("acted_at", "label", "num_early"),
    [("15 23:59:59.999", 1, 0), ("16 00:00", 0, 1)],
)
def test_an_action_a_label_window_after_an_impression_is_neither_its_label_nor_near_it(
    tmp_path: Path, acted_at: str, label: int, num_early: int
) -> None:
    """The pin is shown again two hours after the action, so that it is early without the first."""
    impressions = [
        *shown("A", 1, "15 00:00", 10),
        *shown("E", 1, "16 02:00", 10),
        *shown("C", 1, "18 00:00", 10),
        *shown("F", 2, "15 10:00", 20),
    ]
    actions = [
        acted(1, 10, "repin", acted_at, "16 00:10"),
        acted(1, 10, "repin", "18 02:00", "18 03:00", "C"),  # a label in either window
        acted(2, 20, "repin", "15 11:00", "15 12:00", "F"),
    ]
    write_tiny_log(tmp_path / "event_log", impressions, actions)
    snapshot = build_tiny(tmp_path)
    assert rows_of(snapshot, "examples")[0]["label_repin"] == label
    assert (snapshot.event_counts.num_near, snapshot.event_counts.num_early) == (1, num_early)
