"""A place that the storage module takes for an object store: no rename, file by file.

What is written on condition, the leases, is kept in memory, apart from the files.
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

    leases = MemoryStore()
    known = conditional.open_conditional

    def open_conditional(uri: str, max_retries: int) -> tuple[ObjectStore, str]:
        is_here = uri.startswith(SCHEME)
        return (leases, uri.removeprefix(SCHEME)) if is_here else known(uri, max_retries)

    monkeypatch.setattr(storage, "open_filesystem", open_filesystem)
    monkeypatch.setattr(conditional, "open_conditional", open_conditional)
    return store


def cut_off_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an upload break off after half of its files, the last ones by name first."""

    def copy_half(
        source: str, target: str, source_store: fs.FileSystem, target_store: fs.FileSystem
    ) -> None:
        paths = [path for path in sorted(Path(source).rglob("*")) if path.is_file()]
        for path in paths[len(paths) // 2 :]:
            place = f"{target}/{path.relative_to(source).as_posix()}"
            target_store.create_dir(place.rsplit("/", 1)[0], recursive=True)
            with target_store.open_output_stream(place) as stream:
                stream.write(path.read_bytes())
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(fs, "copy_files", copy_half)
