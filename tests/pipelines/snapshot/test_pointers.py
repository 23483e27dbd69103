"""The tiny log's timeline and the pointers into it, worked by hand."""

from pathlib import Path

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.snapshot_files import open_table
from pipelines.storage import local_path
from support.tiny_log import acted, build_tiny, january, rows_of, tiny_actions, write_tiny_log


def test_the_timeline_is_what_requests_can_see(tiny: Snapshot) -> None:
    pins = open_table(local_path(tiny.uri), "pins.arrow")["pin_id"].to_pylist()
    timeline = [
        (pins[row["pin_row"]], row["action_type_id"], row["known_at"])
        for row in rows_of(tiny, "timeline")
    ]
    repin, click = 1, 2
    assert timeline == [
        (40, click, january("10 00:10")),
        (10, repin, january("15 00:05")),
        (20, repin, january("16 00:01")),
        (10, repin, january("18 02:00")),
        (30, repin, january("18 03:00")),
        (20, repin, january("12 09:00")),  # user 2; later actions are after their last request
    ]


def test_pointers_end_before_the_request(tiny: Snapshot) -> None:
    found = {
        r["request_id"]: (r["timeline_start"], r["timeline_end"]) for r in rows_of(tiny, "requests")
    }
    assert found == {"A": (0, 1), "C": (0, 3), "D": (0, 5), "B": (5, 6)}


def test_an_action_of_a_request_is_not_in_its_own_sequence(tmp_path: Path) -> None:
    """Known in the very millisecond of the request: a label, but nothing the model may see."""
    actions = [*tiny_actions(), acted(1, 30, "repin", "18 00:00", "18 00:00", "C")]
    write_tiny_log(tmp_path / "event_log", actions=actions)
    requests = {r["request_id"]: r for r in rows_of(build_tiny(tmp_path), "requests")}
    assert requests["C"]["timeline_end"] == 3
    assert requests["D"]["timeline_end"] == 6
