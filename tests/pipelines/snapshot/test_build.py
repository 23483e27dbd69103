"""What must not change a snapshot's bytes does not; what must, does; and which logs are refused."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import DataContractError, TransientStorageError
from pipelines.contracts.schemas import PINS
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import to_ms
from pipelines.event_log import reader
from pipelines.event_log.log_files import open_event_log, unchanged_meanwhile
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path, to_uri
from support import random_log
from support.random_log import config_of, write_random_log
from support.runs import PLANTED_AS_OF, make_run
from support.slow_features import SLOW
from support.tiny_log import (
    acted,
    assert_refused,
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


def digest_of_planted(folder: Path) -> str:
    return write_snapshot(make_run(folder, smoke(), PLANTED_AS_OF), num_workers=1).digest


def test_no_row_depends_on_the_number_of_workers_or_shards(tmp_path: Path) -> None:
    write_random_log(tmp_path / "event_log")
    names = [name for name in SLOW if name != "since_last_touch_of_category"]
    numeric = [NumericFeature(name=name) for name in names]
    numeric.append(NumericFeature(name="since_last_touch_of_category", category="brand"))

    def examples(snapshot: Snapshot) -> list[tuple]:
        rows, folder = [], local_path(snapshot.uri)
        for shard in snapshot.shards:
            found = open_table(folder, f"{shard.name}/examples.arrow").to_pylist()
            for request in open_table(folder, f"{shard.name}/requests.arrow").to_pylist():
                first, length = request["first_example"], request["timeline_end"]
                length -= request["timeline_start"]
                of_request = found[first : first + request["num_examples"]]
                rows += [(request["request_id"], length, *row.values()) for row in of_request]
        return sorted(rows)

    one, two = (random_log.build(tmp_path, config_of(*numeric), num_workers=n) for n in (1, 2))
    many = random_log.build(tmp_path, config_of(*numeric, num_shards=5))
    assert one.digest == two.digest
    assert examples(one) == examples(many)


def test_a_rebuild_a_year_later_and_rows_in_another_order_make_the_same_bytes(
    planted: Path, tmp_path: Path
) -> None:
    """Rows known at or after as_of change nothing: here they are all taken out."""
    log = tmp_path / "event_log"
    shutil.copytree(planted / "event_log", log)
    num_removed = 0
    for path in sorted(log.glob("*/*/*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        known = rows.filter(pa.compute.less(rows["known_at"], to_ms(PLANTED_AS_OF)))
        num_removed += len(rows) - len(known)
        pq.write_table(known.take(pa.array(range(len(known) - 1, -1, -1), pa.int64())), path)
        if len(known) == 0:
            path.unlink()
    assert num_removed > 1000
    assert digest_of_planted(tmp_path) == digest_of_planted(planted)


def digest_of_tiny(folder: Path, **rows: list) -> str:
    write_tiny_log(folder / "event_log", **rows)
    return build_tiny(folder).digest


def test_rows_known_at_as_of_change_nothing(tmp_path: Path) -> None:
    expected = digest_of_tiny(tmp_path)
    late_request = [
        row | {"known_at": january("20 00:00")} for row in shown("E", 1, "18 12:00", 10)
    ]
    late_action = acted(1, 20, "repin", "19 10:00", "20 00:00", "D")
    impressions, actions = [*tiny_impressions(), *late_request], [*tiny_actions(), late_action]
    assert digest_of_tiny(tmp_path, impressions=impressions, actions=actions) == expected


def test_pins_and_users_added_later_and_another_version_change_nothing(tmp_path: Path) -> None:
    expected = digest_of_tiny(tmp_path)
    log = tmp_path / "event_log"
    newer, older = pins_of([10, 20, 30, 40], "newer-2"), pins_of([5, 10, 20, 30, 40, 50, 60])
    write_rows(log, "pins", pa.concat_tables([newer, older]).cast(PINS))
    days = ["10 00:00", "15 00:00", "19 00:00", "20 00:00", "25 00:00"]
    write_rows(log, "users", users_of([(1, january(day)) for day in days]))
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
    known_at = january("18 00:00") + minutes_late * 60_000
    shifted = [
        row | ({"known_at": known_at} if row["acted_at"] == january("16 00:00") else {})
        for row in tiny_actions()
    ]
    write_tiny_log(tmp_path / "event_log", actions=shifted)
    folder = local_path(build_tiny(tmp_path).uri)
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
    types = (*config.features.action_types, "closeup")
    longer = config.features.model_copy(update={"action_types": types})
    first = build_tiny(tmp_path, config)
    second = build_tiny(tmp_path, config.model_copy(update={"features": longer}))
    one, other = ([f.sha256 for f in s.files if "shard" in f.path] for s in (first, second))
    assert one == other and first.digest != second.digest
    assert second.features.action_types[-1] == "closeup"


@pytest.mark.parametrize(
    "as_of", [datetime(2016, 6, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)]
)
def test_an_as_of_outside_the_log_says_what_it_covers(log: Path, as_of: datetime) -> None:
    assert_refused(log.parent, "covers 2017-01-14 to 2017-01-19; choose an as_of", as_of=as_of)


def test_rows_that_all_became_known_too_late_leave_an_empty_window(log: Path) -> None:
    late = [row | {"known_at": january("25 00:00")} for row in tiny_impressions()]
    write_tiny_log(log, impressions=late)
    assert_refused(
        log.parent, "no impressions known before as_of 2017-01-20 in the training window"
    )


@pytest.mark.parametrize(("request_id", "window"), [("C", "holdout"), ("A", "training")])
def test_a_window_without_positives_is_refused(log: Path, request_id: str, window: str) -> None:
    actions = [a for a in tiny_actions() if a["request_id"] != request_id and a["user_id"] == 1]
    write_tiny_log(log, actions=actions)
    assert_refused(log.parent, f"no impression in the {window} window .* got a 'repin' within 24 h")


NAME = "actions/day=2017-01-15/part-0.parquet"


def write_while_reading(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Change something when the first file is opened."""
    changes, original = [change], reader._scan

    def read(*arguments: Any) -> object:
        if changes:
            changes.pop()()
        return original(*arguments)

    monkeypatch.setattr(reader, "_scan", read)


def shorter(path: Path) -> None:
    rows = pq.read_table(path, partitioning=None)
    written = path.with_name(".new")
    pq.write_table(rows.slice(0, 0), written)
    written.replace(path)


@pytest.mark.parametrize(
    "change",
    [shorter, Path.unlink, lambda path: path.write_bytes(b"PAR1 is being written")],
    ids=["replaced", "removed", "half written"],
)
def test_a_file_written_while_others_are_read_is_named_and_the_next_attempt_reads_it(
    log: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    before = (log / NAME).read_bytes()
    write_while_reading(monkeypatch, lambda: change(log / NAME))
    with pytest.raises(TransientStorageError, match=f"changed while it was read: {NAME}") as caught:
        build_tiny(log.parent)
    assert "let the writer finish, then retry" in str(caught.value)
    assert not any((log.parent / "workspace" / "snapshots").glob("*/manifest.json"))
    (log / NAME).write_bytes(before)
    assert build_tiny(log.parent).num_requests == 4


def test_files_that_come_in_addition_are_no_change(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = build_tiny(log.parent)
    more = (log / NAME).with_name("part-9.parquet")
    write_while_reading(monkeypatch, lambda: more.write_bytes((log / NAME).read_bytes()))
    assert build_tiny(log.parent) == expected


def test_a_fault_of_a_log_at_rest_stays_a_fault_of_the_log(log: Path) -> None:
    event_log = open_event_log(to_uri(log))
    with pytest.raises(DataContractError, match="broken"):  # noqa: SIM117
        with unchanged_meanwhile(event_log, event_log.files):
            raise DataContractError("broken")
