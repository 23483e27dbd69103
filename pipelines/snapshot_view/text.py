"""Snapshots as lines for a terminal: all of them, one, and what differs between two.

Not for the page (`page`), nor for judging a difference: the data gate knows what is usual.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.snapshot_files import open_table
from pipelines.snapshot_view.facts import (
    LENGTH_EDGES,
    Figure,
    SnapshotFacts,
    figures_of,
    read_facts,
    readable_bytes,
    settings_of,
    span,
)


def list_lines(snapshots: Iterable[Snapshot]) -> Iterator[str]:
    """Yield one line for each snapshot."""
    for each in snapshots:
        size = readable_bytes(sum(file.num_bytes for file in each.files))
        yield (
            f"{each.digest[:16]}  as of {each.as_of:%Y-%m-%d}, training {span(each.training)}, "
            f"holdout {span(each.holdout)}: {each.num_examples:,} examples of "
            f"{each.num_requests:,} requests, {size}"
        )


def lines_of(facts: SnapshotFacts) -> Iterator[str]:
    """Yield what a snapshot is, its numbers, and its days."""
    yield f"snapshot {facts.snapshot.digest[:16]} at {facts.snapshot.uri}"
    yield from (f"{name}: {value}" for name, value in settings_of(facts.snapshot).items())
    yield from (f"{figure.name}: {figure.text}" for figure in figures_of(facts))
    for window in facts.windows:
        counts = zip(length_names(), window.lengths / max(window.whole.requests, 1), strict=True)
        shares = ", ".join(f"{name}: {share:.0%}" for name, share in counts)
        yield f"{window.name}: known actions of a request's user: {shares}"
    for window in facts.windows:
        for day, of_day in window.by_day.items():
            heads = sorted(of_day.positives)
            rates = ", ".join(f"{head} {of_day.rate(head) or 0:.2%}" for head in heads)
            yield (
                f"{day} ({window.name}): {of_day.requests:,} requests, {of_day.examples:,} "
                f"examples; {rates}"
            )


def length_names() -> list[str]:
    """Return the names of the classes of sequence lengths."""
    edges = LENGTH_EDGES.tolist()
    pairs = zip(edges, edges[1:], strict=False)
    closed = [str(low) if high == low + 1 else f"{low} to {high - 1}" for low, high in pairs]
    return [*closed, f"{edges[-1]} or more"]


@dataclass(frozen=True)
class Difference:
    """Two snapshots side by side."""

    one: SnapshotFacts
    other: SnapshotFacts
    num_shared: int | None  # requests in both; None where users are dealt out differently


def compare(one: Snapshot, one_dir: Path, other: Snapshot, other_dir: Path) -> Difference:
    """Count two snapshots, whose files lie in two local folders, and what they share.

    Raises:
        SnapshotDamagedError: a file is missing or no Arrow file.
    """
    shared: int | None = None
    if [each.name for each in one.shards] == [each.name for each in other.shards]:
        shared = 0
        for shard in one.shards:  # in which all requests of a user are, in both
            tables = (
                open_table(dir, f"{shard.name}/requests.arrow") for dir in (one_dir, other_dir)
            )
            ids, others = (table["request_id"].cast(pa.large_string()) for table in tables)
            shared += pc.sum(pc.is_in(ids, value_set=others)).as_py() or 0
    return Difference(read_facts(one, one_dir), read_facts(other, other_dir), shared)


def difference_lines(found: Difference) -> Iterator[str]:
    """Yield what differs, settings first; numbers of both with their relative change."""
    one, other, shared = found.one.snapshot, found.other.snapshot, found.num_shared
    yield f"{one.digest[:16]} and {other.digest[:16]}"
    if one.digest == other.digest:
        yield "both hold the same bytes"
        return
    settings = settings_of(other)
    for name, value in settings_of(one).items():
        if value != settings[name]:
            yield f"{name}: {value} -> {settings[name]}"
    before, after = (
        {each.name: each for each in figures_of(facts)} for facts in (found.one, found.other)
    )
    for name in before | after:
        old, new = (each.get(name, Figure(name, None)) for each in (before, after))
        if old.value != new.value:
            ratio = new.value / old.value if old.value and new.value is not None else np.nan
            change = f" ({ratio - 1:+.1%})" if np.isfinite(ratio) else ""
            yield f"{name}: {old.text} -> {new.text}{change}"
    if shared is None:
        yield "requests in both: unknown, because users are dealt out over other shards"
    else:
        yield (
            f"requests in both: {shared:,}; {one.num_requests - shared:,} only in the first, "
            f"{other.num_requests - shared:,} only in the second"
        )
    files = {each.path: each.sha256 for each in one.files}
    same = sum(files.get(each.path) == each.sha256 for each in other.files)
    yield f"files with the same bytes: {same} of {len(one.files)} and {len(other.files)}"
