"""Writes on an object store that happen only if nobody has written there since one looked.

What one saw is a `Revision`; that it must still be there is what others call an ETag precondition
(`If-Match`, and `If-None-Match` for a file that must be new). A store that ignores the condition is
found out by a probe before the first such write, and refused. Not for plain reading and writing
(`pipelines.storage`), nor for local files.
"""

import contextlib
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PreconditionError,
)

from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    TransientStorageError,
)
from pipelines.places import store_errors
from pipelines.places.stores import open_conditional, store_of

log = logging.getLogger(__name__)
_READ_RETRIES = 3
"""How often a read whose answer was lost is repeated."""
_WRITE_RETRIES = 0
"""A conditional write that is repeated by the client would be refused because of itself."""
_WAITS_S = (0.2, 1.0)
"""Before a conditional write is made again that has certainly not arrived yet, in seconds."""
_NUM_PROBES = 3
"""How often a store is tried whose answers are lost."""
_probed: dict[str, bool] = {}
"""Stores that this process has found to honour conditions, and whether they want ETags bare."""


@dataclass(frozen=True)
class Revision:
    """Which of a file's contents was there; both are empty where there was no file."""

    e_tag: str = ""
    version: str = ""

    def mode(self, *, is_bare: bool) -> "obstore.PutMode":
        """How obstore is told to write over this revision only.

        Args:
            is_bare: whether the store wants the ETag without its quotes.
        """
        e_tag = self.e_tag.strip('"') if is_bare else self.e_tag
        named = {"e_tag": e_tag, "version": self.version}
        found = {name: value for name, value in named.items() if value}
        return cast("obstore.PutMode", found or "create")


@dataclass(frozen=True)
class Stored:
    """A file's content and its revision."""

    content: bytes
    revision: Revision


def read(uri: str) -> Stored | None:
    """Return what is at a URI, or None if nothing is there.

    Raises:
        HomefeedError: the store failed, or lets nobody in.
    """
    store, key = open_conditional(uri, _READ_RETRIES)
    with _translated(uri, "reading"):
        try:
            found = obstore.get(store, key)
        except FileNotFoundError:
            return None
        return Stored(bytes(found.bytes()), _revision_of(found.meta))


def revision_of(uri: str) -> Revision:
    """Return which content is at a URI now, without reading it."""
    store, key = open_conditional(uri, _READ_RETRIES)
    with _translated(uri, "looking for"):
        try:
            return _revision_of(obstore.head(store, key))
        except FileNotFoundError:
            return Revision()


def write(uri: str, content: bytes, over: Revision) -> Revision | None:
    """Write a file where what is there is still what was seen.

    Where the answer is lost, what is there is read: an equal content is taken for ours.

    Args:
        uri: the file.
        content: what it shall hold.
        over: what was seen there; an empty revision if nothing was.

    Returns:
        The new revision; None where somebody else has written meanwhile, and then nothing is done.

    Raises:
        ConfigurationError: the store does not honour conditions.
        TransientStorageError: the store failed, and the content is not there.
    """
    is_bare = _require_conditions(uri)
    store, key = open_conditional(uri, _WRITE_RETRIES)
    is_unsure = False
    for wait_s in (*_WAITS_S, None):
        try:
            with _translated(uri, "writing"):
                written = _put(store, key, content, over, is_bare=is_bare)
        except TransientStorageError as error:
            is_settled, revision = _outcome(uri, content, over)
            if is_settled:
                return revision
            if wait_s is None:
                raise
            log.warning("%s; it is not there, and is written again", error)
            time.sleep(wait_s)
            is_unsure = True
        else:
            # A request whose answer was lost may have arrived since, and it was ours too.
            return _outcome(uri, content, over)[1] if is_unsure and not written else written
    raise AssertionError("the last turn returns or raises")


def _outcome(uri: str, content: bytes, over: Revision) -> tuple[bool, Revision | None]:
    """Return whether it is decided what is there, and what `write` returns then."""
    found = read(uri)
    if found is not None and found.content == content:
        return True, found.revision
    there = found.revision if found else Revision()
    return there != over, None


def _put(
    store: "obstore.store.ObjectStore",
    key: str,
    content: bytes,
    over: Revision,
    *,
    is_bare: bool = False,
) -> Revision | None:
    mode = over.mode(is_bare=is_bare)
    try:
        put = obstore.put(store, key, content, mode=mode, use_multipart=False)
    except (AlreadyExistsError, PreconditionError):
        return None
    except FileNotFoundError:
        # What should be replaced was deleted. A bucket that is missing is told below.
        if over == Revision():
            raise
        return None
    return _revision_of(put)


def _revision_of(found: "obstore.PutResult | obstore.ObjectMeta") -> Revision:
    return Revision(e_tag=found.get("e_tag") or "", version=found.get("version") or "")


def _require_conditions(uri: str) -> bool:
    """Find out, once for a store and process, that a second writer is refused.

    Returns:
        Whether the store wants ETags without their quotes.

    Raises:
        ConfigurationError: it writes all the same, or says that it knows no conditions.
    """
    name = store_of(uri)
    for turn in range(_NUM_PROBES):
        if name in _probed:
            break
        try:
            _probed[name] = _probe(f"{uri.rpartition('/')[0]}/.probe-{uuid.uuid4().hex}", name)
        except _NoConditionsError as error:
            raise _refusal(name, f"it answered: {error}") from None
        except TransientStorageError:
            if turn == _NUM_PROBES - 1:
                raise
    return _probed[name]


def _probe(uri: str, name: str) -> bool:
    """Write twice under each condition, and return whether the store wants ETags bare.

    Raises:
        ConfigurationError: a second write was accepted, or no write over an ETag is.
    """
    store, key = open_conditional(uri, _WRITE_RETRIES)
    try:
        with _translated(uri, "trying conditional writes at"):
            return _tried(store, key, name)
    finally:
        # A probe that could not be deleted is an empty name that nobody reads.
        with contextlib.suppress(BaseError, OSError):
            obstore.delete(store, key)


def _tried(store: "obstore.store.ObjectStore", key: str, name: str) -> bool:
    """Write, and return whether the store wants ETags bare.

    Ceph's gateway (18.2) compares `If-Match` with the ETag as it keeps it, which has no quotes, and
    so refuses every ETag that is sent as RFC 9110 has it and as the gateway itself gives it.
    """
    accepted = "a second write under the same condition was accepted"
    first = _put(store, key, b"1", Revision())
    if first is None or _put(store, key, b"2", Revision()) is not None:
        raise _refusal(name, accepted)
    is_bare, second = False, _put(store, key, b"3", first)
    if second is None:
        is_bare, second = True, _put(store, key, b"3", first, is_bare=True)
    if second is None:
        raise _refusal(name, "a write over the ETag that it had given was refused")
    # What is there is the 3 by now, so a write over the first content is refused.
    if _put(store, key, b"4", first, is_bare=is_bare) is not None:
        raise _refusal(name, accepted)
    return is_bare


def _refusal(name: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} has no conditional writes: {found}; expected the second of two writes with "
        f"If-None-Match or If-Match to be refused (412), because nothing else keeps two runs apart "
        f"there; use a store that has them (Amazon S3, Google Cloud Storage, Azure, MinIO, Ceph), "
        f"or set HOMEFEED_WORKSPACE and HOMEFEED_EVENT_LOG to a local disk",
        kind="no conditions",
    )


class _NoConditionsError(ConfigurationError):
    """The store says that it does not know a condition."""


@contextlib.contextmanager
def _translated(uri: str, doing: str) -> Iterator[None]:
    """Turn obstore's errors into ours, which say whether trying again can help."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise _as_ours(error, uri, doing) from error


def _as_ours(error: Exception, uri: str, doing: str) -> HomefeedError:
    if isinstance(error, NotSupportedError) or "NotImplemented" in str(error):
        told = str(error).partition("\n")[0]
        return _NoConditionsError(f"{doing} {uri}: {told}")
    return store_errors.explain_conditional(error, uri, doing)
