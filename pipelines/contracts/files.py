"""Local files: written whole or not at all, recognised by their sha256, and locked.

Not for files at other URIs: `pipelines.storage` has those, and calls this module for local ones.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.contracts.artifacts import FileDigest
from pipelines.contracts.base import digest_of, sha256_of
from pipelines.contracts.errors import ConfigurationError, RunInProgressError, explain_os_error

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")
"""Names of files that are being written, beside the place that they will have."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The content goes to a file beside it, reaches the disk, and takes the name by a rename. When
    this returns, content and name have survived a loss of power.
    """
    with _beside(path, content) as scratch:
        scratch.replace(path)
    sync_folder(path.parent)


def write_new(path: Path, content: bytes) -> bool:
    """Write a file that must not be there yet, whole or not at all.

    Returns:
        Whether it was written; False if it was there before, and then it stays as it is.
    """
    with _beside(path, content) as scratch, contextlib.suppress(FileExistsError):
        # Unlike a rename, a hard link never takes the place of a file that is there.
        os.link(scratch, path)
        sync_folder(path.parent)
        return True
    return False


@contextlib.contextmanager
def _beside(path: Path, content: bytes) -> Iterator[Path]:
    """Give a file with the content, on the disk, in the folder of a path; the file is locked.

    The kernel frees the lock when the process dies. Where a file system has no locks, nothing is
    locked, and nothing is swept.
    """
    make_folder(path.parent)
    sweep_unfinished(path.parent)
    while True:
        # The name is not made from the process id: containers on several nodes often have the same.
        scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        number = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        if os.fstat(number).st_nlink:
            break
        os.close(number)  # Another writer has swept it before it was locked.
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def sweep_unfinished(folder: Path) -> None:
    """Remove the files that killed writers have left in a folder: nobody holds their locks.

    Every writer calls this for its folder. Whoever finds that nothing is left to be written,
    because a killed attempt had written all, calls it too.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _UNFINISHED.fullmatch(entry.name)]
    for name in names:
        # It may be locked, have got its place or be gone by now, or be another user's.
        with contextlib.suppress(OSError), (folder / name).open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / name).unlink()


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each of which survives a loss of power."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def own_temporary_folder(purpose: str) -> Path:
    """Return this user's private folder for one purpose, below the machine's temporary folder.

    Its name is always the same, so that a later process finds what an earlier one left.

    Raises:
        ConfigurationError: one of that name is somebody else's, a link, or open to others.
    """
    path = Path(tempfile.gettempdir()) / f"homefeed-{purpose}-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            f"{path} is not a private folder of this user: owner {found.st_uid}, mode "
            f"{stat.filemode(found.st_mode)}; expected owner {os.getuid()} and mode drwx------; "
            f"remove it, or set TMPDIR to a folder of your own"
        )
    return path


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Have the temporary files of this process made in a folder, whatever library makes them.

    It is for a folder that somebody clears after a kill; the machine's own is cleared by nobody.
    """
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def sync_folder(path: Path) -> None:
    """Bring a folder's list of names to the disk: what it holds, and not what is in the files."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sync_file(path: Path) -> None:
    """Bring what is in a file to the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_tree(folder: Path) -> None:
    """Bring all files and folders below a folder to the disk, the folder's own names last."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_file(Path(place) / name)
        sync_folder(Path(place))


def digest_files(folder: Path) -> tuple[FileDigest, ...]:
    """Return the digest of every file below a folder, sorted by path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return tuple(digest_file(path, folder) for path in paths)


def digest_file(path: Path, folder: Path) -> FileDigest:
    """Return the digest of a file, which is named by where it lies below a folder."""
    return FileDigest(
        path=path.relative_to(folder).as_posix(),
        sha256=sha256_of(path),
        num_bytes=path.stat().st_size,
    )


def digest_of_files(files: tuple[FileDigest, ...]) -> str:
    """Return one digest over the files of a folder: the address of its content."""
    return digest_of([[file.path, file.sha256] for file in files])


@contextlib.contextmanager
def hold_lock(path: Path, purpose: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file for the time being; the kernel frees the lock when the process dies.

    The file stays afterwards.

    Args:
        path: the lock file, in a folder that is there.
        purpose: what the lock is wanted for, for the message.
        wait_s: how long to wait for another holder, seconds; 0 tries once.

    Raises:
        RunInProgressError: somebody else holds the lock and goes on holding it.
        ConfigurationError: the file cannot be made there.
    """
    # A soft lock, for file systems without locks, would stay for ever if its holder is killed.
    lock = FileLock(path, timeout=wait_s, poll_interval=0.1, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunInProgressError(
            f"{purpose} is already running: another process holds {path} (`fuser` names it); "
            f"expected nobody; wait for it to end, then try again"
        ) from None
    except OSError as error:
        # On a full disk nothing is held, as on a store: who makes room on it needs none.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise explain_os_error(error, str(path), f"locking for {purpose}:") from error
    try:
        yield
    finally:
        lock.release()
