"""The tiny log's numbers and core users, worked by hand."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.snapshot_files import open_table
from pipelines.storage import local_path
from support.random_log import build, config_of, write_random_log
from support.slow_features import SLOW
from support.tiny_log import acted, build_tiny, rows_of, tiny_actions, write_tiny_log


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
    requests = rows_of(build_tiny(tmp_path), "requests")
    assert [r["is_core"] for r in requests if r["request_id"] == "B"] == [is_core]


def test_no_feature_depends_on_the_number_of_workers_or_shards(tmp_path: Path) -> None:
    write_random_log(tmp_path / "event_log")
    names = [name for name in SLOW if name != "since_last_touch_of_category"]
    numeric = [NumericFeature(name=name) for name in names]
    numeric.append(NumericFeature(name="since_last_touch_of_category", category="brand"))

    def examples(snapshot: Snapshot) -> list[tuple]:
        rows = []
        for shard in snapshot.shards:
            folder = local_path(snapshot.uri)
            found = open_table(folder, f"{shard.name}/examples.arrow").to_pylist()
            for request in open_table(folder, f"{shard.name}/requests.arrow").to_pylist():
                first = request["first_example"]
                of_request = found[first : first + request["num_examples"]]
                rows += [(request["request_id"], *row.values()) for row in of_request]
        return sorted(rows)

    one, two = (build(tmp_path, config_of(*numeric), num_workers=n) for n in (1, 2))
    many = build(tmp_path, config_of(*numeric, num_shards=5))
    assert one.digest == two.digest
    assert examples(one) == examples(many)
