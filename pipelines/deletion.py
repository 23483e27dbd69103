"""Deletes what was published, or what an attempt has left: the only module that does.

Whoever deletes calls it: stages that tidy up, the writers of event logs, snapshots and the history,
and retention. Not for what may go: that is `pipelines.retention`. Not for the parts of writing a
file or a folder whole, which are removed where they are made (`pipelines.contracts.files`,
`pipelines.places.folders`), nor for the work folder of a training (`training.fitting`).
"""

from pyarrow import fs

from pipelines import storage


def remove(uri: str) -> None:
    """Delete a file or a folder if it is there; on an object store, a folder's files one by one."""
    filesystem, path = storage.open_filesystem(uri)
    with storage.translated_errors(uri, "deleting"):
        kind = filesystem.get_file_info(path).type
        if kind == fs.FileType.Directory and not storage.is_local(uri):
            below = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
            paths = [entry.path for entry in below if entry.type == fs.FileType.File]
            storage.for_each(paths, filesystem.delete_file)
            # What is left are names of folders; a store may show none once they are empty.
            kind = filesystem.get_file_info(path).type
        if kind == fs.FileType.Directory:
            filesystem.delete_dir(path)
        elif kind == fs.FileType.File:
            filesystem.delete_file(path)
