"""Open and verify a snapshot's files; for every part that reads a snapshot.

Not for making one: that is `pipelines.snapshot.build`.
"""

from pathlib import Path

import pyarrow as pa

from pipelines.contracts.artifacts import FileDigest, Snapshot
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.files import sha256_of


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
    problems = altered_files(snapshot_dir, snapshot.files)
    if problems:
        raise DataContractError(
            f"snapshot {snapshot.digest[:16]} in {snapshot_dir}: {'; '.join(problems[:5])}; "
            f"expected the files of its manifest; delete this snapshot and build it again"
        )


def altered_files(snapshot_dir: Path, files: tuple[FileDigest, ...]) -> list[str]:
    """Return one phrase per file that is missing or whose content is not the manifest's."""
    problems = []
    for file in files:
        path = snapshot_dir / file.path
        if not path.is_file():
            problems.append(f"{file.path} is missing")
        elif (num_bytes := path.stat().st_size) != file.num_bytes:
            problems.append(
                f"{file.path} was altered: it has {num_bytes:,} bytes, expected {file.num_bytes:,}"
            )
        elif sha256_of(path) != file.sha256:
            problems.append(f"{file.path} was altered: its sha256 is not the manifest's")
    return problems
