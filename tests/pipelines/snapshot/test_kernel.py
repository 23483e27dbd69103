"""The kernel's steps on the tiny log, whose answers are worked by hand, and what they refuse.

That the order of the rows that come in changes no byte is tested in test_build.
"""

from pathlib import Path

import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.schemas import PIN_ROWS, REQUESTS, TIMELINE
from pipelines.contracts.snapshot_files import open_table
from pipelines.storage import local_path
from support.tiny_log import (
    acted,
    assert_refused,
    build_tiny,
    january,
    rows_of,
    shown,
    tiny_actions,
    tiny_impressions,
    write_tiny_log,
)


def pins_of(snapshot: Snapshot) -> list[int]:
    return open_table(local_path(snapshot.uri), "pins.arrow")["pin_id"].to_pylist()


def test_files_have_the_contract_schema_and_one_batch(tiny: Snapshot) -> None:
    folder = local_path(tiny.uri)
    assert open_table(folder, "pins.arrow").schema.equals(PIN_ROWS)
    assert open_table(folder, "shard-00000/timeline.arrow").schema.equals(TIMELINE)
    assert open_table(folder, "shard-00000/requests.arrow").schema.equals(REQUESTS)
    examples = open_table(folder, "shard-00000/examples.arrow")
    assert examples.schema.names == [
        *("pin_row", "position", "is_exploration", "propensity"),
        *("num_pin_popularity", "num_past_engagements", "num_pin_popularity_1d"),
        *("num_pin_popularity_7d", "num_pin_popularity_28d", "num_pin_age", "num_pin_age_missing"),
        *("label_repin", "label_long_click", "label_save"),
    ]
    assert all(column.num_chunks == 1 for column in examples.columns)


def test_the_timeline_is_what_requests_can_see_and_pointers_end_before_them(log: Path) -> None:
    """What is known in the very millisecond of a request is a label, but not seen by it."""
    moments = {"C": "18 00:00", "D": "18 23:59:59.999"}  # D is the user's last request
    at_once = [acted(1, 20, "click", when, when, name) for name, when in moments.items()]
    write_tiny_log(log, actions=[*tiny_actions(), *at_once])
    snapshot = build_tiny(log.parent)
    pins, (repin, click) = pins_of(snapshot), (1, 2)
    timeline = [
        (pins[row["pin_row"]], row["action_type_id"], row["known_at"])
        for row in rows_of(snapshot, "timeline")
    ]
    assert timeline == [
        (40, click, january("10 00:10")),
        (10, repin, january("15 00:05")),
        (20, repin, january("16 00:01")),
        (20, click, january("18 00:00")),  # of C, which D sees
        (10, repin, january("18 02:00")),
        (30, repin, january("18 03:00")),
        (20, repin, january("12 09:00")),  # user 2; later actions are after their last request
    ]
    requests = rows_of(snapshot, "requests")
    found = {r["request_id"]: (r["timeline_start"], r["timeline_end"]) for r in requests}
    assert found == {"A": (0, 1), "C": (0, 3), "D": (0, 6), "B": (6, 7)}


def test_user_rows_are_the_latest_not_after_the_request(tiny: Snapshot) -> None:
    users, requests = rows_of(tiny, "users"), rows_of(tiny, "requests")
    as_of = {r["request_id"]: users[r["user_row"]]["as_of"] for r in requests}
    same_day = january("15 00:00")
    assert as_of == {"A": same_day, "C": same_day, "D": same_day, "B": 0}
    assert users[requests[3]["user_row"]]["embedding"] == [0.0] * 32  # nobody knows user 2 yet
    assert [user["user_id"] for user in users] == [1, 2]


def test_labels_follow_request_pin_and_window(tiny: Snapshot) -> None:
    pins, examples, labels = pins_of(tiny), rows_of(tiny, "examples"), {}
    for request in rows_of(tiny, "requests"):
        first = request["first_example"]
        for row in examples[first : first + request["num_examples"]]:
            key = (request["request_id"], pins[row["pin_row"]])
            labels[key] = (row["label_repin"], row["label_long_click"], row["label_save"])
    nothing = dict.fromkeys([("A", 20), ("C", 30), ("D", 10), ("D", 20), ("B", 20)], (0, 0, 0))
    assert labels == nothing | {("A", 10): (1, 0, 0), ("C", 10): (1, 0, 0), ("B", 30): (1, 1, 0)}


@pytest.mark.parametrize(
    ("acted_at", "label", "num_early"), [("15 23:59:59.999", 1, 0), ("16 00:00", 0, 1)]
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


@pytest.mark.parametrize(
    ("when", "is_core"), [("12 08:00", False), ("12 11:59:59.999", False), ("12 12:00", True)]
)
def test_core_is_a_recent_repin_known_before_the_request(
    log: Path, when: str, is_core: bool
) -> None:
    """User 2 repins four days before B, four hours too early in the log as it is."""
    actions = [row for row in tiny_actions() if row["user_id"] == 1]
    write_tiny_log(log, actions=[*actions, acted(2, 20, "repin", when, when)])
    found = {r["request_id"]: r["is_core"] for r in rows_of(build_tiny(log.parent), "requests")}
    assert found == {"A": False, "C": True, "D": True, "B": is_core}


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("num_repeated", [1, 2])
def test_of_repeated_impressions_the_earliest_is_kept_whatever_order_they_come_in(
    log: Path, is_first: bool, num_repeated: int
) -> None:
    pins = (30, 10)[:num_repeated]
    again = [{**row, "position": 7} for row in shown("C", 1, "18 00:01", *pins)]
    rows = [*again, *tiny_impressions()] if is_first else [*tiny_impressions(), *again]
    write_tiny_log(log, impressions=rows)
    snapshot = build_tiny(log.parent)
    assert snapshot.num_duplicate_impressions == num_repeated
    assert [row["position"] for row in rows_of(snapshot, "examples")] == [0, 1] * 4


SAME_PINS = [row | {"user_id": 2} for row in tiny_impressions() if row["request_id"] == "C"]
EARLY = acted(1, 30, "repin", "17 23:59", "17 23:59", "C")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            {"impressions": [*tiny_impressions(), *shown("C", 2, "18 00:00", 40)]},
            "request 'C' belongs to users 1 and 2",
        ),
        # whose rows differ in nothing else
        ({"impressions": [*tiny_impressions(), *SAME_PINS]}, "request 'C' belongs to users 1 and"),
        ({"actions": [*tiny_actions(), EARLY]}, "names request 'C', which was shown later"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(
    log: Path, spoil: dict[str, list], says: str
) -> None:
    write_tiny_log(log, **spoil)
    assert_refused(log.parent, says)
