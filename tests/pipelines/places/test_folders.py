"""Folders that take the place of others: in what order, across file systems, after a kill."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import TransientStorageError
from pipelines.sources.publish import ingest
from support.text_adapter import NewerTextAdapter, TextAdapter


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder that was published before, in a folder of its own."""
    (tmp_path / "place" / "log").mkdir(parents=True)
    (tmp_path / "place" / "log" / "old.txt").write_text("old")
    return tmp_path / "place" / "log"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    (tmp_path / "made" / "day").mkdir(parents=True)
    (tmp_path / "made" / "day" / "new.txt").write_text("new")
    return tmp_path / "made"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced, renamed and deleted, in order."""
    noted: list[str] = []
    sync, rename, rmtree = os.fsync, os.rename, shutil.rmtree

    def note_sync(number: int) -> None:
        noted.append(f"sync {Path(os.readlink(f'/proc/self/fd/{number}')).name}")
        sync(number)

    def note_rename(source: Path, target: Path) -> None:
        noted.append(f"rename {_known(source)} to {_known(target)}")
        rename(source, target)

    def note_rmtree(path: Path, **options: bool) -> None:
        noted.append(f"delete {_known(path)}")
        rmtree(path, **options)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    monkeypatch.setattr(shutil, "rmtree", note_rmtree)
    return noted


def _known(path: Path) -> str:
    return "scratch" if path.name.startswith(".scratch-") else path.name


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_all_is_on_the_disk_before_the_old_folder_loses_its_name(
    old: Path, new: Path, calls: list[str]
) -> None:
    storage.publish_folder(new, storage.to_uri(old))
    assert calls == [
        *("rename made to made", "sync new.txt", "sync day", "sync made"),
        *("rename log to .log.replaced", "rename made to log", "sync place"),
        *("rename .log.replaced to scratch", "delete scratch", "delete scratch"),
    ]
    assert names(old.parent) == ["log", "log/day", "log/day/new.txt"]
    assert not new.exists()


def test_a_folder_from_another_file_system_is_copied_and_synced_first(
    old: Path, new: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if source == new:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    storage.publish_folder(new, storage.to_uri(old))
    order = ["sync new.txt", "sync made", "rename log to .log.replaced", "rename made to log"]
    places = [calls.index(call) for call in order]
    assert places == sorted(places)
    assert names(old.parent) == ["log", "log/day", "log/day/new.txt"]
    assert not new.exists()


def test_a_rename_that_fails_leaves_the_old_folder_in_its_place(
    old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if source.name == "made" and target == old:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(TransientStorageError, match="Input/output error"):
        storage.publish_folder(new, storage.to_uri(old))
    assert names(old.parent) == ["log", "log/old.txt"]


def test_a_link_is_followed(old: Path, new: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(old)
    storage.publish_folder(new, storage.to_uri(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert names(old) == ["day", "day/new.txt"]


REPLACE = """
import os, shutil, sys
from pathlib import Path
from pipelines.sources.publish import ingest
from support.text_adapter import NewerTextAdapter

when, target = sys.argv[1], Path(sys.argv[2])
rename, rmtree = os.rename, shutil.rmtree

def die(*_, **__):
    os.kill(os.getpid(), 9)

def renamed(source, to):
    if when == "before the first":
        if Path(source) == target:
            die()
    rename(source, to)
    if when == "between" and Path(source) == target:
        die()
    if when == "after the second" and Path(to) == target:
        die()
    if when == "while deleting" and Path(source).name == f".{target.name}.replaced":
        (Path(to) / "event_log.json").unlink()
        die()

os.rename = renamed
ingest(NewerTextAdapter(), str(target))
"""


@pytest.fixture(params=["before the first", "between", "after the second", "while deleting"])
def killed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A log whose newer version was being ingested when the process was killed."""
    target = tmp_path / "log"
    ingest(TextAdapter(), str(target))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", REPLACE, request.param, str(target)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    yield request.param, target


def test_what_a_kill_left_aside_is_put_back_or_deleted_by_the_next_ingest(
    killed: tuple[str, Path],
) -> None:
    when, target = killed
    is_replaced = when in ("after the second", "while deleting")
    assert target.exists() == (when != "between")
    # The old adapter's ingest finds the old log where the new one has not taken its place.
    found = ingest(TextAdapter() if not is_replaced else NewerTextAdapter(), str(target))
    assert found.made_by == ("text-2" if is_replaced else "text-1")
    assert not (target.parent / ".log.replaced").exists()
    ingest(NewerTextAdapter(), str(target))
    left = [name for name in names(target.parent) if not name.endswith(".lock")]
    assert left == ["log", "log/event_log.json", "log/pins", "log/pins/text-2.txt"]
