"""Writes on an object store that happen only if nobody has written there since one looked.

What one saw is a `Revision`; that it must still be there is what others call an ETag precondition
(`If-Match`, and `If-None-Match` for a file that must be new). A store that ignores the condition is
found out by a probe before the first such write, and refused. Not for plain reading and writing
(`pipelines.storage`), nor for local files.
"""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from pipelines.contracts.errors import (
    ConfigurationError,
    HomefeedError,
    PlaceError,
    TransientStorageError,
)
from pipelines.places.stores import open_conditional, store_of

_READ_RETRIES = 3
"""How often a read whose answer was lost is repeated."""
_WRITE_RETRIES = 0
"""A conditional write that is repeated by the client would be refused because of itself."""
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
        ConfigurationError: the store does not honour conditions, or lets nobody in.
        TransientStorageError: the store failed, and the content is not there.
    """
    is_bare = _require_conditions(uri)
    store, key = open_conditional(uri, _WRITE_RETRIES)
    try:
        with _translated(uri, "writing"):
            return _put(store, key, content, over, is_bare=is_bare)
    except TransientStorageError:
        found = read(uri)
        if found is None or found.content != content:
            raise
        return found.revision


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
        ConfigurationError: the store writes all the same, or says that it knows no conditions.
    """
    name = store_of(uri)
    if name not in _probed:
        probe = f"{uri.rpartition('/')[0]}/.probe-{uuid.uuid4().hex}"
        store, key = open_conditional(probe, _WRITE_RETRIES)
        try:
            with _translated(probe, "trying conditional writes at"):
                _probed[name] = _probe(store, key, name)
        except _NoConditionsError as error:
            raise _refusal(name, f"it answered: {error}") from None
        finally:
            # A probe that could not be deleted is an empty name that nobody reads.
            with contextlib.suppress(BaseError, OSError):
                obstore.delete(store, key)
    return _probed[name]


def _probe(store: "obstore.store.ObjectStore", key: str, name: str) -> bool:
    """Write twice under each condition, and return whether the store wants ETags bare.

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
        f"or set HOMEFEED_WORKSPACE and HOMEFEED_EVENT_LOG to a local disk"
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
    # obstore's messages go on with a dump of its own values.
    told = str(error).partition("\n")[0]
    if isinstance(error, NotSupportedError) or "NotImplemented" in str(error):
        return _NoConditionsError(f"{doing} {uri}: {told}")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return ConfigurationError(
            f"{doing} {uri}: the object store refuses access ({told}); correct the credentials in "
            f"the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or the bucket's policy"
        )
    if isinstance(error, FileNotFoundError):
        return PlaceError(
            f"{doing} {uri}: {told}; expected the bucket to be there; make it, or correct the URI "
            f"(HOMEFEED_WORKSPACE and HOMEFEED_EVENT_LOG set the places)"
        )
    return TransientStorageError(f"{doing} {uri}: {told}; check the storage, then retry")
