"""What must not change a snapshot's bytes does not; what must, does."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.schemas import PINS
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, to_ms
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path, to_uri
from support.runs import PLANTED_AS_OF, make_run
from support.tiny_log import (
    acted,
    build_tiny,
    january,
    pins_of,
    shown,
    tiny_actions,
    tiny_config,
    tiny_impressions,
    users_of,
    write_tiny_log,
)
from support.worlds import write_planted_world, write_rows


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a planted event log that reaches a week past as_of."""
    folder = tmp_path_factory.mktemp("planted")
    write_planted_world(folder / "event_log", num_days=67)
    return folder


def build_planted(folder: Path, place: str, workers: int = 1, **changes: object) -> Snapshot:
    config = smoke()
    config = config.model_copy(update={"snapshot": config.snapshot.model_copy(update=changes)})
    run = make_run(folder, config, PLANTED_AS_OF, workspace_uri=to_uri(folder / place))
    return write_snapshot(run, num_workers=workers)


def digest_of_tiny(folder: Path, **rows: list) -> str:
    write_tiny_log(folder / "event_log", **rows)
    return build_tiny(folder).digest


def test_one_worker_and_two_make_the_same_bytes(planted: Path) -> None:
    one, two = (build_planted(planted, f"workers{n}", n, num_shards=4) for n in (1, 2))
    assert one.digest == two.digest
    for file in one.files:
        paths = [local_path(snapshot.uri) / file.path for snapshot in (one, two)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_rebuild_a_year_later_makes_the_same_bytes(planted: Path, tmp_path: Path) -> None:
    """Rows known at or after as_of change nothing: here they are all taken out."""
    log = tmp_path / "event_log"
    shutil.copytree(planted / "event_log", log)
    num_removed = 0
    for path in sorted(log.glob("*/day=*/*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        known = rows.filter(pa.compute.less(rows["known_at"], to_ms(PLANTED_AS_OF)))
        num_removed += len(rows) - len(known)
        pq.write_table(known, path)
        if len(known) == 0:
            path.unlink()
    assert num_removed > 1000
    assert build_planted(tmp_path, "w").digest == build_planted(planted, "w").digest


def test_the_order_of_rows_in_files_changes_nothing(planted: Path, tmp_path: Path) -> None:
    log = tmp_path / "event_log"
    shutil.copytree(planted / "event_log", log)
    for path in sorted(log.glob("*/*/*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        pq.write_table(rows.take(pa.array(range(len(rows) - 1, -1, -1))), path)
    assert build_planted(tmp_path, "w").digest == build_planted(planted, "w").digest


def test_shards_hold_the_same_rows_however_many(planted: Path) -> None:
    def examples(snapshot: Snapshot) -> list[tuple]:
        found = []
        for shard in snapshot.shards:
            folder = local_path(snapshot.uri)
            rows = open_table(folder, f"{shard.name}/examples.arrow").to_pylist()
            for request in open_table(folder, f"{shard.name}/requests.arrow").to_pylist():
                first = request["first_example"]
                for row in rows[first : first + request["num_examples"]]:
                    length = request["timeline_end"] - request["timeline_start"]
                    found.append((request["request_id"], length, *row.values()))
        return sorted(found)

    one, many = (build_planted(planted, f"shards{n}", num_shards=n) for n in (1, 7))
    assert examples(one) == examples(many)


def test_rows_known_at_as_of_change_nothing(tmp_path: Path) -> None:
    expected = digest_of_tiny(tmp_path)
    late_request = shown("late", 1, "18 12:00", 10, 20)
    for row in late_request:
        row["known_at"] = january("20 00:00")
    late_action = acted(1, 20, "repin", "19 10:00", "20 00:00", "D")
    changed = digest_of_tiny(
        tmp_path,
        impressions=[*tiny_impressions(), *late_request],
        actions=[*tiny_actions(), late_action],
    )
    assert changed == expected


def test_pins_and_users_added_later_change_nothing(tmp_path: Path) -> None:
    expected = digest_of_tiny(tmp_path)
    log = tmp_path / "event_log"
    write_rows(log, "pins", pins_of([5, 10, 20, 30, 40, 50, 60]))
    days = ["10 00:00", "15 00:00", "19 00:00", "20 00:00", "25 00:00"]
    write_rows(log, "users", users_of([(1, january(day)) for day in days]))
    assert build_tiny(tmp_path).digest == expected


def test_another_version_beside_changes_nothing(tmp_path: Path) -> None:
    expected = digest_of_tiny(tmp_path)
    both = pa.concat_tables([pins_of([10, 20, 30, 40], "newer-2"), pins_of([10, 20, 30, 40, 50])])
    write_rows(tmp_path / "event_log", "pins", both.cast(PINS))
    assert build_tiny(tmp_path).digest == expected


def test_an_action_moved_past_as_of_is_as_if_it_never_was(tmp_path: Path) -> None:
    label = acted(1, 10, "repin", "18 01:00", "18 02:00", "C")
    others = [row for row in tiny_actions() if row != label]
    extra = acted(1, 30, "repin", "18 04:00", "18 05:00", "C")  # so that the holdout keeps one
    with_it = digest_of_tiny(tmp_path, actions=[*others, extra, label])
    late = label | {"known_at": january("20 00:00")}
    without = digest_of_tiny(tmp_path, actions=[*others, extra])
    assert digest_of_tiny(tmp_path, actions=[*others, extra, late]) == without != with_it


@pytest.mark.parametrize("minutes_late", [0, 1, 60])
def test_an_action_known_after_the_request_is_not_in_its_sequence(
    tmp_path: Path, minutes_late: int
) -> None:
    """Shift when one action becomes known from before request C to after it."""
    actions = tiny_actions()
    known_at = january("18 00:00") + minutes_late * 60_000
    shifted = [
        row | {"known_at": known_at} if row["acted_at"] == january("16 00:00") else row
        for row in actions
    ]
    write_tiny_log(tmp_path / "event_log", actions=shifted)
    snapshot = build_tiny(tmp_path)
    folder = local_path(snapshot.uri)
    requests = open_table(folder, "shard-00000/requests.arrow").to_pylist()
    ends = {r["request_id"]: r["timeline_end"] for r in requests}
    assert ends == {"A": 1, "C": 2, "D": 5, "B": 6}
    timeline = open_table(folder, "shard-00000/timeline.arrow")["known_at"].to_pylist()
    assert all(known < january("18 00:00") for known in timeline[: ends["C"]])


@pytest.mark.parametrize(
    "changes", [{"history_days": 4}, {"popularity_days": 2}, {"core_days": 5}, {"training_days": 1}]
)
def test_a_setting_that_changes_rows_changes_the_digest(tmp_path: Path, changes: dict) -> None:
    expected = digest_of_tiny(tmp_path)
    assert build_tiny(tmp_path, tiny_config(**changes)).digest != expected


def test_what_codes_mean_is_part_of_the_digest(tmp_path: Path) -> None:
    """A longer vocabulary gives the same shards here, and yet another snapshot."""
    write_tiny_log(tmp_path / "event_log")
    config = tiny_config()
    types = config.features.action_types
    assert types[-1] == "save"
    renamed = config.features.model_dump()
    renamed["action_types"] = (*types, "closeup")
    other = config.model_validate(config.model_dump() | {"features": renamed})
    first, second = build_tiny(tmp_path), build_tiny(tmp_path, other)
    assert [f.sha256 for f in first.files if "shard" in f.path] == [
        f.sha256 for f in second.files if "shard" in f.path
    ]
    assert first.digest != second.digest
    assert second.features.action_types[-1] == "closeup"


def test_the_planted_truth_shows_in_the_labels(planted: Path) -> None:
    """Repins happen as often as the planted probabilities say."""
    world = write_planted_world(planted / "again", num_days=67)
    snapshot = build_planted(planted, "truth")
    expected, found = 0.0, 0
    folder = local_path(snapshot.uri)
    for shard in snapshot.shards:
        requests = open_table(folder, f"{shard.name}/requests.arrow").to_pylist()
        examples = open_table(folder, f"{shard.name}/examples.arrow").to_pylist()
        for request in requests:
            first = request["first_example"]
            for row in examples[first : first + request["num_examples"]]:
                expected += world.repin_probability_UP[request["user_id"], row["pin_row"]]
                found += row["label_repin"]
    assert found == pytest.approx(expected, abs=4 * expected**0.5)
    assert to_ms(snapshot.as_of) - snapshot.holdout.end_ms == DAY_MS
