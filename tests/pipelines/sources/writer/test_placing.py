"""A log is as before or as after, whenever its writer is killed, and whatever the storage is."""

import errno
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import ConfigurationError, DataContractError, TransientStorageError
from pipelines.contracts.schemas import EVENT_LOG_TABLES
from pipelines.event_log.log_files import open_event_log
from pipelines.event_log.record import RECORD_FILE, list_below
from pipelines.sources import EventLogWriter
from pipelines.sources.publish import ingest
from pipelines.sources.world.adapter import WorldAdapter
from pipelines.storage import to_uri
from support.killed_writers import kill_before_change
from support.object_store import cut_off_uploads
from support.own_tables import (
    VERSION,
    acted_on,
    pins,
    record_of,
    rows_of_log,
    shown_on,
    users,
    write_own_log,
)
from support.small_world import SMALL


def add_days(location: str | Path) -> None:
    """Replace 3 January, and add 4 January with a new pin and users of another day."""
    with EventLogWriter(location, VERSION, replace_days=True) as writer:
        writer.impressions(shown_on(3, num_requests=1))
        writer.impressions(shown_on(4))
        writer.actions(acted_on(3)[:1])
        writer.pins(pins(3, 4))
        writer.users(users(day=8))


def content(location: str | Path) -> dict[str, list]:
    return {table: rows_of_log(location, table) for table in EVENT_LOG_TABLES}


def test_an_increment_that_is_killed_anywhere_is_there_or_not(tmp_path: Path) -> None:
    write_own_log(tmp_path / "before", 2, 3)
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    add_days(tmp_path / "after")
    before, after = content(tmp_path / "before"), content(tmp_path / "after")
    found, number = [], 0
    while True:
        log = tmp_path / f"killed-{number}" / "log"
        shutil.copytree(tmp_path / "before", log)
        was_killed = kill_before_change(number, partial(add_days, log))
        assert content(log) in (before, after), f"before change {number}"
        found.append(content(log) == after)
        if not was_killed:
            break
        if found[-1]:
            write_own_log(log)  # nothing is given, and the place is put in order
        else:
            add_days(log)
        assert content(log) == after
        below = {path.relative_to(log).as_posix() for path in log.rglob("*.parquet")}
        assert below == set(record_of(log).files), "what the killed writer left is gone"
        number += 1
    # As before up to one change, the write of the record, and as after from there on.
    assert found == sorted(found) and False in found and found[-2]
    assert number >= 8


def test_an_increment_is_added_to_a_log_on_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own_log(tmp_path / "disk" / "log", 2, 3)
    shutil.copytree(tmp_path / "disk" / "log", tmp_path / "expected")
    add_days(tmp_path / "expected")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "log").symlink_to(tmp_path / "disk" / "log")
    rename = os.rename

    def within_one_file_system(source: Path, target: Path) -> None:
        if ("disk" in Path(source).parts) != ("disk" in Path(target).parts):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", within_one_file_system)
    add_days(tmp_path / "here" / "log")
    assert content(tmp_path / "disk" / "log") == content(tmp_path / "expected")
    assert (tmp_path / "here" / "log").is_symlink()
    assert [path.name for path in (tmp_path / "here").iterdir() if path.is_dir()] == ["log"]


def test_a_new_log_that_is_killed_anywhere_is_whole_or_not_there(tmp_path: Path) -> None:
    number = 0
    while kill_before_change(number, partial(write_own_log, tmp_path / str(number) / "log", 2)):
        log = tmp_path / str(number) / "log"
        assert not log.exists() or record_of(log).num_rows["impressions"] == 9
        write_own_log(log, *([] if log.exists() else [2]))
        assert len(rows_of_log(log, "impressions")) == 9
        assert [path.name for path in log.parent.iterdir() if path.is_dir()] == ["log"]
        number += 1
    assert number >= 1


def test_an_unfinished_log_on_a_store_is_refused_and_written_anew(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"{s3_uri}/log"
    with monkeypatch.context() as broken:
        cut_off_uploads(broken)
        with pytest.raises(TransientStorageError, match="reset"):
            write_own_log(location, 2)
    with pytest.raises(
        DataContractError, match=r"is not finished: ingesting.json .* run again what"
    ):
        open_event_log(location)
    write_own_log(location, 3)
    shown = {row["request_id"] for row in rows_of_log(location, "impressions")}
    assert shown == {"3-0", "3-1", "3-2"}
    assert "ingesting.json" not in storage.list_names(location)


def test_a_log_on_a_store_that_is_whole_but_for_a_killed_writer_s_last_step_is_added_to(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"{s3_uri}/log"
    with monkeypatch.context() as killed:
        killed.setattr(storage, "remove", lambda uri: uri.endswith("ingesting.json") and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_own_log(location, 2)
    with pytest.raises(DataContractError, match="is not finished"):
        open_event_log(location)
    with EventLogWriter(location, VERSION) as writer:  # all that a new log needs as well
        writer.pins(pins(3, 4))
        writer.impressions(shown_on(3))
        writer.actions(acted_on(3))
    shown = {row["request_id"] for row in rows_of_log(location, "impressions")}
    assert shown == {"2-0", "2-1", "2-2", "3-0", "3-1", "3-2"}
    assert record_of(location).generation == 2


def test_an_increment_that_is_cut_off_on_a_store_is_not_read(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"{s3_uri}/log"
    write_own_log(location, 2, 3)
    before = content(location)
    with monkeypatch.context() as broken:
        cut_off_uploads(broken)
        with pytest.raises(TransientStorageError, match="reset"):
            add_days(location)
    assert set(list_below(location, ".parquet")) > set(record_of(location).files)
    assert content(location) == before
    add_days(location)
    write_own_log(tmp_path / "local", 2, 3)
    add_days(tmp_path / "local")
    assert content(location) == content(tmp_path / "local")
    assert list_below(location, ".parquet") == list(record_of(location).files)


def test_a_file_that_the_record_names_and_that_is_gone_is_named(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    [path] = (tmp_path / "log" / "actions").rglob("*.parquet")
    path.rename(path.with_name("part-000001-999999.parquet"))
    with pytest.raises(
        DataContractError, match=rf"lacks actions/day=2024-01-02/{path.name} \(1 such"
    ):
        open_event_log(to_uri(tmp_path / "log"))


def test_a_file_that_somebody_else_put_there_is_named(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    [path] = (tmp_path / "log" / "actions").rglob("*.parquet")
    shutil.copy(path, path.with_name("mine.parquet"))
    with pytest.raises(
        DataContractError, match=r"has actions/day=2024-01-02/mine.parquet \(1 such"
    ):
        open_event_log(to_uri(tmp_path / "log"))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    write_own_log(tmp_path / "log", 2)
    (tmp_path / "log" / RECORD_FILE).write_text("{}")
    with pytest.raises(DataContractError, match="event_log.json is not a valid EventLogRecord"):
        open_event_log(to_uri(tmp_path / "log"))


def test_an_adapters_log_has_a_record_and_is_not_added_to(tmp_path: Path) -> None:
    world = SMALL.model_copy(update={"num_users": 40})
    made = ingest(WorldAdapter(world), str(tmp_path / "log"))
    says = record_of(tmp_path / "log")
    assert says.made_by == "world-1"
    assert says.num_rows["impressions"] == made.num_impressions
    assert says.num_rows["actions"] == sum(says.days["actions"].values()) == made.num_actions
    assert says.embedding_versions["world-1"].embedding_dim == 32
    with (
        pytest.raises(ConfigurationError, match="is the event log of the adapter world-1"),
        EventLogWriter(tmp_path / "log", "world-1"),
    ):
        pass
