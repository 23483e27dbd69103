"""Files at a URI: any pyarrow filesystem, published whole or not at all.

Not for table formats (pyarrow reads those itself) nor for the meaning of a file.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from pyarrow import fs
from pydantic import ValidationError

from pipelines.contracts import files
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import ConfigurationError, DataContractError, RunInProgressError
from pipelines.places import conditional, folders, stores
from pipelines.places.conditional import Revision
from pipelines.places.plain_uri import to_uri
from pipelines.places.store_errors import translated_errors

_NUM_REQUESTS = 8
"""Files that are looked for at a time."""
ABANDONED_AFTER = timedelta(days=2)
"""Age at which what lies unnamed on an object store is nobody's any more; no write takes so long
between two of its files."""
Model = TypeVar("Model", bound=Frozen)


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below a folder."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def same_place(uri: str, other: str) -> bool:
    """Return whether two URIs name one place; a link on this machine is followed."""
    if is_local(uri) and is_local(other):
        return local_path(uri).resolve() == local_path(other).resolve()
    return to_uri(uri) == to_uri(other)


def is_local(uri: str) -> bool:
    """Return whether the URI names this machine's filesystem."""
    return urlsplit(uri).scheme in ("", "file")


def local_path(uri: str) -> Path:
    """Return the path of a local URI.

    Raises:
        ConfigurationError: the URI is not local.
    """
    if not is_local(uri):
        raise ConfigurationError(f"{uri} is not on the local filesystem; expected file:///...")
    return Path(unquote(urlsplit(uri).path)) if "://" in uri else Path(uri)


def sweep_unfinished(uri: str) -> None:
    """Remove what killed writers left unfinished in a local folder and below it."""
    if not is_local(uri):
        return  # An object store has a file whole or not at all.
    for folder, _, _ in os.walk(local_path(uri)):
        files.sweep_unfinished(Path(folder))


def open_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the pyarrow filesystem of a URI and the path on it.

    Raises:
        ConfigurationError: pyarrow does not know the scheme, or the URI has keys or a query.
    """
    if is_local(uri):
        return fs.LocalFileSystem(), str(local_path(uri))
    return stores.open_arrow(uri)


def exists(uri: str) -> bool:
    """Return whether a file or folder exists at the URI."""
    filesystem, path = open_filesystem(uri)
    with translated_errors(uri, "looking for"):
        return filesystem.get_file_info(path).type != fs.FileType.NotFound


def list_names(uri: str) -> list[str]:
    """Return the names directly below a folder, sorted; empty if the folder is missing."""
    return sorted(entry.base_name for entry in list_entries(uri))


def list_entries(uri: str, is_recursive: bool = False) -> list[fs.FileInfo]:
    """Return what lies in a folder, or also below it, in any order; empty if it is missing."""
    filesystem, path = open_filesystem(uri)
    with translated_errors(uri, "listing"):
        selector = fs.FileSelector(path, allow_not_found=True, recursive=is_recursive)
        try:
            return list(filesystem.get_file_info(selector))
        except FileNotFoundError:
            # pyarrow looks whether the folder is missing after it could not open it, and somebody
            # has made it in between (tests/pipelines/registry/test_history.py).
            return list(filesystem.get_file_info(selector))


def find_missing(places: Mapping[str, int | None]) -> list[str]:
    """Return the URIs where nothing is, or a file of another size than the one expected.

    Args:
        places: URIs with the size in bytes; None where any size will do, as for a folder.
    """

    def is_missing(uri: str) -> bool:
        filesystem, path = open_filesystem(uri)
        with translated_errors(uri, "looking for"):
            found = filesystem.get_file_info(path)
        return found.type == fs.FileType.NotFound or places[uri] not in (None, found.size)

    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        found = zip(places, pool.map(is_missing, places), strict=True)
        return [uri for uri, is_gone in found if is_gone]


def read_bytes(uri: str) -> bytes:
    """Return a file's bytes.

    Raises:
        FileNotFoundError: nothing is there.
        TransientStorageError: the storage failed.
    """
    filesystem, path = open_filesystem(uri)
    if not exists(uri):
        # With its number, an error that nobody catches is one of a place, and not unforeseen.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)
    with translated_errors(uri, "reading"), filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    A local file is renamed into place; an object store shows the file when it is closed.
    """
    with translated_errors(uri, "writing"):
        if is_local(uri):
            files.write_whole(local_path(uri), content)
            return
        filesystem, path = open_filesystem(uri)
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)


def write_new(uri: str, content: bytes) -> None:
    """Write a file that must not be there yet: of several writers at once, one succeeds.

    A local file gets its name by a hard link, an object store is asked to create it.

    Raises:
        RunInProgressError: somebody has written it before, and it stays as it is.
        ConfigurationError: the object store has no conditional writes.
    """
    if is_local(uri):
        with translated_errors(uri, "writing"):
            is_new = files.write_new(local_path(uri), content)
    else:
        is_new = conditional.write(uri, content, Revision()) is not None
    if not is_new:
        raise RunInProgressError(
            f"{uri} was written by another process at the same time; expected nobody else to "
            f"write there; look at what it did, then try again"
        )


def create(uri: str, content: bytes) -> bool:
    """Create a file, and return whether it is there with this very content."""
    try:
        write_new(uri, content)
    except RunInProgressError:
        if not exists(uri):  # a store says so too while another write is under way
            raise
        return read_bytes(uri) == content
    return True


def look(uri: str) -> Revision:
    """Return what `write_over` needs to know of a file, which need not be there.

    On a local disk this says nothing: whoever holds the lock there holds it until it dies.
    """
    found = None if is_local(uri) else conditional.read(uri)
    return found[1] if found else Revision()


def write_over(uri: str, value: Frozen, seen: Revision) -> Revision:
    """Write one frozen value as JSON, where what is there is still what `look` saw.

    On a local disk the caller holds the lock of the place, so that nobody can have written.

    Returns:
        What is there now, for the next such write.

    Raises:
        RunInProgressError: somebody has written there since.
        ConfigurationError: the object store has no conditional writes.
    """
    if is_local(uri):
        write_model(uri, value)
        return Revision()
    written = conditional.write(uri, value.to_record(), seen)
    if written is None:
        raise RunInProgressError(
            f"{uri} was written by another process since this one began; expected nobody else to "
            f"write there; what is there stays; look at it, then try again"
        )
    return written


def read_model(uri: str, model: type[Model], repair: str = "put a sound copy back") -> Model:
    """Read one frozen value from its JSON file.

    Args:
        uri: The file.
        model: What the file holds.
        repair: What a person should do about a file that is no such value.

    Raises:
        FileNotFoundError: nothing is there.
        DataContractError: the file is not this value; it was altered or is of another version.
    """
    try:
        return model.from_record(read_bytes(uri))
    except ValidationError as error:
        raise DataContractError(
            f"{uri} is not a valid {model.__name__}: {error}; the file was altered or written by "
            f"another version of this project; {repair}"
        ) from error


def find_model(uri: str, model: type[Model], repair: str = "put a sound copy back") -> Model | None:
    """Read one frozen value as `read_model` does; None where nothing is there."""
    with contextlib.suppress(FileNotFoundError):
        return read_model(uri, model, repair)
    return None


def write_model(uri: str, value: Frozen) -> None:
    """Write one frozen value as JSON, atomically."""
    write_bytes(uri, value.to_record())


def publish_folder(folder: Path, uri: str) -> None:
    """Bring a local folder to a URI. The caller writes the manifest afterwards, last.

    On the local filesystem the folder takes its place by a rename, when all of it is on the disk,
    and what was there goes afterwards. An object store gets the files beside what is there.
    """
    with translated_errors(uri, "publishing to"):
        if is_local(uri):
            folders.put_in_place(folder, local_path(uri))
            return
        filesystem, path = open_filesystem(uri)
        filesystem.create_dir(path, recursive=True)
        fs.copy_files(str(folder), path, fs.LocalFileSystem(), filesystem)


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Give a local path with a folder's content: the folder itself, or a copy in a scratch folder.

    A copy that a killed process has left is removed by the next one, as `scratch_folder` says.
    """
    if is_local(uri):
        yield local_path(uri)
        return
    filesystem, path = open_filesystem(uri)
    with scratch_folder(uri) as scratch:
        with translated_errors(uri, "fetching"):
            fs.copy_files(path, str(scratch), filesystem, fs.LocalFileSystem())
        yield scratch


@contextlib.contextmanager
def scratch_folder(near_uri: str) -> Iterator[Path]:
    """Give an empty local folder, on the same filesystem as `near_uri` where that is local.

    Elsewhere it lies in this user's part of the machine's temporary folder. It is removed
    afterwards, or by the next call for the same place where this process is killed.
    """
    with translated_errors(near_uri, "making a scratch folder in"):
        parent = (
            local_path(near_uri) if is_local(near_uri) else files.own_temporary_folder("scratch")
        )
        parent.mkdir(parents=True, exist_ok=True)
    with folders.scratch_in(parent) as folder:
        yield folder


@contextlib.contextmanager
def exclusive_lock(uri: str, purpose: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `<uri>.lock` of a place on a local disk while the block runs.

    The kernel frees it when the process dies. On an object store nothing is held: what counts there
    is created only if it is absent, so that two at once cost work and nothing else.

    Raises:
        RunInProgressError: somebody else holds the place, and still does after `wait_s` seconds.
    """
    if not is_local(uri):
        yield
        return
    path = local_path(f"{uri}.lock")
    with translated_errors(uri, "locking"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with files.hold_lock(path, purpose, wait_s):
        yield


def is_abandoned(uri: str) -> bool:
    """Return whether nobody is at work any more on what may be left over, such as a scratch folder.

    On a local disk whoever asks holds the place's lock, on an object store nothing was written
    there for `ABANDONED_AFTER`.
    """
    if is_local(uri):
        return True
    filesystem, path = open_filesystem(uri)
    with translated_errors(uri, "looking for"):
        itself = filesystem.get_file_info(path)
    found = [each for each in (itself, *list_entries(uri, is_recursive=True)) if each.is_file]
    newest_s = max((each.mtime_ns / 1e9 for each in found), default=0.0)
    return time.time() - newest_s > ABANDONED_AFTER.total_seconds()
