"""Where executors put the shards that they have built, so that the driver can publish them.

A workspace on a local disk is one that all machines see at the same path. There a shard is written
into the driver's scratch folder and gets its name by one rename:

    <snapshots>/.scratch-<random>/out/shard-00003/         a shard that is whole
    <snapshots>/.scratch-<random>/attempts/<random>/       a shard that an executor is writing

In an object store a shard goes to a folder that lies beside the snapshots for as long as the build
takes, and from there, by copies that the store makes itself, to the snapshot:

    <snapshots>/.scratch-<random>/shard-00003/

Nothing of this is a snapshot, because no manifest names it. What a killed driver has left is
removed by a later one. Two attempts at one shard write the same bytes, so it does not matter which
comes first. Tested in tests/production/spark and tests/pipelines/snapshot/spark/test_placing.py.
"""

import contextlib
import errno
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipelines import deletion, storage
from pipelines.contracts.artifacts import FileDigest
from pipelines.contracts.errors import ConfigurationError, HomefeedError

log = logging.getLogger(__name__)
_STAGING_NAME = re.compile(r"\.scratch-[0-9a-f]{32}")
_NUM_COPIES = 8
"""Files that a store copies at a time."""


@dataclass(frozen=True)
class SharedFolder:
    """The scratch folder of a driver whose workspace all machines see."""

    scratch: Path

    @contextlib.contextmanager
    def receive(self, name: str) -> Iterator[Path]:
        """Give a folder beside the shards, which takes its place among them by a rename."""
        attempt = self.scratch / "attempts" / uuid.uuid4().hex
        # An executor that outlives its driver finds the folder above gone, and makes none.
        if not self.scratch.is_dir():
            raise self._not_seen(f"an executor finds no folder {self.scratch}")
        attempt.parent.mkdir(exist_ok=True)
        attempt.mkdir()
        try:
            yield attempt
            try:
                os.rename(attempt, self.scratch / "out" / name)
            except OSError as error:
                # Another attempt was quicker: its bytes are the same.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        finally:
            shutil.rmtree(attempt, ignore_errors=True)

    def bring(self, files: Sequence[FileDigest], uri: str) -> None:
        """Look for every file in the driver's own folder, from which the snapshot is published.

        Raises:
            ConfigurationError: the executors wrote into another folder of the same path.
        """
        for file in files:
            path = self.scratch / "out" / file.path
            if not path.is_file() or path.stat().st_size != file.num_bytes:
                raise self._not_seen(f"{file.path}, written by an executor, is not in {path}")

    def _not_seen(self, found: str) -> ConfigurationError:
        return ConfigurationError(
            f"{found}; expected that the machines of the Spark cluster see the workspace at the "
            f"same path as the driver; put HOMEFEED_WORKSPACE on a file system that all of them "
            f"mount, or into an object store (s3://...)"
        )


@dataclass(frozen=True)
class StoreFolder:
    """A folder in an object store, beside the snapshots."""

    uri: str

    @contextlib.contextmanager
    def receive(self, name: str) -> Iterator[Path]:
        """Give a temporary folder of the executor, whose files are uploaded."""
        with storage.scratch_folder(self.uri) as scratch:
            folder = scratch / name
            folder.mkdir()
            yield folder
            storage.publish_folder(folder, storage.join(self.uri, name))

    def bring(self, files: Sequence[FileDigest], uri: str) -> None:
        """Let the store copy the files; no byte of them passes through the driver.

        Raises:
            TransientStorageError: the store failed.
        """
        filesystem, target = storage.open_filesystem(uri)
        _, source = storage.open_filesystem(self.uri)

        def copy(file: FileDigest) -> None:
            filesystem.copy_file(f"{source}/{file.path}", f"{target}/{file.path}")

        with (
            storage.translated_errors(uri, "copying shards to"),
            ThreadPoolExecutor(_NUM_COPIES) as pool,
        ):
            for _ in pool.map(copy, files):
                pass


ShardPlace = SharedFolder | StoreFolder
"""A place that executors and the driver know; it crosses to the executors with each task."""


@contextlib.contextmanager
def place_for_shards(snapshots_uri: str, scratch: Path) -> Iterator[ShardPlace]:
    """Give a place for the shards of one build, and remove it afterwards.

    Args:
        snapshots_uri: where snapshots lie.
        scratch: the driver's scratch folder, whose shards go into `out`.
    """
    if storage.is_local(snapshots_uri):
        yield SharedFolder(scratch)
        return
    for name in filter(_STAGING_NAME.fullmatch, storage.list_names(snapshots_uri)):
        if storage.is_abandoned(left := storage.join(snapshots_uri, name)):
            _remove(left)
    uri = storage.join(snapshots_uri, f".scratch-{uuid.uuid4().hex}")
    try:
        yield StoreFolder(uri)
    finally:
        _remove(uri)


def _remove(uri: str) -> None:
    """Remove a folder. What a failing store keeps, a later driver removes."""
    try:
        deletion.remove(uri)
    except HomefeedError as error:
        log.warning("%s could not be removed: %s", uri, error)
