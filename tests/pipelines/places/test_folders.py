"""Folders that take the place of others: in what order, across file systems, after a kill."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import storage
from pipelines.contracts.errors import TransientStorageError
from pipelines.places import folders
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


def cannot_exchange(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_LIBC", SimpleNamespace(renameat2=lambda *_: -1))
    monkeypatch.setattr(folders.ctypes, "get_errno", lambda: code)


@pytest.mark.parametrize("place", ["here", "other disk", "NFS", "old C library", "a link"])
def test_all_is_on_the_disk_before_a_folder_takes_the_place_of_another(
    old: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, target, synced = tmp_path / "made", old, list[str]()
    sync, rename, exchange = os.fsync, os.rename, folders._LIBC.renameat2
    if place == "a link":
        target = tmp_path / "link"
        target.symlink_to(old)

    def note_sync(number: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        sync(number)

    def within_one(source: Path, to: Path) -> None:
        if place == "other disk" and source == made:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, to)

    def note_exchange(*paths: object) -> int:
        synced.append("exchanged")
        return exchange(*paths) if place != "NFS" else -1

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", within_one)
    if place == "NFS":
        cannot_exchange(errno.EINVAL, monkeypatch)
    of_library = {} if place == "old C library" else {"renameat2": note_exchange}
    monkeypatch.setattr(folders, "_LIBC", SimpleNamespace(**of_library))
    storage.publish_folder(made, storage.to_uri(target))
    assert synced == ["new.txt", "day", "made", *["exchanged"] * len(of_library), "place"]
    assert names(old.parent) == NEW and not made.exists()
    assert target.is_symlink() == (place == "a link")


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL])
def test_a_failure_leaves_the_old_folder_in_its_place(
    old: Path, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cannot_exchange(code, monkeypatch)
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
from types import SimpleNamespace
from pipelines.places import folders
from pipelines.sources.publish import ingest
from support.text_adapter import NewerTextAdapter

when, target, exchange = sys.argv[1], sys.argv[2], folders._LIBC.renameat2

def die(*paths):
    if when == "after":
        exchange(*paths)
    os.kill(os.getpid(), 9)

folders._LIBC = SimpleNamespace(renameat2=die)
ingest(NewerTextAdapter(), target)
"""


@pytest.mark.parametrize(
    ("when", "adapter"), [("before", TextAdapter), ("after", NewerTextAdapter)]
)
def test_a_kill_leaves_the_old_folder_or_the_new_one_and_the_next_clears_up(
    tmp_path: Path, when: str, adapter: type[TextAdapter]
) -> None:
    target = tmp_path / "log"
    ingest(TextAdapter(), str(target))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", REPLACE, when, str(target)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    assert len([*tmp_path.glob(".scratch-*")]) > 1
    found = adapter()
    assert ingest(found, str(target)).made_by == adapter.version and found.num_written == 0
    shutil.rmtree(target)
    ingest(NewerTextAdapter(), str(target))
    left = [name for name in names(tmp_path) if not name.endswith(".lock")]
    assert left == ["log", "log/event_log.json", "log/pins", "log/pins/text-2.txt"]
