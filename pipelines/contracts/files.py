"""Local files: written whole or not at all, recognised by their sha256, and locked.

Not for files at other URIs: `pipelines.storage` has those, and calls this module for local ones.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.contracts.artifacts import FileDigest
from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.errors import RunInProgressError, explain_os_error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The content goes to a file beside it, reaches the disk, and takes the name by a rename.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is not made from the process id: containers on several nodes often have the same.
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with scratch.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_json(path: Path, value: Frozen) -> None:
    """Write a frozen value as JSON, whole or not at all."""
    write_whole(path, to_json(value))


def to_json(value: Frozen) -> bytes:
    """Return a frozen value as the JSON text that its file holds."""
    return value.model_dump_json(indent=2).encode()


def sha256_of(path: Path) -> str:
    """Return the sha256 (hex) of a file's content, which is never in memory as a whole."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_files(folder: Path) -> tuple[FileDigest, ...]:
    """Return the digest of every file below a folder, sorted by path."""
    return tuple(
        FileDigest(
            path=path.relative_to(folder).as_posix(),
            sha256=sha256_of(path),
            num_bytes=path.stat().st_size,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


def digest_of_files(files: tuple[FileDigest, ...]) -> str:
    """Return one digest over the files of a folder: the address of its content."""
    return digest_of([[file.path, file.sha256] for file in files])


@contextlib.contextmanager
def hold_lock(path: Path, purpose: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file for the time being; the kernel frees the lock when the process dies.

    The file stays afterwards. While the lock is held the file names the holder's process id.

    Args:
        path: the lock file, in a folder that is there.
        purpose: what the lock is wanted for, for the message.
        wait_s: how long to wait for another holder, seconds; 0 tries once.

    Raises:
        RunInProgressError: somebody else holds the lock and goes on holding it.
        TransientStorageError: the disk is full.
        ConfigurationError: the file cannot be made there.
    """
    # A soft lock, for file systems without locks, would stay for ever if its holder is killed.
    lock = FileLock(path, timeout=wait_s, poll_interval=0.1, fallback_to_soft=False)
    try:
        lock.acquire()
        path.write_text(str(os.getpid()))
    except Timeout:
        holder = path.read_text(errors="replace").strip() or "unknown"
        raise RunInProgressError(
            f"{purpose} is already running: process {holder} holds "
            f"{path}; expected nobody; wait for it to end, then try again"
        ) from None
    except OSError as error:
        lock.release()
        raise explain_os_error(error, str(path), f"locking for {purpose}:") from error
    try:
        yield
    finally:
        lock.release()
