"""The lease: exclusive access to a place, with a number that every write under it carries.

The number is what others call a fencing token. The numbers of one place only grow, from holder to
holder. A holder that has lost its lease may have left files behind, and its successor has made
files of its own: those with the higher number are the successor's. Leases are taken by
`storage.exclusive_lock`; nobody holds two of one place. Not for how a lease is kept (`disk_lease`,
`store_lease`).
"""

import abc
import contextlib
import os
from collections.abc import Iterator

_held: list["Lease"] = []
"""The leases of this process."""
# A forked child holds nothing: it has no thread that renews, and its parent goes on.
os.register_at_fork(after_in_child=_held.clear)


class Lease(abc.ABC):
    """Exclusive access to a place until it is released, or lost.

    Attributes:
        place: URI of what is held.
        purpose: What for, as people are told.
        number: Higher than that of every holder before, from 1 on.
    """

    def __init__(self, place: str, purpose: str, number: int) -> None:
        self.place = place
        self.purpose = purpose
        self.number = number

    @property
    @abc.abstractmethod
    def is_lost(self) -> bool:
        """Whether another process is known to have taken the place."""

    @abc.abstractmethod
    def renew(self) -> None:
        """Keep the lease for its full time from now on.

        Raises:
            RunInProgressError: another process has taken the place.
            TransientStorageError: the store does not answer.
        """

    @abc.abstractmethod
    def require_held(self) -> None:
        """Return if the place is still ours; called before everything that others will see.

        Raises:
            RunInProgressError: another process has taken the place.
            TransientStorageError: the lease's time is over and the store does not answer.
        """

    @abc.abstractmethod
    def release(self) -> None:
        """Give the place back. A lease that is lost already is left to its new holder."""


class NoLease(Lease):
    """Stands for a lease where nothing has to be held; several may have it at once."""

    is_lost = False

    def renew(self) -> None:
        """Do nothing."""

    def require_held(self) -> None:
        """Return at once."""

    def release(self) -> None:
        """Do nothing."""


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
