"""What a snapshot holds, counted in one pass over its shards, and how two of them differ.

The files are mapped into memory, and a shard's numbers are dropped before the next one's are read.
Not for judging them, which is the data gate's (`validation.data_gate`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
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
LENGTH_NAMES = (
    *("0", "1", "2 to 4", "5 to 9", "10 to 19", "20 to 49", "50 to 99", "100 to 199"),
    *("200 to 499", "500 to 999", "1000 or more"),
)


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

    @property
    def num_bytes(self) -> dict[str, int]:
        """Bytes by kind of file ('examples'), over all shards."""
        found: Counter[str] = Counter()
        for file in self.snapshot.files:
            found[Path(file.path).stem] += file.num_bytes
        return dict(sorted(found.items()))


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

    dates = {day: datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date() for day in sorted(days)}
    by_day = {date: counts_of(days[day]) for day, date in dates.items()}
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
    num_bytes = sum(facts.num_bytes.values())
    yield Figure("bytes", num_bytes, "bytes")
    for kind, size in facts.num_bytes.items():
        yield Figure(f"bytes of {kind}", size, "bytes")
    yield Figure("bytes for each example", _ratio(num_bytes, snapshot.num_examples), "bytes")


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


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
