"""Open and verify a snapshot's files; for every part that reads a snapshot.

Not for making one: that is `pipelines.snapshot.build`.
"""

from pathlib import Path

import pyarrow as pa

from pipelines.contracts.artifacts import FileDigest, Snapshot
from pipelines.contracts.base import sha256_of
from pipelines.contracts.errors import SnapshotDamagedError
from pipelines.contracts.schemas import KEYS_OF_FILES, PINS_FILE

HOW_TO_REBUILD = (
    "build it again with `homefeed stage build_snapshot RUN --again`, RUN being the folder "
    "of a run that uses this snapshot"
)


def open_table(snapshot_dir: Path, relative: str) -> pa.Table:
    """Open one Arrow file of a snapshot, memory-mapped: nothing is read until it is touched.

    Args:
        snapshot_dir: the snapshot's local folder (see `pipelines.storage.local_copy`).
        relative: path below it, e.g. 'shard-00000/examples.arrow'.

    Raises:
        SnapshotDamagedError: the file is missing, not an Arrow file, or of another version.
    """
    path = Path(snapshot_dir) / relative
    try:
        # The mapping lives as long as the table's buffers do; closing the handle does not end it.
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()  # one chunk per column
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise SnapshotDamagedError(
            f"{path} is missing or not an Arrow file ({error}); expected the files of the "
            f"snapshot's manifest; {HOW_TO_REBUILD}"
        ) from error
    if missing := set(KEYS_OF_FILES[path.stem].names) - set(table.schema.names):
        raise SnapshotDamagedError(
            f"{path} has no column {', '.join(sorted(missing))}: another version of this project "
            f"built the snapshot; {HOW_TO_REBUILD}"
        )
    return table


def embedding_dim_of(snapshot_dir: Path) -> int:
    """Return the width of a snapshot's embeddings, of pins and users alike."""
    return int(open_table(snapshot_dir, PINS_FILE).schema.field("embedding").type.list_size)


def verify_files(snapshot: Snapshot, snapshot_dir: Path, repair: str = HOW_TO_REBUILD) -> None:
    """Check that every file of the manifest is in a local folder with its digest.

    Raises:
        SnapshotDamagedError: a file is missing or was altered; `repair` says what to do.
    """
    if altered := list(altered_files(snapshot_dir, snapshot.files).values()):
        rest = f" and {len(altered) - 3} more files" if len(altered) > 3 else ""
        raise SnapshotDamagedError(
            f"snapshot {snapshot.digest[:16]} in {snapshot_dir}: "
            f"{'; '.join(altered[:3])}{rest}; expected the files of its manifest; {repair}"
        )


def altered_files(snapshot_dir: Path, files: tuple[FileDigest, ...]) -> dict[str, str]:
    """Return, by path, what is wrong with each file that is not what the manifest says."""
    altered = {}
    for file in files:
        path = snapshot_dir / file.path
        if not path.is_file():
            altered[file.path] = f"{file.path} is missing"
        elif (num_bytes := path.stat().st_size) != file.num_bytes:
            altered[file.path] = (
                f"{file.path} was altered: it has {num_bytes:,} bytes, expected {file.num_bytes:,}"
            )
        elif sha256_of(path) != file.sha256:
            altered[file.path] = f"{file.path} was altered: its sha256 is not the manifest's"
    return altered
