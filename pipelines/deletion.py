"""Deletes what was published, or what an attempt has left: the only module that does.

Whoever deletes calls it: stages that tidy up, the writers of event logs, snapshots and the history,
and retention. Not for what may go: that is `pipelines.retention`. Not for the parts of writing a
file or a folder whole, which are removed where they are made (`pipelines.contracts.files`,
`pipelines.places.folders`), nor for the work folder of a training (`training.fitting`).
"""

import contextlib
from collections.abc import Collection
from contextlib import AbstractContextManager

from pyarrow import fs

from pipelines import storage

LOCKS = (".lock", ".lease")
"""How the files of locks and leases end."""


def remove(uri: str) -> None:
    """Delete a file or a folder if it is there; on an object store, a folder's files one by one.

    Raises:
        RunInProgressError: this process has lost a lease, and deletes nothing more.
    """
    storage.require_held_leases()
    filesystem, path = storage.open_filesystem(uri)
    with storage.translated_errors(uri, "deleting"):
        kind = filesystem.get_file_info(path).type
        if kind == fs.FileType.Directory and not storage.is_local(uri):
            below = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
            paths = [entry.path for entry in below if entry.type == fs.FileType.File]
            storage.for_each(paths, filesystem.delete_file)
            # What is left are names of folders; a store may show none once they are empty.
            kind = filesystem.get_file_info(path).type
        storage.require_held_leases()  # The store may have taken its time to say what is there.
        if kind == fs.FileType.Directory:
            filesystem.delete_dir(path)
        elif kind == fs.FileType.File:
            filesystem.delete_file(path)


def remove_whole(
    uri: str,
    manifests: Collection[str],
    at_rest: AbstractContextManager[None],
    kept_folders: Collection[str] = (),
) -> None:
    """Delete a folder whose leases the caller holds, so that no part is ever taken for the whole.

    The first step is a single act: on a local disk the folder is renamed into a scratch folder, on
    an object store its manifests go. The second step frees the space. A kill between them leaves a
    scratch folder or a folder without a manifest.

    Args:
        uri: The folder.
        manifests: Files in it without which nobody takes it for a whole, in the order they go.
        at_rest: Held during the first step, and left before the second.
        kept_folders: Folders in it that have leases of their own, which stay on an object store:
            a lease file that is deleted is lost to its holder, and its numbers begin anew.
    """
    if storage.is_local(uri):
        folder, is_gone = storage.local_path(uri), contextlib.suppress(FileNotFoundError)
        # The leases stay held until the files are gone: then who waits for one of their lock files
        # sees that it has no name any more, and opens a new one.
        with storage.scratch_folder(folder.parent.as_uri()) as scratch:
            with at_rest, storage.translated_errors(uri, "deleting"), is_gone:
                folder.rename(scratch / folder.name)
        return
    with at_rest:
        for manifest in manifests:
            remove(manifest)
    for place in (uri, *(storage.join(uri, name) for name in kept_folders)):
        for name in storage.list_names(place):
            if not name.endswith(LOCKS) and not (place == uri and name in kept_folders):
                remove(storage.join(place, name))


def remove_lock(uri: str) -> None:
    """Remove the lock file of a place that is gone; the caller holds it.

    Who waits for it on a local disk sees that it has no name any more, and opens a new one. A lease
    of an object store stays.
    """
    if storage.is_local(uri):
        remove(f"{uri}.lock")
