"""The lease on an object store: a small file that is only ever written on condition.

    <place>.lease    a LeaseState

Its holder writes it anew, with another count, several times in its time to live. That is its sign
of life, what others call a heartbeat. Who waits watches the file: where it has not changed for a
time to live by the watcher's own clock, its holder is dead or cut off, and the watcher takes the
place. The holder counts the same time from before it asked for its last renewal, so it stops before
anybody can take over. No two clocks are compared. Not for local disks (`lease`).
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field, ValidationError

from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import DataContractError, HomefeedError, RunInProgressError
from pipelines.places import conditional
from pipelines.places.conditional import Revision
from pipelines.places.lease import Lease, number_at

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
_LOOKS_PER_TTL = 20
"""How often who waits looks, and how often a holder tries again when the store does not answer."""
# Unlike the monotonic clock, this one goes on while the machine sleeps.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LeaseState(Frozen):
    """What the file of a lease says."""

    number: int = Field(ge=1, description="Grows with every holder of the place.")
    holder: str = Field(description="Who holds it, for people; '' where it was given back.")
    token: str = Field(description="What a holder knows its own state by.")
    beat: int = Field(default=0, ge=0, description="Signs of life that the holder has given.")
    ttl_s: float = Field(gt=0, description="Seconds without one after which others may take it.")
    purpose: str = Field(description="What it is held for.")


class StoreLease(Lease):
    """A lease file that this process renews in the background."""

    def __init__(self, place: str, state: LeaseState, revision: Revision, asked_at: float) -> None:
        super().__init__(place, state.purpose, state.number)
        self._state = state
        self._revision = revision
        self._ends_at = asked_at + state.ttl_s
        self._is_lost = False
        self._guard = threading.Lock()
        self._is_over = threading.Event()
        threading.Thread(target=self._keep, name=f"lease of {place}", daemon=True).start()

    @property
    def is_lost(self) -> bool:
        """Whether another process was found to have taken the place."""
        return self._is_lost

    def renew(self) -> None:
        """Give a sign of life, and keep the place for a time to live from now on.

        Where the time was over but nobody has taken the place, it is still this holder's.

        Raises:
            RunInProgressError: another process has taken the place, or it was given back.
            TransientStorageError: the store does not answer.
        """
        with self._guard:
            if self._is_over.is_set():
                raise self._lost("it was given back or lost before")
            asked_at = _now_s()
            if not self._write_over_own(lambda state: {"beat": state.beat + 1}):
                self._is_lost = True
                self._is_over.set()
                raise self._lost(f"{_uri_of(self.place)} is another process's by now")
            self._ends_at = asked_at + self._state.ttl_s

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
            why = f"{_uri_of(self.place)} is another process's by now"
            try:
                if self._write_over_own(lambda _: {"holder": "", "token": ""}):
                    return
            except HomefeedError as error:
                why = f"{error}; it is free after {self._state.ttl_s:g} s"
            log.warning("%s could not be given back: %s", self.place, why)

    def _write_over_own(self, changes: Callable[[LeaseState], dict[str, Any]]) -> bool:
        """Write our state with changes; return whether the place was still ours."""
        for _ in range(2):
            state = self._state.model_copy(update=changes(self._state))
            revision = conditional.write(_uri_of(self.place), state.to_record(), self._revision)
            if revision is not None:
                self._state, self._revision = state, revision
                return True
            # The answer to an earlier sign of life may have been lost: then what is there is ours.
            found = _read(self.place)
            if found is None or found[0].token != self._state.token:
                return False
            self._state, self._revision = found
        return False

    def _keep(self) -> None:
        """Renew until the lease is over."""
        ttl_s = self._state.ttl_s
        pause_s = ttl_s / RENEWALS_PER_TTL
        while not self._is_over.wait(pause_s):
            try:
                self.renew()
                pause_s = ttl_s / RENEWALS_PER_TTL
            except RunInProgressError as error:
                if self._is_lost:
                    log.error("%s", error)
            except HomefeedError as error:
                log.warning("the lease of %s was not renewed: %s", self.place, error)
                pause_s = ttl_s / _LOOKS_PER_TTL

    def _lost(self, why: str) -> RunInProgressError:
        return RunInProgressError(
            f"{self.purpose}: lease {self.number} of {self.place} is lost: {why}; expected to "
            f"renew it every {self._state.ttl_s / RENEWALS_PER_TTL:g} s; nothing more is written, "
            f"because another process may be at work there; look at what it does, then try again"
        )


class _Watch:
    """What a process that waits has seen of a lease."""

    def __init__(self, is_alive: bool) -> None:
        self.is_alive = is_alive
        """Whether its holder is known to live."""
        self._revision: Revision | None = None
        self._since = 0.0

    def has_outlived(self, state: LeaseState, revision: Revision, looked_at: float) -> bool:
        """Note what is there, and return whether it has been there for its time to live.

        Args:
            state: what the file says.
            revision: which content it is.
            looked_at: a time at which it was there, seconds.
        """
        if revision != self._revision:
            self.is_alive = self.is_alive or self._revision is not None
            self._revision, self._since = revision, looked_at
        return looked_at - self._since >= state.ttl_s


def acquire(place: str, purpose: str, wait_s: float) -> StoreLease:
    """Take a place, also from a holder that gives no sign of life.

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
    deadline = _now_s() + wait_s
    watch = _Watch(is_alive=number_at(place) > 0)
    while True:
        found = _read(place)
        # What was read was there when the answer came, at the latest.
        looked_at = _now_s()
        if found is None:
            lease = _take(place, purpose, None, Revision())
        else:
            state, revision = found
            is_dead = watch.has_outlived(state, revision, looked_at)
            if state.holder and not is_dead:
                if watch.is_alive and looked_at >= deadline:
                    raise _in_progress(place, purpose, state)
                time.sleep(min(1.0, state.ttl_s / _LOOKS_PER_TTL))
                continue
            if state.holder:
                log.warning("%s gave no sign of life for %g s", _told(state), state.ttl_s)
            lease = _take(place, purpose, state, revision)
        if lease is not None:
            return lease


def find_living(places: Sequence[str], dead: dict[str, Revision]) -> set[str]:
    """Return the places that a process holds and shows that it lives; no place is taken.

    A holder writes `RENEWALS_PER_TTL` times in its time to live, so it is watched for half as long
    again as one such pause, and all holders are watched at the same time. One that is cut off for
    longer counts as dead here.

    Args:
        places: URIs of what may be held.
        dead: By place, what a holder that was found dead had written last; who is found dead now is
            added. A holder that has written nothing since is not watched again.

    Raises:
        TransientStorageError: the store does not answer.
    """
    seen = {place: found for place in places if (found := _read(place)) is not None}
    watched = {
        place: (state, revision)
        for place, (state, revision) in seen.items()
        if state.holder and dead.get(place) != revision
    }
    living: set[str] = set()
    since = _now_s()
    while watched:
        time.sleep(min(1.0, *(state.ttl_s / _LOOKS_PER_TTL for state, _ in watched.values())))
        for place, (state, revision) in tuple(watched.items()):
            looked_at, found = _now_s(), _read(place)
            if found is not None and found[0].holder:
                if found[1] != revision:
                    living.add(place)
                elif looked_at - since >= 1.5 * state.ttl_s / RENEWALS_PER_TTL:
                    dead[place] = revision
                else:
                    continue
            del watched[place]
    return living


def _take(place: str, purpose: str, before: LeaseState | None, over: Revision) -> StoreLease | None:
    """Write ourselves down as the holder; None if somebody was quicker."""
    state = LeaseState(
        number=before.number + 1 if before else 1,
        holder=f"process {os.getpid()} on {socket.gethostname()}",
        token=uuid.uuid4().hex,
        ttl_s=TTL_S,
        purpose=purpose,
    )
    asked_at = _now_s()
    revision = conditional.write(_uri_of(place), state.to_record(), over)
    return None if revision is None else StoreLease(place, state, revision, asked_at)


def _read(place: str) -> tuple[LeaseState, Revision] | None:
    """Return what the lease file says and which content that is; None if there is none.

    Raises:
        DataContractError: the file is no lease.
    """
    uri = _uri_of(place)
    found = conditional.read(uri)
    if found is None:
        return None
    try:
        return LeaseState.from_record(found.content), found.revision
    except ValidationError as error:
        raise DataContractError(
            f"{uri} is not a valid LeaseState: {error}; the file was altered or written by another "
            f"version of this project; delete it while nothing works on {place}"
        ) from error


def _in_progress(place: str, purpose: str, state: LeaseState) -> RunInProgressError:
    return RunInProgressError(
        f"{purpose} is already running: {_told(state)} holds {_uri_of(place)}; expected nobody; "
        f"wait for it to end, then try again (a holder that dies loses it after {state.ttl_s:g} s)"
    )


def _told(state: LeaseState) -> str:
    return f"{state.holder} (lease {state.number}, for {state.purpose})"


def _uri_of(place: str) -> str:
    return f"{place}.lease"


def _now_s() -> float:
    """Return this machine's own time, in seconds; only differences mean something."""
    return time.clock_gettime(_CLOCK)
