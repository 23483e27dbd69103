"""What differs between two snapshots: settings, numbers, files, and which requests they share.

Not for judging the difference: the data gate knows what is usual.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.snapshot_files import open_table
from pipelines.snapshot_view.facts import SnapshotFacts, read_facts
from pipelines.snapshot_view.figures import Figure, figures_of, settings_of


@dataclass(frozen=True)
class Difference:
    """Two snapshots side by side."""

    one: SnapshotFacts
    other: SnapshotFacts
    num_shared: int | None  # requests in both; None where users are dealt out differently

    @property
    def is_same(self) -> bool:
        """Whether both have the same bytes."""
        return self.one.snapshot.digest == self.other.snapshot.digest


def compare(one: Snapshot, one_dir: Path, other: Snapshot, other_dir: Path) -> Difference:
    """Count two snapshots and what they share.

    Args:
        one: a manifest.
        one_dir: local folder with its files.
        other: another manifest.
        other_dir: local folder with the other's files.

    Raises:
        SnapshotDamagedError: a file is missing or no Arrow file.
    """
    shared = _count_shared(one, one_dir, other, other_dir)
    return Difference(read_facts(one, one_dir), read_facts(other, other_dir), shared)


def _count_shared(one: Snapshot, one_dir: Path, other: Snapshot, other_dir: Path) -> int | None:
    """Return how many requests both have; a user's lie in the same shard of as many shards."""
    if [each.name for each in one.shards] != [each.name for each in other.shards]:
        return None
    shared = 0
    for shard in one.shards:
        ids, others = (
            open_table(folder, f"{shard.name}/requests.arrow")["request_id"].cast(pa.large_string())
            for folder in (one_dir, other_dir)
        )
        shared += pc.sum(pc.is_in(ids, value_set=others)).as_py() or 0
    return shared


def lines_of(found: Difference) -> Iterator[str]:
    """Yield what differs, settings first; numbers of both with their relative change."""
    one, other = found.one.snapshot, found.other.snapshot
    yield f"{one.digest[:16]} and {other.digest[:16]}"
    if found.is_same:
        yield "both hold the same bytes"
        return
    before, after = settings_of(one), settings_of(other)
    for name, value in before.items():
        if value != after[name]:
            yield f"{name}: {value} -> {after[name]}"
    yield from _numbers(figures_of(found.one), figures_of(found.other))
    if found.num_shared is None:
        yield "requests in both: unknown, because users are dealt out over other shards"
    else:
        yield (
            f"requests in both: {found.num_shared:,}; {one.num_requests - found.num_shared:,} only "
            f"in the first, {other.num_requests - found.num_shared:,} only in the second"
        )
    files = {each.path: each.sha256 for each in one.files}
    same = sum(files.get(each.path) == each.sha256 for each in other.files)
    yield f"files with the same bytes: {same} of {len(one.files)} and {len(other.files)}"


def _numbers(before: list[Figure], after: list[Figure]) -> Iterator[str]:
    """Yield each number that differs, or that only one of the two has."""
    others = {figure.name: figure for figure in after}
    for figure in before:
        other = others.pop(figure.name, Figure(figure.name, None, figure.kind))
        if figure.value != other.value:
            yield f"{figure.name}: {figure.text} -> {other.text}{_change(figure, other)}"
    for other in others.values():
        yield f"{other.name}: unknown -> {other.text}"


def _change(figure: Figure, other: Figure) -> str:
    if not figure.value or other.value is None:
        return ""
    change = other.value / figure.value - 1
    return f" ({change:+.1%})" if np.isfinite(change) else ""
