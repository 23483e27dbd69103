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
SWEEP_LOCK = ".sweep.lock"
"""Held in a folder while scratch folders are made and orphans of them are removed."""
SWEEP_WAIT_S = 600.0
"""How long a process waits for another one's sweep, which may have much to delete, in seconds."""


@contextlib.contextmanager
def scratch_in(parent: Path) -> Iterator[Path]:
    """Give an empty folder in a folder that is there, and remove it afterwards.

    While it is used, the lock beside it is held, which the kernel frees when the process dies: so
    the next call removes a folder that a killed process left, and leaves that of a live one, though
    it may be in another container.
    """
    folder = _scratch_name(parent)
    lock = _lock_beside(folder)
    with contextlib.ExitStack() as held:
        # Whoever looks for orphans never meets a lock whose owner is about to make the folder, so
        # a lock that nobody holds is an orphan too, at once and not after some time.
        with _sweeping(parent):
            held.enter_context(files.hold_lock(lock, "a scratch folder"))
            held.callback(lock.unlink, missing_ok=True)
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        yield folder


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
    moved = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in moved:
        new = target / path.relative_to(folder)
        files.make_folder(new.parent)
        _bring_file(path, new)
    for parent in sorted({(target / path.relative_to(folder)).parent for path in moved}):
        files.sync_folder(parent)


def settle(target: Path) -> None:
    """End the replacing of a folder, which a kill may have interrupted.

    An old folder that is aside is put back where no new one has taken its place, and deleted where
    one has, as are scratch folders of processes that are gone. The caller is the only one who
    replaces the folder.
    """
    target = target.resolve()
    if target.parent.exists():
        with _sweeping(target.parent):
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


def _bring(folder: Path, new: Path) -> None:
    """Move a folder to a path, also from another file system; nothing is at the path."""
    try:
        os.rename(folder, new)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(folder, new, symlinks=True)
        shutil.rmtree(folder, ignore_errors=True)


def _bring_file(path: Path, new: Path) -> None:
    """Move a file that is on the disk to a path, also from another file system."""
    try:
        os.rename(path, new)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(path, new)
        with new.open("rb") as stream:
            os.fsync(stream.fileno())


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _scratch_name(parent: Path) -> Path:
    return parent / f".scratch-{uuid.uuid4().hex}"


def _lock_beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextlib.contextmanager
def _sweeping(parent: Path) -> Iterator[None]:
    """Sweep a folder, and let nobody else sweep it before the block has ended."""
    lock = parent / SWEEP_LOCK
    with files.hold_lock(lock, "a sweep of scratch folders", SWEEP_WAIT_S):
        _sweep_orphans(parent)
        yield
        # Whoever has opened it and waits sees that it has no name any more, and opens anew.
        lock.unlink()


def _sweep_orphans(parent: Path) -> None:
    """Delete scratch folders and locks of them that no living process holds.

    What cannot be looked at, such as another user's, is left for its owner.
    """
    found = {each.name.removesuffix(".lock") for each in parent.glob(".scratch-*")}
    for orphan in (parent / name for name in sorted(found)):
        lock = _lock_beside(orphan)
        with contextlib.suppress(HomefeedError), files.hold_lock(lock, "a scratch folder"):
            log.info("removing %s, left by a process that is gone", orphan)
            shutil.rmtree(orphan, ignore_errors=True)
            lock.unlink(missing_ok=True)
