"""Writes on an object store that happen only if nobody has written there since one looked.

What one saw is a `Revision`; a write succeeds only if it is unchanged (an ETag precondition:
`If-Match`, and `If-None-Match` for a file that must be new). A store that ignores the condition is
found out by a probe before the first such write, and refused. Not for plain reading and writing
(`pipelines.storage`), nor for local files.
"""

import contextlib
import logging
import time
import uuid
from dataclasses import dataclass
from typing import cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError

from pipelines.contracts.errors import ConfigurationError, TransientStorageError
from pipelines.places.store_errors import translated_errors
from pipelines.places.stores import open_conditional, store_of

log = logging.getLogger(__name__)
_WAITS_S = (0.2, 1.0)
"""Before a conditional write is made again that has certainly not arrived yet, in seconds."""
_probed: set[str] = set()
"""Stores that this process has found to honour conditions."""


@dataclass(frozen=True)
class Revision:
    """Which of a file's contents was there; both are empty where there was no file."""

    e_tag: str = ""
    version: str = ""


def read(uri: str) -> tuple[bytes, Revision] | None:
    """Return a file's content and its revision, or None if nothing is there.

    Raises:
        HomefeedError: the store failed, or lets nobody in.
    """
    store, key = open_conditional(uri, max_retries=3)
    with translated_errors(uri, "reading"):
        try:
            found = obstore.get(store, key)
        except FileNotFoundError:
            return None
        return bytes(found.bytes()), _revision_of(found.meta)


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
    _require_conditions(uri)
    # A conditional write that is repeated by the client would be refused because of itself.
    store, key = open_conditional(uri, max_retries=0)
    lost: TransientStorageError | None = None
    for wait_s in (0.0, *_WAITS_S):
        time.sleep(wait_s)
        try:
            with translated_errors(uri, "writing"):
                written = _put(store, key, content, over)
        except TransientStorageError as error:
            lost = error
        else:
            if written or lost is None:
                return written
        # A request whose answer was lost may have arrived since, and it was ours too.
        there, revision = read(uri) or (None, Revision())
        if there == content:
            return revision
        if revision != over:
            return None
        log.warning("%s; it is not there", lost)
    assert lost is not None
    raise lost


def _put(
    store: "obstore.store.ObjectStore", key: str, content: bytes, over: Revision
) -> Revision | None:
    """Write over a revision only; None if it is another one by now."""
    named = {"e_tag": over.e_tag, "version": over.version}
    mode = {name: value for name, value in named.items() if value} or "create"
    try:
        put = obstore.put(
            store, key, content, mode=cast("obstore.PutMode", mode), use_multipart=False
        )
    except (AlreadyExistsError, PreconditionError):
        return None
    except FileNotFoundError:
        # What should be replaced was deleted; without such a thing it is the bucket that is gone.
        if over == Revision():
            raise
        return None
    return _revision_of(put)


def _revision_of(found: "obstore.PutResult | obstore.ObjectMeta") -> Revision:
    return Revision(e_tag=found.get("e_tag") or "", version=found.get("version") or "")


def _require_conditions(uri: str) -> None:
    """Find out, once for a store and process, that a second writer is refused.

    Raises:
        ConfigurationError: it writes all the same, says that it knows no conditions, or refuses
            the ETag that it gave (as Ceph's gateway 18.2, which compares it without its quotes).
    """
    if (name := store_of(uri)) in _probed:
        return
    probe = f"{uri.rpartition('/')[0]}/.probe-{uuid.uuid4().hex}"
    store, key = open_conditional(probe, max_retries=0)
    found = ""
    try:
        with translated_errors(probe, "trying conditional writes at"):
            first = _put(store, key, b"1", Revision())
            second = _put(store, key, b"2", Revision())
            over = _put(store, key, b"3", first) if first else None
            # What is there is the 3 by now, so a write over the first content is refused.
            if second or first is None or over is None or _put(store, key, b"4", first):
                found = "it did not do as the conditions of four writes say"
    except TransientStorageError as error:
        said = error.__cause__
        if not (isinstance(said, NotSupportedError) or "NotImplemented" in str(said)):
            raise
        found = f"it answered: {str(said).partition(chr(10))[0]}"
    finally:
        # A probe that could not be deleted is an empty name that nobody reads.
        with contextlib.suppress(BaseError, OSError):
            obstore.delete(store, key)
    if found:
        raise ConfigurationError(
            f"{name} has no conditional writes: {found}; expected the second of two writes with "
            f"If-None-Match or If-Match to be refused (412), because nothing else keeps two runs "
            f"apart there; use a store that has them (Amazon S3, Google Cloud Storage, Azure, "
            f"MinIO), or set HOMEFEED_WORKSPACE and HOMEFEED_EVENT_LOG to a local disk",
            kind="no conditions",
        )
    _probed.add(name)
