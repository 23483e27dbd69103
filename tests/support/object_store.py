"""A place that the storage module takes for an object store: no rename, file by file.

What is written on condition is kept in memory, apart from the files.
"""

from pathlib import Path

import pytest
from obstore.store import MemoryStore, ObjectStore
from pyarrow import fs

from pipelines import storage
from pipelines.places import conditional

SCHEME = "store://"


def make_object_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> fs.FileSystem:
    """Let URIs of SCHEME lead to a folder; return its filesystem."""
    store = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    local = storage.open_filesystem

    def open_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
        return (store, uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else local(uri)

    on_condition = MemoryStore()
    known = conditional.open_conditional

    def open_conditional(uri: str, max_retries: int) -> tuple[ObjectStore, str]:
        is_here = uri.startswith(SCHEME)
        return (on_condition, uri.removeprefix(SCHEME)) if is_here else known(uri, max_retries)

    monkeypatch.setattr(storage, "open_filesystem", open_filesystem)
    monkeypatch.setattr(conditional, "open_conditional", open_conditional)
    return store


def cut_off_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the upload of a folder break off after half of its files, in order of names."""
    genuine = fs.copy_files

    def copy_half(source: str, target: str, *between: fs.FileSystem) -> None:
        paths = sorted(path for path in Path(source).rglob("*") if path.is_file())
        for path in paths[: len(paths) // 2]:
            genuine(str(path), f"{target}/{path.relative_to(source)}", *between)
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(fs, "copy_files", copy_half)
