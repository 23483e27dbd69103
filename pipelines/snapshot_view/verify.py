"""Whether a snapshot is still what was published: every byte, and every count of its manifest.

Not for whether it was good data (`validation.data_gate`).
"""

from collections.abc import Iterator
from pathlib import Path

from pipelines.contracts.artifacts import ShardStats, Snapshot
from pipelines.contracts.files import digest_of_files
from pipelines.contracts.run_layout import MANIFEST
from pipelines.contracts.schemas import PINS_FILE, SHARD_FILES
from pipelines.contracts.snapshot_files import altered_files, open_table


def problems(snapshot: Snapshot, snapshot_dir: Path) -> Iterator[str]:
    """Yield what is wrong with a snapshot's files, each in a sentence for people.

    Args:
        snapshot: the manifest.
        snapshot_dir: local folder with the files.
    """
    if digest_of_files(snapshot.files) != snapshot.digest:
        yield (
            f"manifest.json names digest {snapshot.digest[:16]}, and the digests of its files come "
            f"to {digest_of_files(snapshot.files)[:16]}"
        )
    altered = altered_files(snapshot_dir, snapshot.files)
    yield from altered.values()
    named = {file.path for file in snapshot.files} | {MANIFEST}
    for path in sorted(snapshot_dir.rglob("*")):
        relative = path.relative_to(snapshot_dir).as_posix()
        if path.is_file() and relative not in named:
            yield f"{relative} is no file of this snapshot"
    missing = _expected(snapshot) - named
    yield from (f"the manifest names no {path}" for path in sorted(missing))
    if altered or missing:
        return  # what cannot be read is not counted
    for shard in snapshot.shards:
        yield from _wrong_counts(snapshot, snapshot_dir, shard)
    num_pins = open_table(snapshot_dir, PINS_FILE).num_rows
    if num_pins != snapshot.num_pins:
        yield f"{PINS_FILE} has {num_pins:,} pins, expected {snapshot.num_pins:,}"


def _expected(snapshot: Snapshot) -> set[str]:
    shards = {f"{shard.name}/{name}.arrow" for shard in snapshot.shards for name in SHARD_FILES}
    return shards | {PINS_FILE}


def _wrong_counts(snapshot: Snapshot, snapshot_dir: Path, shard: ShardStats) -> Iterator[str]:
    """Yield which files of a shard have another number of rows than the manifest says."""
    expected = {
        "timeline": shard.num_actions,
        "requests": shard.num_requests,
        "examples": shard.num_examples,
    }
    for name, num_rows in expected.items():
        path = f"{shard.name}/{name}.arrow"
        found = open_table(snapshot_dir, path).num_rows
        if found != num_rows:
            yield f"{path} has {found:,} rows, expected {num_rows:,}"
