"""Deletes what was published, or what an attempt has left: the only module that does.

Whoever deletes calls it: stages that tidy up, the writers of event logs, snapshots and the history,
and retention. Not for what may go: that is `pipelines.retention`. Not for the parts of writing a
file or a folder whole, which are removed where they are made (`pipelines.contracts.files`,
`pipelines.places.folders`), nor for the work folder of a training (`training.fitting`).
"""

import contextlib

from pyarrow import fs

from pipelines import storage


def remove(uri: str) -> None:
    """Delete a file or a folder if it is there.

    Of two that delete the same thing at once, neither fails.
    """
    filesystem, path = storage.open_filesystem(uri)
    with storage.translated_errors(uri, "deleting"), contextlib.suppress(FileNotFoundError):
        kind = filesystem.get_file_info(path).type
        if kind == fs.FileType.Directory:
            filesystem.delete_dir(path)
        elif kind == fs.FileType.File:
            filesystem.delete_file(path)
