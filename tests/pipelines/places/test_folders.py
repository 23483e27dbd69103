"""Folders that take the place of others: in what order, across file systems, after a failure.

That a kill leaves the old one, the new one or none is tested where event logs are published.
"""

import errno
import os
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.contracts.errors import TransientStorageError
from support.disk import events_on_disk

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
    made, target, disk = tmp_path / "made", old, events_on_disk(monkeypatch)
    rename = os.rename
    if place == "a link":
        target = tmp_path / "link"
        target.symlink_to(old)

    def within_one(source: Path, to: Path) -> None:
        if place == "other disk" and source == made:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, to)

    monkeypatch.setattr(os, "rename", within_one)
    storage.publish_folder(made, storage.to_uri(target))
    events = [each for each in disk if each.startswith("sync ") or each == "name log"]
    assert events == ["sync new.txt", "sync day", "sync made", "name log", "sync place"]
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
