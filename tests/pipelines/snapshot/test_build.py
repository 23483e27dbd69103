"""The tiny log's snapshot, worked by hand."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.schemas import PIN_ROWS, REQUESTS, TIMELINE
from pipelines.contracts.snapshot_files import open_table, verify_files
from pipelines.snapshot.build import build_snapshot
from pipelines.snapshot.plan import make_plan, shard_of
from pipelines.storage import local_path
from support.damage import flip_a_byte
from support.runs import make_run
from support.tiny_log import (
    TINY_AS_OF,
    acted,
    january,
    shown,
    tiny_actions,
    tiny_config,
    tiny_impressions,
    write_tiny_log,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_log(folder / "event_log")
    return build_snapshot(make_run(folder, tiny_config(), TINY_AS_OF))


def rows_of(snapshot: Snapshot, name: str) -> list[dict]:
    return open_table(local_path(snapshot.uri), f"shard-00000/{name}.arrow").to_pylist()


def build(folder: Path, **changes: object) -> Snapshot:
    return build_snapshot(make_run(folder, tiny_config(**changes), TINY_AS_OF))


def test_windows_are_half_open_and_end_where_impressions_are_mature(tiny: Snapshot) -> None:
    assert (tiny.training.start_ms, tiny.training.end_ms) == (
        january("15 00:00"),
        january("17 00:00"),
    )
    assert (tiny.holdout.start_ms, tiny.holdout.end_ms) == (
        january("18 00:00"),
        january("19 00:00"),
    )
    requests = rows_of(tiny, "requests")
    assert [(r["request_id"], r["user_id"], r["split"]) for r in requests] == [
        ("A", 1, 0),
        ("C", 1, 1),
        ("D", 1, 1),
        ("B", 2, 0),
    ]
    assert tiny.num_immature_impressions == 1


def test_a_longer_label_window_moves_the_whole_holdout(tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny_config(label_window_hours=36, embargo_days=2), TINY_AS_OF)
    plan = make_plan(run)
    assert plan.holdout.end_ms == january("18 12:00")
    assert plan.holdout.start_ms == january("17 12:00")
    assert plan.training.end_ms == january("15 12:00")


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


def test_numbers_are_counted_before_the_request(tiny: Snapshot) -> None:
    examples = rows_of(tiny, "examples")
    popularity = np.expm1([row["num_pin_popularity"] for row in examples]).round(5)
    engagements = np.expm1([row["num_past_engagements"] for row in examples]).round(5)
    # A: 10, 20; C: 10, 30; D: 20, 10; B: 20, 30 (each request by position)
    # (pin 30 on the 18th: the long click; the repin became known at that very midnight)
    assert popularity.tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert engagements.tolist() == [0, 0, 1, 0, 1, 2, 1, 0]


def test_core_is_a_recent_repin_known_before_the_request(tiny: Snapshot) -> None:
    found = {r["request_id"]: r["is_core"] for r in rows_of(tiny, "requests")}
    # B's user repinned at 12 08:00, four hours too early for four days.
    assert found == {"A": False, "C": True, "D": True, "B": False}


@pytest.mark.parametrize(("when", "is_core"), [("12 12:00", True), ("12 11:59:59.999", False)])
def test_the_core_window_includes_its_start(tmp_path: Path, when: str, is_core: bool) -> None:
    actions = [row for row in tiny_actions() if row["user_id"] == 1]
    write_tiny_log(tmp_path / "event_log", actions=[*actions, acted(2, 20, "repin", when, when)])
    requests = rows_of(build(tmp_path), "requests")
    assert [r["is_core"] for r in requests if r["request_id"] == "B"] == [is_core]


def test_user_rows_are_the_latest_not_after_the_request(tiny: Snapshot) -> None:
    users, requests = rows_of(tiny, "users"), rows_of(tiny, "requests")
    as_of = {r["request_id"]: users[r["user_row"]]["as_of"] for r in requests}
    same_day = january("15 00:00")
    assert as_of == {"A": same_day, "C": same_day, "D": same_day, "B": 0}
    assert users[requests[3]["user_row"]]["embedding"] == [0.0] * 32  # nobody knows user 2 yet
    assert [user["user_id"] for user in users] == [1, 2]


def test_only_referenced_pins_are_kept_with_their_embedding(tiny: Snapshot) -> None:
    pins = open_table(local_path(tiny.uri), "pins.arrow")
    assert pins["pin_id"].to_pylist() == [10, 20, 30, 40]
    assert pins["embedding"][3].as_py() == pytest.approx([0.4] * 32)
    assert tiny.num_pins == 4


def test_files_have_the_contract_schema_and_one_batch(tiny: Snapshot) -> None:
    folder = local_path(tiny.uri)
    assert open_table(folder, "pins.arrow").schema.equals(PIN_ROWS)
    assert open_table(folder, "shard-00000/timeline.arrow").schema.equals(TIMELINE)
    assert open_table(folder, "shard-00000/requests.arrow").schema.equals(REQUESTS)
    examples = open_table(folder, "shard-00000/examples.arrow")
    assert examples.schema.names == [
        *("pin_row", "position", "is_exploration", "num_pin_popularity", "num_past_engagements"),
        *("label_repin", "label_long_click", "label_save"),
    ]
    assert all(column.num_chunks == 1 for column in examples.columns)


def test_duplicate_impressions_are_dropped_and_counted(tmp_path: Path) -> None:
    again = shown("C", 1, "18 00:01", 30, 10)  # both pins once more, a minute later
    write_tiny_log(tmp_path / "event_log", impressions=[*tiny_impressions(), *again])
    snapshot = build(tmp_path)
    assert snapshot.num_duplicate_impressions == 2
    examples = rows_of(snapshot, "examples")
    assert [row["position"] for row in examples] == [0, 1] * 4


def test_an_action_of_a_request_is_not_in_its_own_sequence(tmp_path: Path) -> None:
    """Known in the very millisecond of the request: a label, but nothing the model may see."""
    actions = [*tiny_actions(), acted(1, 30, "repin", "18 00:00", "18 00:00", "C")]
    write_tiny_log(tmp_path / "event_log", actions=actions)
    requests = {r["request_id"]: r for r in rows_of(build(tmp_path), "requests")}
    assert requests["C"]["timeline_end"] == 3
    assert requests["D"]["timeline_end"] == 6


def test_an_action_before_the_request_it_names_is_refused(tmp_path: Path) -> None:
    actions = [*tiny_actions(), acted(1, 30, "repin", "17 23:59", "17 23:59", "C")]
    write_tiny_log(tmp_path / "event_log", actions=actions)
    with pytest.raises(DataContractError, match=r"names request 'C', which was shown later"):
        build(tmp_path)


def test_a_request_of_two_users_is_refused(tmp_path: Path) -> None:
    write_tiny_log(
        tmp_path / "event_log",
        impressions=[*tiny_impressions(), *shown("C", 2, "18 00:00", 40)],
    )
    with pytest.raises(DataContractError, match="request 'C' belongs to users 1 and 2"):
        build(tmp_path)


def test_categories_become_codes_and_unknown_ones_zero(tmp_path: Path) -> None:
    config = tiny_config()
    state = {"name": "state", "table": "users", "values": ("core", "non_core", "new")}
    surface = {"name": "surface", "table": "impressions", "values": ("search",)}
    features = config.features.model_dump() | {"categorical": (state, surface)}
    config = config.model_validate(config.model_dump() | {"features": features})
    write_tiny_log(tmp_path / "event_log")
    snapshot = build_snapshot(make_run(tmp_path, config, TINY_AS_OF))
    assert [user["cat_state"] for user in rows_of(snapshot, "users")] == [1, 3]
    assert {row["cat_surface"] for row in rows_of(snapshot, "examples")} == {0}


def test_verify_names_the_altered_and_the_missing_file(tmp_path: Path) -> None:
    write_tiny_log(tmp_path / "event_log")
    snapshot = build(tmp_path)
    folder = local_path(snapshot.uri)
    verify_files(snapshot, folder)
    victim = folder / "shard-00000" / "examples.arrow"
    flip_a_byte(victim)
    with pytest.raises(DataContractError, match=r"examples\.arrow was altered"):
        verify_files(snapshot, folder)
    victim.unlink()
    with pytest.raises(DataContractError, match=r"examples\.arrow is missing"):
        verify_files(snapshot, folder)


def test_users_are_spread_by_a_hash_that_never_changes() -> None:
    ids = np.arange(100_000, dtype=np.int64)
    counts = np.bincount(shard_of(ids, 8), minlength=8)
    assert counts.min() > 12_000
    # Worked out once with Python's own integers: SplitMix64 of 0 is 0xE220A8397B1DCDAF.
    assert shard_of(np.array([0]), 1 << 16)[0] == 0xE220A8397B1DCDAF % (1 << 16)
    assert shard_of(np.array([-1]), 8)[0] in range(8)
