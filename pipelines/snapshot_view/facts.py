"""Counts what a snapshot holds, compares two, and says it in lines for a terminal.

The files are mapped into memory, and a shard's numbers are dropped before the next one's are read.
Not for judging numbers or differences, which is the data gate's (`validation.data_gate`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING, label_column
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, Window

LENGTH_EDGES = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
"""Sequence lengths are counted from each of these to the next."""


@dataclass(frozen=True)
class Counts:
    """Requests, their examples, and how many of these have each head's label."""

    requests: int = 0
    examples: int = 0
    positives: Counter[str] = field(default_factory=Counter)

    def rate(self, head: str) -> float | None:
        """Return the share of the examples with a head's label, or None where there is none."""
        return _ratio(self.positives[head], self.examples)


@dataclass(frozen=True)
class WindowFacts:
    """One of a snapshot's two windows."""

    name: str
    window: Window
    users: int = 0
    whole: Counts = Counts()
    by_day: dict[date, Counts] = field(default_factory=dict)
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(len(LENGTH_EDGES), np.int64))


@dataclass(frozen=True)
class SnapshotFacts:
    """A snapshot's manifest, and what its files hold."""

    snapshot: Snapshot
    training: WindowFacts
    holdout: WindowFacts

    @property
    def windows(self) -> tuple[WindowFacts, WindowFacts]:
        """Both windows, in time."""
        return self.training, self.holdout


def read_facts(snapshot: Snapshot, snapshot_dir: Path) -> SnapshotFacts:
    """Count what a snapshot holds.

    Args:
        snapshot: the manifest.
        snapshot_dir: local folder with the files.

    Raises:
        SnapshotDamagedError: a file is missing or no Arrow file.
    """
    training = _count(snapshot, snapshot_dir, SPLIT_TRAINING, "training", snapshot.training)
    holdout = _count(snapshot, snapshot_dir, SPLIT_HOLDOUT, "holdout", snapshot.holdout)
    return SnapshotFacts(snapshot, training, holdout)


def _count(
    snapshot: Snapshot, snapshot_dir: Path, split: int, name: str, window: Window
) -> WindowFacts:
    heads, days, users = snapshot.features.head_names, defaultdict[int, Counter[str]](Counter), 0
    lengths = np.zeros(len(LENGTH_EDGES), np.int64)
    for shard in snapshot.shards:
        requests, examples = (
            open_table(snapshot_dir, f"{shard.name}/{kind}.arrow")
            for kind in ("requests", "examples")
        )
        column = {key: np.asarray(requests[key]) for key in requests.column_names[1:]}
        own = column["split"] == split
        # Examples lie request by request.
        request = np.repeat(np.arange(len(requests)), column["num_examples"])
        numbers = {"requests": np.ones(len(requests)), "examples": column["num_examples"]} | {
            label: np.bincount(request, np.asarray(examples[label]), len(requests))
            for label in map(label_column, heads)
        }
        rows = {key: values[own].astype(np.int64) for key, values in numbers.items()}
        table = pa.table(rows | {"day": column["impressed_at"][own] // DAY_MS})
        for found in table.group_by("day").aggregate([(key, "sum") for key in rows]).to_pylist():
            days[found["day"]].update({key: found[f"{key}_sum"] for key in rows})
        users += len(np.unique(column["user_id"][own]))  # all of a user's are in one shard
        length = column["timeline_end"][own] - column["timeline_start"][own]
        lengths += np.histogram(length, [*LENGTH_EDGES, np.inf])[0]

    def counts_of(found: Counter[str]) -> Counts:
        positives = Counter({head: found[label_column(head)] for head in heads})
        return Counts(found["requests"], found["examples"], positives)

    by_day = {date(1970, 1, 1) + timedelta(days=n): counts_of(days[n]) for n in sorted(days)}
    whole = counts_of(sum(days.values(), Counter()))
    return WindowFacts(name, window, users, whole, by_day, lengths)


class Figure(NamedTuple):
    """One number of a snapshot; None where it cannot be told."""

    name: str
    value: float | None
    kind: str = "count"  # or "share", or "bytes"

    @property
    def text(self) -> str:
        """The value for people."""
        if self.value is None:
            return "unknown"
        if self.kind == "share":
            return f"{self.value:.2%}"
        return readable_bytes(self.value) if self.kind == "bytes" else f"{self.value:,.0f}"


def readable_bytes(number: float) -> str:
    """Return a number of bytes in the largest unit that leaves it above 1."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def settings_of(snapshot: Snapshot) -> dict[str, str]:
    """Return what the snapshot was built for, by name."""
    features = snapshot.features
    categorical = ", ".join(f"{each.table}.{each.name}" for each in features.categorical)
    return {
        "as of": f"{snapshot.as_of:%Y-%m-%d %H:%M} UTC",
        "training": span(snapshot.training),
        "holdout": span(snapshot.holdout),
        "embedding version": snapshot.embedding_version,
        "heads": ", ".join(features.head_names),
        "action types": ", ".join(features.action_types),
        "numeric features": ", ".join(each.name for each in features.numeric) or "none",
        "categorical features": categorical or "none",
        "shards": str(len(snapshot.shards)),
    }


def span(window: Window) -> str:
    """Return a window's days; the last one is outside."""
    return f"{window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}"


def figures_of(facts: SnapshotFacts) -> Iterator[Figure]:
    """Yield the snapshot's numbers, those of the windows first."""
    for window in facts.windows:
        name, whole = window.name, window.whole
        yield Figure(f"{name}: requests", whole.requests)
        yield Figure(f"{name}: users", window.users)
        yield Figure(f"{name}: examples", whole.examples)
        for head in sorted(whole.positives):
            yield Figure(f"{name}: label rate of {head}", whole.rate(head), "share")
        without = _ratio(int(window.lengths[0]), whole.requests)
        yield Figure(f"{name}: requests of users without an action", without, "share")
    snapshot, fits = facts.snapshot, facts.snapshot.event_counts
    yield Figure("actions in the timelines", sum(each.num_actions for each in snapshot.shards))
    yield Figure("pins", snapshot.num_pins)
    yield Figure("pins without an embedding", snapshot.num_cold_pins)
    yield Figure("repeated impressions dropped", snapshot.num_duplicate_impressions)
    yield Figure("impressions left out, too young", snapshot.num_immature_impressions)
    unknown = _ratio(fits.num_naming_unknown, fits.num_naming)
    yield Figure("named requests that are not there", unknown, "share")
    of_kinds: Counter[str] = Counter()
    for file in snapshot.files:
        of_kinds[Path(file.path).stem] += file.num_bytes
    yield Figure("bytes", of_kinds.total(), "bytes")
    for kind, size in sorted(of_kinds.items()):
        yield Figure(f"bytes of {kind}", size, "bytes")
    yield Figure("bytes for each example", _ratio(of_kinds.total(), snapshot.num_examples), "bytes")


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


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
        shares = zip(LENGTH_EDGES, window.lengths / max(window.whole.requests, 1), strict=True)
        each = ", ".join(f"from {edge}: {share:.0%}" for edge, share in shares)
        yield f"{window.name}: known actions of a request's user: {each}"
    for window in facts.windows:
        for day, of_day in window.by_day.items():
            rates = ", ".join(f"{h} {of_day.rate(h) or 0:.2%}" for h in sorted(of_day.positives))
            yield (
                f"{day} ({window.name}): {of_day.requests:,} requests, {of_day.examples:,} "
                f"examples; {rates}"
            )


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
            tables = (open_table(at, f"{shard.name}/requests.arrow") for at in (one_dir, other_dir))
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
            change = f" ({new.value / old.value - 1:+.1%})" if old.value and new.value else ""
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
