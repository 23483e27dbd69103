"""The lease: exclusive access to a place, with a number that every write under it carries.

    <place>.lock    on a local disk: process id of the holder; number of the lease

The number is what others call a fencing token. The numbers of one place only grow, from holder to
holder. A holder that has lost its lease may have left files behind, and its successor has made
files of its own: those with the higher number are the successor's. Leases are taken by
`storage.exclusive_lock`; nobody holds two of one place. On a disk the kernel frees the lock file
when its holder dies. Not for object stores (`store_lease`).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.contracts.files import hold_numbered_lock

_LOOK_S = 0.2
"""How long a place is tried for at least, in seconds: who looks whether it is held (`is_locked`)
keeps others from it for a moment, and is no holder."""
_held: list["Lease"] = []
"""The leases of this process."""
# A forked child holds nothing: it has no thread that renews, and its parent goes on.
os.register_at_fork(after_in_child=_held.clear)


class Lease:
    """Exclusive access to a place until it is released. On a disk it is never lost.

    A holder that is stopped keeps its lock. Without a lock it stands for a lease where nothing has
    to be held, and several may have it at once.

    Attributes:
        place: URI of what is held.
        purpose: What for, as people are told.
        number: Higher than that of every holder before, from 1 on; 0 where nothing is held.
    """

    def __init__(
        self, place: str, purpose: str, number: int, lock: contextlib.ExitStack | None = None
    ) -> None:
        self.place = place
        self.purpose = purpose
        self.number = number
        self._lock = lock

    @property
    def is_lost(self) -> bool:
        """Whether another process is known to have taken the place."""
        return False

    def renew(self) -> None:
        """Keep the lease for its full time from now on.

        Raises:
            RunInProgressError: another process has taken the place.
            TransientStorageError: the store does not answer.
        """

    def require_held(self) -> None:
        """Return if the place is still ours; called before everything that others will see.

        Raises:
            RunInProgressError: another process has taken the place.
            TransientStorageError: the lease's time is over and the store does not answer.
        """

    def release(self) -> None:
        """Give the place back. A lease that is lost already is left to its new holder."""
        if self._lock is not None:
            self._lock.close()


def take_lock(place: str, path: Path, purpose: str, wait_s: float) -> Lease:
    """Take the lock file of a place.

    Args:
        place: URI of what is held.
        path: The lock file; its folder is there.
        purpose: What for, for the message.
        wait_s: How long to wait for another holder, in seconds; less than `_LOOK_S` counts as that.

    Raises:
        RunInProgressError: somebody else holds it, and still does after that time.
        HomefeedError: the disk is full, or the file cannot be made there.
    """
    with contextlib.ExitStack() as stack:
        number = stack.enter_context(hold_numbered_lock(path, purpose, max(wait_s, _LOOK_S)))
        return Lease(place, purpose, number, stack.pop_all())


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


@contextlib.contextmanager
def holding(lease: Lease) -> Iterator[Lease]:
    """Give a lease while the block runs, and release it afterwards."""
    _held.append(lease)
    try:
        yield lease
    finally:
        _held.remove(lease)
        lease.release()


def require_held_leases() -> None:
    """Return if all leases of this process are still held.

    A process that has lost a lease writes nothing more, wherever it is, until it has left the work
    that it took the lease for.

    Raises:
        HomefeedError: as `Lease.require_held` raises.
    """
    for lease in tuple(_held):
        lease.require_held()


def number_at(place: str) -> int:
    """Return the number of the lease that this process holds of a place; 0 if it holds none."""
    return next((lease.number for lease in _held if lease.place == place), 0)
