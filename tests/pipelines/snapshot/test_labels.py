"""The tiny log's labels, worked by hand."""

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.snapshot_files import open_table
from pipelines.storage import local_path
from support.tiny_log import rows_of


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
