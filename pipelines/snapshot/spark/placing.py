"""Where executors put the shards that they have built, so that the driver can publish them.

Every attempt at a shard has a place of its own, and the driver takes the one whose answer reached
it. For what remains of a killed executor may go on: its input ends early, without an error, and it
builds a shard of some of its rows. Nobody hears of that one.

A workspace on a local disk is one that all machines see at the same path. There a shard is written
into the driver's scratch folder, and the driver gives it its name by one rename:

    <snapshots>/.scratch-<random>/attempts/shard-00003-<random>/
    <snapshots>/.scratch-<random>/out/shard-00003/

In an object store a shard goes to a folder that lies beside the snapshots for as long as the build
takes, and from there, by copies that the store makes itself, to the snapshot:

    <snapshots>/.scratch-<random>/shard-00003-<random>/

Nothing of this is a snapshot, because no manifest names it. What a killed driver has left is
removed by a later one. Tested in tests/production/spark and
tests/pipelines/snapshot/spark/test_placing.py.
"""

import contextlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
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
    def receive(self, attempt: str) -> Iterator[Path]:
        """Give a folder of this name among the attempts; one that fails leaves nothing."""
        folder = self.scratch / "attempts" / attempt
        # An executor that outlives its driver finds the folder above gone, and makes none.
        if not self.scratch.is_dir():
            raise self._not_seen(f"an executor finds no folder {self.scratch}")
        folder.parent.mkdir(exist_ok=True)
        folder.mkdir()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def bring(self, files: Sequence[FileDigest], attempts: Mapping[str, str], uri: str) -> None:
        """Give the shards their names in the driver's own folder, which is published.

        Args:
            files: Of all shards; a path begins with the shard's name.
            attempts: The attempt that counts, by shard.
            uri: Of the snapshot.

        Raises:
            ConfigurationError: the executors wrote into another folder of the same path.
        """
        place = self.scratch / "attempts"
        for file in files:
            name, _, rest = file.path.partition("/")
            path = place / attempts[name] / rest
            if not path.is_file() or path.stat().st_size != file.num_bytes:
                raise self._not_seen(f"{file.path}, written by an executor, is not in {path}")
        for name, attempt in attempts.items():
            os.rename(place / attempt, self.scratch / "out" / name)

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
    def receive(self, attempt: str) -> Iterator[Path]:
        """Give a temporary folder of the executor, whose files are uploaded."""
        with storage.scratch_folder(self.uri) as scratch:
            folder = scratch / attempt
            folder.mkdir()
            yield folder
            storage.publish_folder(folder, storage.join(self.uri, attempt))

    def bring(self, files: Sequence[FileDigest], attempts: Mapping[str, str], uri: str) -> None:
        """Let the store copy the files; no byte of them passes through the driver.

        Raises:
            TransientStorageError: the store failed.
        """
        filesystem, target = storage.open_filesystem(uri)
        _, source = storage.open_filesystem(self.uri)

        def copy(file: FileDigest) -> None:
            name, _, rest = file.path.partition("/")
            filesystem.copy_file(f"{source}/{attempts[name]}/{rest}", f"{target}/{file.path}")

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
