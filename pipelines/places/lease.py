"""The lease: exclusive access to a place, with a number that every write under it carries.

    <place>.lock     on a local disk: process id of the holder; number of the lease
    <place>.lease    on an object store: a LeaseState, which is only ever written on condition

The number is what others call a fencing token. The numbers of one place only grow, from holder to
holder: where a holder that lost its lease has left files behind, those with the higher number are
its successor's. Leases are taken by `storage.exclusive_lock`; nobody holds two of one place.

On a disk the kernel frees the lock file when its holder dies. On a store the holder writes the file
anew, with another count, several times in its time to live: its sign of life. Who waits watches the
file: where it has not changed for a time to live by the watcher's own clock, its holder is dead or
cut off, and the watcher takes the place. The holder counts the same time from before it asked for
its last renewal, so it stops before anybody can take over. No two clocks are compared where a place
is taken.
"""

import contextlib
import fcntl
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, Field, ValidationError

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import DataContractError, HomefeedError, RunInProgressError
from pipelines.contracts.files import hold_lock
from pipelines.places import conditional
from pipelines.places.conditional import Revision

log = logging.getLogger(__name__)

TTL_S = 60.0
"""How long after its last sign of life a holder keeps a place, in seconds. It is long against a
store that does not answer for a while, and short against a stage."""
RENEWALS_PER_TTL = 4
"""How often a holder gives a sign of life within that time."""
MARGIN = 0.6
"""Part of that time, at its end, in which a holder writes nothing without asking the store: what it
writes has to arrive while the lease is still its own, so this is longer than
`stores.LONGEST_REQUEST_S`. A holder that is answered has more left than this all the time."""
_CLAIMED_FOR = timedelta(minutes=15)
"""For how long after its last sign of life a holder counts where nobody wants the place."""
_LOOKS_PER_TTL = 20
"""How often who waits looks, and how often a holder tries again when the store does not answer."""
# Unlike the monotonic clock, this one goes on while the machine sleeps.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_LOOK_S = 0.2
"""How long a lock file is tried for at least, in seconds: who looks whether it is held
(`is_locked`) keeps others from it for a moment, and is no holder."""
_held: list["Lease"] = []
"""The leases of this process."""
# A forked child holds nothing: it has no thread that renews, and its parent goes on.
os.register_at_fork(after_in_child=_held.clear)


class Lease:
    """Exclusive access to a place while a block runs. On a disk it is never lost.

    Made directly, it stands for a lease where nothing has to be held, and several may have it.

    Attributes:
        place: URI of what is held.
        purpose: What for, as people are told.
        number: Higher than that of every holder before, from 1 on; 0 where nothing is held.
        is_lost: Another process was found to have taken the place.
    """

    def __init__(self, place: str, purpose: str, number: int) -> None:
        self.place, self.purpose, self.number = place, purpose, number
        self.is_lost = False

    def renew(self) -> None:
        """Keep the lease for its full time from now on.

        Raises:
            RunInProgressError: another process has taken the place, or it was given back.
            TransientStorageError: the store does not answer.
        """

    def require_held(self) -> None:
        """Return if the place is still ours; called before everything that others will see.

        Raises:
            RunInProgressError: another process has taken the place.
            TransientStorageError: the lease's time is over and the store does not answer.
        """


@contextlib.contextmanager
def holding_lock(place: str, path: Path, purpose: str, wait_s: float) -> Iterator[Lease]:
    """Hold the lock file of a place.

    Args:
        place: URI of what is held.
        path: The lock file; its folder is there.
        purpose: What for, for the message.
        wait_s: How long to wait for another holder, in seconds; less than `_LOOK_S` counts as that.

    Raises:
        RunInProgressError: somebody else holds it, and still does after that time.
        HomefeedError: the disk is full, or the file cannot be made there.
    """
    with hold_lock(path, purpose, max(wait_s, _LOOK_S)) as number:
        with _known(Lease(place, purpose, number)) as lease:
            yield lease


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
def _known(lease: Lease) -> Iterator[Lease]:
    _held.append(lease)
    try:
        yield lease
    finally:
        _held.remove(lease)


def require_held_leases() -> None:
    """Return if all leases of this process are still held.

    A process that has lost a lease writes nothing more, wherever it is, until it has left the work
    that it took the lease for.

    Raises:
        HomefeedError: as `Lease.require_held` raises.
    """
    for lease in tuple(_held):
        lease.require_held()


class LeaseState(Frozen):
    """What the file of a lease on an object store says."""

    number: int = Field(ge=1, description="Grows with every holder of the place.")
    holder: str = Field(description="Who holds it, for people; '' where it was given back.")
    token: str = Field(description="What a holder knows its own state by.")
    beat: int = Field(default=0, ge=0, description="Signs of life that the holder has given.")
    at: AwareDatetime = Field(description="The last of them, by the holder's own clock.")
    ttl_s: float = Field(gt=0, description="Seconds without one after which others may take it.")
    purpose: str = Field(description="What it is held for.")

    @property
    def label(self) -> str:
        """Who holds it, for people."""
        return f"{self.holder} (lease {self.number}, for {self.purpose})"


class StoreLease(Lease):
    """A lease file that this process renews in the background."""

    def __init__(self, place: str, state: LeaseState, revision: Revision, asked_at: float) -> None:
        super().__init__(place, state.purpose, state.number)
        self._state, self._revision = state, revision
        self._ends_at = asked_at + state.ttl_s
        self._guard, self._is_over = threading.Lock(), threading.Event()
        threading.Thread(target=self._keep, name=f"lease of {place}", daemon=True).start()

    def renew(self) -> None:
        """Give a sign of life, and keep the place for a time to live from now on.

        Where the time was over but nobody has taken the place, it is still this holder's.
        """
        with self._guard:
            why = "it was given back or lost before"
            if not self._is_over.is_set():
                asked_at = _now_s()
                if self._write_over_own(gives_back=False):
                    self._ends_at = asked_at + self._state.ttl_s
                    return
                self.is_lost, why = True, f"{self.place}.lease is another process's by now"
                self._is_over.set()
        raise RunInProgressError(
            f"{self.purpose}: lease {self.number} of {self.place} is lost: {why}; expected to "
            f"renew it every {self._state.ttl_s / RENEWALS_PER_TTL:g} s; nothing more is written, "
            f"because another process may be at work there; look at what it does, then try again"
        )

    def require_held(self) -> None:
        """Return if the lease has time left, or can be renewed; raises as `renew` does."""
        margin = MARGIN * self._state.ttl_s
        if self._is_over.is_set() or _now_s() >= self._ends_at - margin:
            self.renew()

    def release(self) -> None:
        """Give the place back, so that the next one need not wait; the file keeps the number."""
        with self._guard:
            if self._is_over.is_set():
                return
            self._is_over.set()
            why = f"{self.place}.lease is another process's by now"
            try:
                if self._write_over_own(gives_back=True):
                    return
            except HomefeedError as error:
                why = f"{error}; it is free after {self._state.ttl_s:g} s"
            log.warning("%s could not be given back: %s", self.place, why)

    def _write_over_own(self, *, gives_back: bool) -> bool:
        """Write a sign of life or our leave; return whether the place was still ours."""
        for _ in range(2):
            life = {"beat": self._state.beat + 1, "at": datetime.now(UTC)}
            changes = {"holder": "", "token": ""} if gives_back else life
            state = self._state.model_copy(update=changes)
            written = conditional.write(f"{self.place}.lease", state.to_record(), self._revision)
            if written is not None:
                self._state, self._revision = state, written
                return True
            # The answer to an earlier sign of life may have been lost: then what is there is ours.
            found = _read(self.place)
            if found is None or found[0].token != self._state.token:
                return False
            self._state, self._revision = found
        return False

    def _keep(self) -> None:
        """Renew until the lease is over."""
        usual_s = pause_s = self._state.ttl_s / RENEWALS_PER_TTL
        while not self._is_over.wait(pause_s):
            try:
                self.renew()
                pause_s = usual_s
            except RunInProgressError as error:
                if self.is_lost:
                    log.error("%s", error)
            except HomefeedError as error:
                log.warning("the lease of %s was not renewed: %s", self.place, error)
                pause_s = self._state.ttl_s / _LOOKS_PER_TTL


@contextlib.contextmanager
def holding_store(place: str, purpose: str, wait_s: float) -> Iterator[Lease]:
    """Hold a place on an object store, also one whose holder gives no sign of life.

    Args:
        place: URI of what is held.
        purpose: what for, for the message.
        wait_s: how long to wait for another holder, in seconds. A holder that gives no sign of life
            is waited for until its time is over, however short this is.

    Raises:
        RunInProgressError: somebody else holds it, lives, and still holds it after that time.
        ConfigurationError: the store has no conditional writes, or lets nobody in.
        TransientStorageError: the store does not answer.
    """
    lease = _acquire(place, purpose, wait_s)
    with _known(lease):
        try:
            yield lease
        finally:
            lease.release()


def _acquire(place: str, purpose: str, wait_s: float) -> StoreLease:
    deadline, since, last = _now_s() + wait_s, 0.0, None
    is_alive = any(lease.place == place for lease in _held)
    while True:
        found = _read(place)
        looked_at = _now_s()  # What was read was there when the answer came, at the latest.
        state, revision = found or (None, Revision())
        if state is not None and state.holder:
            if revision != last:
                is_alive = is_alive or last is not None
                last, since = revision, looked_at
            if looked_at - since < state.ttl_s:
                if is_alive and looked_at >= deadline:
                    raise RunInProgressError(
                        f"{purpose} is already running: {state.label} holds {place}.lease; "
                        f"expected nobody; wait for it to end, then try again (a holder that dies "
                        f"loses it after {state.ttl_s:g} s)"
                    )
                time.sleep(min(1.0, state.ttl_s / _LOOKS_PER_TTL))
                continue
            log.warning("%s gave no sign of life for %g s", state.label, state.ttl_s)
        own = LeaseState(
            number=state.number + 1 if state else 1,
            holder=f"process {os.getpid()} on {socket.gethostname()}",
            token=uuid.uuid4().hex,
            at=datetime.now(UTC),
            ttl_s=TTL_S,
            purpose=purpose,
        )
        asked_at = _now_s()
        written = conditional.write(f"{place}.lease", own.to_record(), revision)
        if written is not None:  # Else somebody was quicker.
            return StoreLease(place, own, written, asked_at)


def is_claimed(place: str) -> bool:
    """Return whether a place on an object store has a holder who was alive lately.

    Machines' clocks may differ here by what stores allow, so a dead holder counts for a while.

    Raises:
        TransientStorageError: the store does not answer.
    """
    found = _read(place)
    is_young = found is not None and datetime.now(UTC) - found[0].at < _CLAIMED_FOR
    return found is not None and found[0].holder != "" and is_young


def _read(place: str) -> tuple[LeaseState, Revision] | None:
    """Return what the lease file says and which content that is; None if there is none.

    Raises:
        DataContractError: the file is no lease.
    """
    found = conditional.read(f"{place}.lease")
    if found is None:
        return None
    try:
        return LeaseState.from_record(found.content), found.revision
    except ValidationError as error:
        raise DataContractError(
            f"{place}.lease is not a valid LeaseState: {error}; the file was altered or written by "
            f"another version of this project; delete it while nothing works on {place}"
        ) from error


def _now_s() -> float:
    """Return this machine's own time, in seconds; only differences mean something."""
    return time.clock_gettime(_CLOCK)
