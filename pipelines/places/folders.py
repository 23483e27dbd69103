"""Local folders that survive a kill: scratch folders, and folders that take the place of others.

    <parent>/.scratch-<random>         a scratch folder, or an old folder that is being deleted
    <parent>/.scratch-<random>.lock    held while a scratch folder is used
    <parent>/.<name>.replaced          what was at <name>, between the two renames that replace it

Who makes a scratch folder in a parent removes those that killed processes have left there. Not for
single files (`pipelines.contracts.files`), nor for other URIs (`pipelines.storage`).
"""

import contextlib
import errno
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipelines.contracts import files
from pipelines.contracts.errors import HomefeedError

log = logging.getLogger(__name__)
_SWEEP_WAIT_S = 60.0
"""How long a new folder's lock is waited for, which who looks for orphans may hold, in seconds."""


@contextlib.contextmanager
def scratch_in(parent: Path) -> Iterator[Path]:
    """Give an empty folder in a folder that is there, and remove it afterwards.

    While it is used, the lock beside it is held, which the kernel frees when the process dies: so
    the next call removes a folder that a killed process left, and leaves that of a live one, though
    it may be in another container.
    """
    _sweep_orphans(parent)
    folder = _scratch_name(parent)
    # The folder is made under its lock: who finds a lock that nobody holds may remove both.
    with _lock_beside(folder, _SWEEP_WAIT_S):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, target: Path) -> None:
    """Let a folder take the place of what is at a path.

    What takes long comes first: the folder is brought to the target's file system and to the disk.
    Then two renames follow each other, of the old folder aside and of the new one into its place,
    and the old one is deleted. A kill between the two renames leaves nothing at the path, and
    `settle` puts the old folder back there.

    Args:
        folder: What is moved; it is gone from where it was.
        target: Its new path. A link is followed.
    """
    target = target.resolve()
    files.make_folder(target.parent)
    _end_replacing(target)
    with scratch_in(target.parent) as scratch:
        new = scratch / folder.name
        _bring(folder, new)
        files.sync_tree(new)
        try:
            if target.is_dir():
                os.rename(target, _aside(target))
            os.rename(new, target)
            files.sync_folder(target.parent)
        finally:
            _end_replacing(target)


def put_beside(folder: Path, target: Path) -> None:
    """Move the files of a folder into another one, each to the same path below it.

    They and their names are on the disk before this returns. No file of the target has the name of
    one that is moved, and nobody reads such a name yet: from another file system a file is copied,
    and a kill leaves a part of it there.

    Args:
        folder: What is moved, all of it.
        target: Where it goes; its other files stay as they are.
    """
    target = target.resolve()
    files.sync_tree(folder)
    parents = set()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        new = target / path.relative_to(folder)
        files.make_folder(new.parent)
        _bring(path, new)
        parents.add(new.parent)
    for parent in sorted(parents):
        files.sync_folder(parent)


def settle(target: Path) -> None:
    """End the replacing of a folder, which a kill may have interrupted.

    An old folder that is aside is put back where no new one has taken its place, and deleted where
    one has, as are scratch folders of processes that are gone. The caller is the only one who
    replaces the folder.
    """
    target = target.resolve()
    if target.parent.exists():
        _sweep_orphans(target.parent)
        _end_replacing(target)


def _end_replacing(target: Path) -> None:
    """Put the old folder back, or delete it; the target's path has no link."""
    aside = _aside(target)
    if not aside.exists():
        return
    if target.exists():
        # A part of a folder is never put back: it has another name before its files go.
        remains = _scratch_name(aside.parent)
        os.rename(aside, remains)
        shutil.rmtree(remains, ignore_errors=True)
        return
    log.warning("%s lost its name, and no new folder took it; the old one is put back", target)
    os.rename(aside, target)
    files.sync_folder(aside.parent)


def _bring(source: Path, new: Path) -> None:
    """Move a file or folder to a path, also from another file system; nothing is at the path.

    A file is on the disk afterwards; of a folder that was copied the caller sees to that.
    """
    try:
        os.rename(source, new)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if source.is_dir():
            shutil.copytree(source, new, symlinks=True)
            shutil.rmtree(source, ignore_errors=True)
        else:
            shutil.copyfile(source, new)
            files.sync_file(new)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _scratch_name(parent: Path) -> Path:
    return parent / f".scratch-{uuid.uuid4().hex}"


@contextlib.contextmanager
def _lock_beside(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a scratch folder, and remove it afterwards.

    Who has opened it meanwhile and waits sees that it has no name any more, and opens anew.
    """
    lock = folder.with_name(f"{folder.name}.lock")
    with files.hold_lock(lock, "a scratch folder", wait_s):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _sweep_orphans(parent: Path) -> None:
    """Delete scratch folders and locks of them that no living process holds.

    What cannot be looked at, such as another user's, is left for its owner.
    """
    found = {each.name.removesuffix(".lock") for each in parent.glob(".scratch-*")}
    for orphan in (parent / name for name in sorted(found)):
        with contextlib.suppress(HomefeedError), _lock_beside(orphan):
            log.info("removing %s, left by a process that is gone", orphan)
            shutil.rmtree(orphan, ignore_errors=True)
