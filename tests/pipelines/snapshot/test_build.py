"""What must not change a snapshot's bytes does not; what must, does; and which logs are refused."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import NumericFeature
from pipelines.contracts.errors import TransientStorageError
from pipelines.contracts.schemas import PINS
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import to_ms
from pipelines.event_log import reader
from pipelines.recipes import smoke
from pipelines.snapshot.build import write_snapshot
from pipelines.storage import local_path
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


def test_no_row_depends_on_the_number_of_workers_or_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    digests, cores = set(), "pipelines.snapshot.build.usable_cores"
    for num_workers in (1, 2):
        monkeypatch.setattr(cores, lambda number=num_workers: number)
        one = random_log.build(tmp_path, config_of(*numeric))
        digests.add(one.digest)
    many = random_log.build(tmp_path, config_of(*numeric, num_shards=5))
    assert len(digests) == 1
    assert examples(one) == examples(many)


def test_a_rebuild_a_year_later_and_rows_in_another_order_make_the_same_bytes(
    tmp_path: Path,
) -> None:
    """Rows known at or after as_of change nothing: here they are all taken out."""
    log, num_removed = tmp_path / "event_log", 0
    write_planted_world(log, num_days=67)  # a week past as_of
    run = make_run(tmp_path, smoke(), PLANTED_AS_OF)
    expected = write_snapshot(run)
    for path in sorted(log.glob("*/*/*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        known = rows.filter(pa.compute.less(rows["known_at"], to_ms(PLANTED_AS_OF)))
        num_removed += len(rows) - len(known)
        pq.write_table(known.take(pa.array(range(len(known) - 1, -1, -1), pa.int64())), path)
        if len(known) == 0:
            path.unlink()
    assert num_removed > 1000
    assert write_snapshot(run) == expected


def test_rows_known_at_as_of_are_as_if_they_never_were(log: Path) -> None:
    """A label too: the holdout keeps another."""
    too_late, label = january("20 00:00"), acted(1, 10, "repin", "18 01:00", "18 02:00", "C")
    actions = [row for row in tiny_actions() if row != label]
    actions.append(acted(1, 30, "repin", "18 04:00", "18 05:00", "C"))
    late_actions = [acted(1, 20, "click", "19 10:00", "20 00:00", "D"), label]
    late_actions = [row | {"known_at": too_late} for row in late_actions]
    late = [row | {"known_at": too_late} for row in shown("E", 1, "18 12:00", 10)]
    digests = []
    for more, others in (([], []), (late, late_actions), ([], [label])):
        write_tiny_log(log, [*tiny_impressions(), *more], [*actions, *others])
        digests.append(build_tiny(log.parent).digest)
    assert digests[0] == digests[1] != digests[2]


def test_pins_and_users_added_later_and_another_version_change_nothing(log: Path) -> None:
    expected = build_tiny(log.parent).digest
    newer, older = pins_of([10, 20, 30, 40], "newer-2"), pins_of([5, 10, 20, 30, 40, 50, 60])
    write_rows(log, "pins", pa.concat_tables([newer, older]).cast(PINS))
    days = ["10 00:00", "15 00:00", "19 00:00", "20 00:00", "25 00:00"]
    write_rows(log, "users", users_of([(1, january(day)) for day in days]))
    assert build_tiny(log.parent).digest == expected


def test_settings_that_change_rows_and_what_codes_mean_are_part_of_the_digest(log: Path) -> None:
    """A longer vocabulary gives the same shards here, and yet another snapshot."""
    changes = [{}, {"history_days": 4}, {"popularity_days": 2}, {"core_days": 5}]
    changes.append({"training_days": 1})
    found = [build_tiny(log.parent, tiny_config(**each)) for each in changes]
    config = tiny_config()
    types = (*config.features.action_types, "closeup")
    longer = config.features.model_copy(update={"action_types": types})
    found.append(build_tiny(log.parent, config.model_copy(update={"features": longer})))
    assert len({each.digest for each in found}) == len(found) == 6
    one, other = ([f.sha256 for f in s.files if "shard" in f.path] for s in (found[0], found[-1]))
    assert one == other


@pytest.mark.parametrize("year", [2016, 2019])
def test_an_as_of_outside_the_log_says_what_it_covers(log: Path, year: int) -> None:
    as_of = datetime(year, 6, 1, tzinfo=UTC)
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
    changes, original = [change], reader.read_rows

    def read(*arguments: Any) -> object:
        if changes:
            changes.pop()()
        return original(*arguments)

    monkeypatch.setattr(reader, "read_rows", read)


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
    with pytest.raises(
        TransientStorageError, match=f"changed while it was read: .*{NAME}"
    ) as caught:
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
