"""Folders that take the place of others: in what order, across file systems, after a kill."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import TransientStorageError
from pipelines.sources.publish import ingest
from support.text_adapter import NewerTextAdapter, TextAdapter

NEW = ["log", "log/day", "log/day/new.txt"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder that was published before, in a folder of its own; beside it lies a new one."""
    for folder, name in (("place/log", "old.txt"), ("made/day", "new.txt")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_text(name)
    return tmp_path / "place" / "log"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("place", ["here", "other disk", "a link"])
def test_all_is_on_the_disk_before_a_folder_takes_the_place_of_another(
    old: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, target, events = tmp_path / "made", old, list[str]()
    sync, rename = os.fsync, os.rename
    if place == "a link":
        target = tmp_path / "link"
        target.symlink_to(old)

    def note_sync(number: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        sync(number)

    def within_one(source: Path, to: Path) -> None:
        if place == "other disk" and source == made:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        if to == old:
            events.append("in place")
        rename(source, to)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", within_one)
    storage.publish_folder(made, storage.to_uri(target))
    assert events == ["new.txt", "day", "made", "in place", "place"]
    assert names(old.parent) == NEW and not made.exists()
    assert target.is_symlink() == (place == "a link")


def test_a_failure_leaves_the_old_folder_in_its_place(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def fail(source: Path, to: Path) -> None:
        if (source.name, to) == ("made", old):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, to)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(TransientStorageError, match="Input/output error"):
        storage.publish_folder(tmp_path / "made", storage.to_uri(old))
    assert names(old.parent) == ["log", "log/old.txt"]


REPLACE = """
import os, sys
from pipelines.sources.publish import ingest
from support.text_adapter import NewerTextAdapter

when, target, rename = sys.argv[1], sys.argv[2], os.rename

def die(source, to):
    is_last = str(to) == target
    if is_last and when == "between" or str(source) == target and when == "before":
        os.kill(os.getpid(), 9)
    rename(source, to)
    if is_last:
        os.kill(os.getpid(), 9)

os.rename = die
ingest(NewerTextAdapter(), target)
"""


@pytest.mark.parametrize(
    ("when", "adapter", "num_written"),
    [("before", TextAdapter, 0), ("between", NewerTextAdapter, 1), ("after", NewerTextAdapter, 0)],
)
def test_a_kill_leaves_the_old_folder_the_new_one_or_none_and_the_next_clears_up(
    tmp_path: Path, when: str, adapter: type[TextAdapter], num_written: int
) -> None:
    target = tmp_path / "log"
    ingest(TextAdapter(), str(target))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", REPLACE, when, str(target)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    assert len([*tmp_path.glob(".scratch-*")]) > 1
    found = adapter()
    record = ingest(found, str(target))
    assert (record.made_by, found.num_written) == (adapter.version, num_written)
    shutil.rmtree(target)
    ingest(NewerTextAdapter(), str(target))
    left = [name for name in names(tmp_path) if not name.endswith(".lock")]
    assert left == ["log", "log/event_log.json", "log/pins", "log/pins/text-2.txt"]
