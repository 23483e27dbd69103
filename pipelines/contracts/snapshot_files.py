"""Open and verify a snapshot's files; for every part that reads a snapshot.

Not for making one: that is `pipelines.snapshot.build`.
"""

import hashlib
from pathlib import Path

import pyarrow as pa

from pipelines.contracts.artifacts import FileDigest, Snapshot
from pipelines.contracts.errors import DataContractError


def open_table(snapshot_dir: Path, relative: str) -> pa.Table:
    """Open one Arrow file of a snapshot, memory-mapped: nothing is read until it is touched.

    Args:
        snapshot_dir: the snapshot's local folder (see `pipelines.storage.local_copy`).
        relative: path below it, e.g. 'shard-00000/examples.arrow'.

    Returns:
        A table of one chunk per column.

    Raises:
        DataContractError: the file is missing or not an Arrow file.
    """
    path = Path(snapshot_dir) / relative
    try:
        # The mapping lives as long as the table's buffers do; closing the handle does not end it.
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except FileNotFoundError as error:
        raise DataContractError(
            f"snapshot {snapshot_dir} has no {relative}; expected the files of its manifest; "
            f"delete this snapshot and build it again"
        ) from error
    except pa.ArrowInvalid as error:
        raise DataContractError(
            f"{path} is not an Arrow file ({error}); delete this snapshot and build it again"
        ) from error


def verify_files(snapshot: Snapshot, snapshot_dir: Path) -> None:
    """Check that every file of the manifest is there with its digest.

    Raises:
        DataContractError: a file is missing or was altered.
    """
    for expected in snapshot.files:
        path = Path(snapshot_dir) / expected.path
        if not path.is_file():
            raise DataContractError(
                f"snapshot {snapshot.digest[:16]}: {path} is missing; expected "
                f"{expected.num_bytes} bytes; delete this snapshot and build it again"
            )
        _verify_file(snapshot, path, expected)


def _verify_file(snapshot: Snapshot, path: Path, expected: FileDigest) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected.sha256:
        raise DataContractError(
            f"snapshot {snapshot.digest[:16]}: {path} was altered: sha256 {found[:16]}..., "
            f"expected {expected.sha256[:16]}...; delete this snapshot and build it again"
        )
