"""A snapshot takes unchanged days from what an earlier one read, and its bytes stay the same."""

import errno
import logging
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.features.numeric import NumericFeature
from pipelines.contracts.files import unfinished
from pipelines.contracts.time import to_ms
from pipelines.event_log import reader
from pipelines.snapshot.build import write_snapshot
from pipelines.snapshot.reuse import shelf
from pipelines.storage import to_uri
from support.random_log import AS_OF, config_of, write_random_log
from support.runs import make_run

PRICE = NumericFeature(name="impressions.price")
LONG_AGO_S = 3600


def settle(folder: Path) -> None:
    """Let all files of the event log have been written an hour ago."""
    for path in (folder / "event_log").rglob("*.parquet"):
        os.utime(path, (time.time() - LONG_AGO_S, time.time() - LONG_AGO_S))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_random_log(tmp_path / "event_log")
    settle(tmp_path)
    return tmp_path


def build(folder: Path, as_of: datetime = AS_OF, config: RunConfig | None = None) -> Snapshot:
    return write_snapshot(make_run(folder, config or config_of(PRICE), as_of), num_workers=2)


def build_anew(folder: Path, as_of: datetime = AS_OF, config: RunConfig | None = None) -> Snapshot:
    """Build in a workspace where nothing is kept."""
    run = make_run(
        folder, config or config_of(PRICE), as_of, workspace_uri=to_uri(folder / "other")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOMEFEED_SNAPSHOT_DAYS", "off")
        return write_snapshot(run)


def packs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("days/*/*.arrow"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the day folders whose rows are read from the log."""
    found: list[str] = []
    original = reader._Scan.read

    def count(scan: reader._Scan, event_log: object, files: list) -> object:
        found.extend(f"{each.table}/{Path(each.path).parent.name}" for each in files if each.day)
        return original(scan, event_log, files)  # type: ignore[arg-type]

    monkeypatch.setattr(reader._Scan, "read", count)
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label_window_hours": 30},  # windows begin and end within days
        {"history_days": 9, "num_shards": 3},
        {"training_days": 12, "embargo_days": 2},
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_bytes_are_those_of_a_build_from_nothing(tmp_path: Path, changes: dict, seed: int) -> None:
    write_random_log(tmp_path / "event_log", seed)
    settle(tmp_path)
    config = config_of(PRICE, **changes)
    for days in (6, 4, 1, 0, 3):
        as_of = AS_OF - timedelta(days=days)
        assert build(tmp_path, as_of, config) == build_anew(tmp_path, as_of, config).model_copy(
            update={"uri": build(tmp_path, as_of, config).uri}
        )
    assert packs(tmp_path)


def test_only_new_days_are_read(log: Path, read: list[str]) -> None:
    build(log, AS_OF - timedelta(days=4))
    read.clear()
    build(log)
    # Of the days before, some rows of the last two became known later; 11 to 14 are new.
    first_again = (AS_OF - timedelta(days=6)).date()
    days_read = {name.partition("day=")[2] for name in read if name.startswith("actions")}
    assert min(days_read) >= f"{first_again}" and len(days_read) <= 6
    read.clear()
    build(log)
    assert len({name for name in read if name.startswith("actions")}) <= 2


def test_a_rewritten_day_is_read_again_and_named(
    log: Path, read: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = build(log).digest
    path = sorted((log / "event_log/actions").glob("day=2017-02-1*/*.parquet"))[0]
    rows = pq.read_table(path, partitioning=None)
    kinds = pa.array(["click"] * len(rows), pa.string())
    index = rows.schema.get_field_index("action_type")
    pq.write_table(rows.set_column(index, rows.schema.field(index), kinds), path)
    os.utime(path, (time.time() - 60, time.time() - 60))
    read.clear()
    with caplog.at_level(logging.INFO, shelf.__name__):
        after = build(log)
    assert after.digest == build_anew(log).digest != before
    assert f"actions/{path.parent.name}" in read
    assert f"1 were written again since: actions/{path.parent.name}/{path.name}" in caplog.text


def test_a_file_that_is_young_is_not_kept(log: Path) -> None:
    for path in (log / "event_log").rglob("*.parquet"):
        os.utime(path)
    build(log)
    assert packs(log) == []


def test_rows_known_after_as_of_are_waited_for(log: Path) -> None:
    """What is kept of a day is all of it, so a day with rows to come is not kept yet."""
    early = AS_OF - timedelta(days=4)
    build(log, early)
    kept = {file.path for path in packs(log) for file in shelf.read_header(path).files}
    late = {
        path.relative_to(log / "event_log").as_posix()
        for table in ("impressions", "actions")
        for path in (log / "event_log" / table).rglob("*.parquet")
        if max(pq.read_table(path, partitioning=None)["known_at"].to_pylist()) >= to_ms(early)
    }
    last_days = {path for path in late if path.split("=")[1] < f"{early.date()}"}
    assert len(kept) > 40 and last_days and not kept & late


def test_rows_of_one_task_that_wait_in_files_are_all_there(log: Path) -> None:
    """Files of another type are read one by one, and here none of them can be kept."""
    for path in sorted((log / "event_log/actions").glob("day=2017-02-*/*.parquet"))[::2]:
        rows = pq.read_table(path, partitioning=None)
        place = rows.schema.get_field_index("action_type")
        large = rows["action_type"].cast(pa.large_string())
        pq.write_table(rows.set_column(place, "action_type", large), path)
    late = to_ms(AS_OF) + 1
    for path in sorted((log / "event_log/actions").glob("day=2017-02-1*/*.parquet")):
        rows = pq.read_table(path, partitioning=None)
        place, known_at = rows.schema.get_field_index("known_at"), rows["known_at"].to_pylist()
        known_at[0] = late
        field = rows.schema.field(place)
        pq.write_table(rows.set_column(place, field, pa.array(known_at, pa.int64())), path)
    settle(log)
    run = make_run(log, config_of(PRICE), AS_OF)
    assert write_snapshot(run, num_workers=2, memory_bytes=1).digest == build_anew(log).digest
    for path in packs(log):
        path.write_bytes(b"damaged")
    assert write_snapshot(run, num_workers=2, memory_bytes=1).digest == build_anew(log).digest


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_a_damaged_pack_is_removed_and_the_log_read(
    log: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = build(log).digest
    for path in packs(log):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes({"flipped": content, "cut": content[:-900], "empty": b""}[damage])
    assert build(log).digest == expected
    assert damage == "gone" or "it is removed" in caplog.text
    assert build(log).digest == expected and packs(log)


def test_a_fault_in_a_new_day_is_named_as_ever(log: Path) -> None:
    build(log, AS_OF - timedelta(days=4))
    path = sorted((log / "event_log/actions").glob("day=2017-02-27/*.parquet"))[0]
    rows = pq.read_table(path, partitioning=None).to_pydict()
    rows["acted_at"][0] = rows["known_at"][0] + 1
    pq.write_table(pa.table(rows, schema=pq.read_schema(path)), path)
    settle(log)
    with pytest.raises(DataContractError, match="day=2017-02-27"):
        build(log)


def test_several_files_of_a_day_and_another_type_in_one(log: Path) -> None:
    """A day in two files, of which one has large strings: read one by one, kept one by one."""
    path = sorted((log / "event_log/actions").glob("day=2017-02-1*/*.parquet"))[0]
    rows = pq.read_table(path, partitioning=None)
    half = len(rows) // 2
    other = rows.slice(half)
    index = other.schema.get_field_index("action_type")
    large = other["action_type"].cast(pa.large_string())
    pq.write_table(rows.slice(0, half), path)
    pq.write_table(other.set_column(index, "action_type", large), path.with_name("second.parquet"))
    settle(log)
    first, again = build(log), build(log)
    assert first.digest == again.digest == build_anew(log).digest


def test_what_nobody_uses_goes_after_three_cycles(log: Path) -> None:
    build(log)
    old = time.time() - (shelf.UNUSED_DAYS + 1) * 86_400
    kept = packs(log)
    for path in kept:
        os.utime(path, (old, old))
    os.utime(kept[0])
    other, foreign = (log / "workspace/days" / name for name in ("0123456789abcdef", "mlflow"))
    for folder, name in ((other, "profiles.txt"), (other, "notes"), (foreign, "profiles.txt")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
        os.utime(folder / name, (old, old))
    build(log, config=config_of())  # another recipe reads otherwise
    assert [path for path in packs(log) if path in kept] == kept[:1]
    assert not (other / "profiles.txt").exists() and (other / "notes").exists()
    assert (foreign / "profiles.txt").exists()


def test_a_killed_writer_leaves_nothing(log: Path) -> None:
    build(log)
    unfinished = packs(log)[0].parent / f".pack.{'0' * 32}"
    unfinished.write_bytes(b"half of a pack")
    build(log)
    assert not unfinished.exists()


def test_packs_lie_where_the_settings_say(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFEED_SNAPSHOT_DAYS", "off")
    build(log)
    assert packs(log) == []
    monkeypatch.setenv("HOMEFEED_SNAPSHOT_DAYS", str(log / "elsewhere/days"))
    assert build(log).digest == build_anew(log).digest
    assert {path.parents[1] for path in packs(log)} == {log / "elsewhere/days"}


def test_a_rebuild_elsewhere_reads_the_log(
    log: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a cycle comes out the same is no question to what the first one kept."""
    monkeypatch.setenv("HOMEFEED_SNAPSHOT_DAYS", str(log / "days"))
    build(log)
    num_read = len(read)
    read.clear()
    write_snapshot(make_run(log, config_of(PRICE), AS_OF, workspace_uri=to_uri(log / "rebuilt")))
    assert len(read) == num_read


def test_an_object_store_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOMEFEED_SNAPSHOT_DAYS", raising=False)
    assert shelf.folder_of_days("s3://bucket/workspace") is None


def test_a_full_disk_keeps_nothing_and_the_snapshot_is_built(
    log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(folder: Path, pack: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(shelf, "write_pack", full)
    assert build(log).digest == build_anew(log).digest
    assert packs(log) == []
    (warning,) = (each for each in caplog.messages if "is not kept in" in each)
    assert "No space left on device" in warning and "HOMEFEED_SNAPSHOT_DAYS" in warning


def test_packs_leave_room_for_the_snapshot(
    log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shelf, "BYTES_PER_LOGGED", 1 << 40)
    assert build(log).digest == build_anew(log).digest
    assert packs(log) == [] and "are free that a snapshot may need besides" in caplog.text


def test_a_file_that_changed_since_it_was_listed_is_not_kept(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows would be found later under the size and time of the file before."""
    monkeypatch.setattr(shelf.Shelf, "is_as_listed", lambda shelf, files: False)
    assert build(log).digest == build_anew(log).digest
    assert packs(log) == []


def test_a_writer_at_work_is_not_swept(log: Path) -> None:
    build(log)
    folder = packs(log)[0].parent
    with unfinished(folder / "pack") as scratch:
        build(log)
        assert scratch.exists()
    assert not scratch.exists()


def test_where_no_folder_can_be_made_nothing_is_kept(
    log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (log / "a file").write_text("")
    monkeypatch.setenv("HOMEFEED_SNAPSHOT_DAYS", str(log / "a file" / "days"))
    assert build(log).digest == build_anew(log).digest
    assert "HOMEFEED_SNAPSHOT_DAYS" in caplog.text
