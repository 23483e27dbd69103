"""Local folders that survive a kill: scratch folders, and folders that take the place of others.

    <parent>/.scratch-<random>         a scratch folder, or an old folder that is being deleted
    <parent>/.scratch-<random>.lock    held while a scratch folder is used

Who makes a scratch folder in a parent removes those that killed processes have left there. Not for
single files (`pipelines.contracts.files`), nor for other URIs (`pipelines.storage`).
"""

import contextlib
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
    for name in sorted({each.name.removesuffix(".lock") for each in parent.glob(".scratch-*")}):
        # What cannot be looked at, such as another user's, is left for its owner.
        with contextlib.suppress(HomefeedError), _lock_beside(orphan := parent / name):
            log.info("removing %s, left by a process that is gone", orphan)
            shutil.rmtree(orphan, ignore_errors=True)
    folder = parent / f".scratch-{uuid.uuid4().hex}"
    # The folder is made under its lock: who finds a lock that nobody holds may remove both.
    with _lock_beside(folder, _SWEEP_WAIT_S):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, target: Path) -> None:
    """Let a folder take the place of what is at a path.

    It is brought to the target's file system and to the disk. Then the old one is moved aside, and
    the new one into its place; if that fails the old one is put back. A kill between the two
    renames leaves nothing there: what was to be published is made again.

    Args:
        folder: What is moved; it is gone from where it was.
        target: Its new path. A link is followed.
    """
    target = target.resolve()
    files.make_folder(target.parent)
    with scratch_in(target.parent) as scratch:
        new, old = scratch / folder.name, scratch / ".old"
        shutil.move(folder, new)  # It copies from another file system.
        files.sync_tree(new)
        if target.is_dir():
            os.rename(target, old)
        try:
            os.rename(new, target)
        except BaseException:
            if old.is_dir():  # Else it would go with the scratch folder.
                os.rename(old, target)
            raise
        files.sync_folder(target.parent)


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
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        new = target / path.relative_to(folder)
        files.make_folder(new.parent)
        shutil.move(path, new)
        files.sync_file(new)
        files.sync_folder(new.parent)


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
