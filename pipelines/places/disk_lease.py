"""The lease on a local disk: a lock file. The kernel frees it when its holder dies.

    <place>.lock    process id of the holder; number of the lease

A holder that is stopped keeps its lock, so this lease is never lost while its holder lives. Not for
object stores (`store_lease`).
"""

import contextlib
import fcntl
import os
from pathlib import Path

from pipelines.contracts.files import hold_numbered_lock
from pipelines.places.lease import Lease

_LOOK_S = 0.2
"""How long a place is tried for at least, in seconds: who looks whether it is held (`is_locked`)
keeps others from it for a moment, and is no holder."""


class DiskLease(Lease):
    """A lock file that is held."""

    def __init__(self, place: str, purpose: str, number: int, held: contextlib.ExitStack) -> None:
        super().__init__(place, purpose, number)
        self._held = held

    @property
    def is_lost(self) -> bool:
        """False: the kernel frees the lock of a dead process only."""
        return False

    def renew(self) -> None:
        """Do nothing: the lock has no end."""

    def require_held(self) -> None:
        """Return at once: who can call this is alive, and holds the lock."""

    def release(self) -> None:
        """Free the lock; its file stays, with the number."""
        self._held.close()


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock file; it is neither made nor written."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # A shared lock is refused by a holder, and not by another process that only looks.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # Which of the two depends on the file system.
        return True
    finally:
        os.close(descriptor)  # This also frees the lock, which was held for a moment.
    return False


def acquire(place: str, path: Path, purpose: str, wait_s: float) -> DiskLease:
    """Take the lock file of a place.

    Args:
        place: URI of what is held.
        path: the lock file; its folder is there.
        purpose: what for, for the message.
        wait_s: how long to wait for another holder, in seconds; less than `_LOOK_S` counts as that.

    Raises:
        RunInProgressError: somebody else holds it, and still does after that time.
        HomefeedError: the disk is full, or the file cannot be made there.
    """
    with contextlib.ExitStack() as stack:
        number = stack.enter_context(hold_numbered_lock(path, purpose, max(wait_s, _LOOK_S)))
        return DiskLease(place, purpose, number, stack.pop_all())
