"""Deletes what was published, or what an attempt has left: the only module that does.

Whoever deletes calls it: stages that tidy up, the writers of event logs, snapshots and the history,
and retention. Not for what may go: that is `pipelines.retention`. Not for the parts of writing a
file or a folder whole, which are removed where they are made (`pipelines.contracts.files`,
`pipelines.places.folders`), nor for the work folder of a training (`training.fitting`).
"""

import contextlib
from collections.abc import Callable

from pyarrow import fs

from pipelines import storage


def remove(uri: str) -> None:
    """Delete a file or a folder if it is there; on an object store, a folder's files one by one.

    Of two that delete the same thing at once, neither fails.
    """
    filesystem, path = storage.open_filesystem(uri)
    with storage.translated_errors(uri, "deleting"):
        kind = filesystem.get_file_info(path).type
        if kind == fs.FileType.Directory and not storage.is_local(uri):
            below = filesystem.get_file_info(
                fs.FileSelector(path, allow_not_found=True, recursive=True)
            )
            paths = [entry.path for entry in below if entry.type == fs.FileType.File]
            storage.for_each(paths, lambda each: _unless_gone(filesystem.delete_file, each))
            # What is left are names of folders; a store may show none once they are empty.
            kind = filesystem.get_file_info(path).type
        if kind == fs.FileType.Directory:
            _unless_gone(filesystem.delete_dir, path)
        elif kind == fs.FileType.File:
            _unless_gone(filesystem.delete_file, path)


def _unless_gone(delete: Callable[[str], None], path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        delete(path)
