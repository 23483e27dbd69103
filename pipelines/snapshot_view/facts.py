"""What a snapshot holds, counted in one pass over its shards, as named numbers and settings.

The files are mapped into memory, and a shard's numbers are dropped before the next one's are read.
Not for judging them, which is the data gate's (`validation.data_gate`).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING, label_column
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, Window

LENGTH_EDGES = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
"""Sequence lengths are counted from each of these to the next."""


@dataclass
class Counts:
    """Requests, their examples, and how many of these have each head's label."""

    requests: int = 0
    examples: int = 0
    positives: Counter[str] = field(default_factory=Counter)

    def rate(self, head: str) -> float | None:
        """Return the share of the examples with a head's label, or None where there is none."""
        return self.positives[head] / self.examples if self.examples else None

    def add(self, other: "Counts") -> None:
        """Add what was counted elsewhere."""
        self.requests += other.requests
        self.examples += other.examples
        self.positives.update(other.positives)


@dataclass
class WindowFacts:
    """One of a snapshot's two windows."""

    name: str
    window: Window
    users: int = 0
    whole: Counts = field(default_factory=Counts)
    by_day: dict[date, Counts] = field(default_factory=dict)
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(len(LENGTH_EDGES), np.int64))


@dataclass
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
    training = WindowFacts("training", snapshot.training)
    holdout = WindowFacts("holdout", snapshot.holdout)
    for shard in snapshot.shards:
        requests, examples = (
            open_table(snapshot_dir, f"{shard.name}/{name}.arrow")
            for name in ("requests", "examples")
        )
        column = {name: np.asarray(requests[name]) for name in requests.column_names[1:]}
        length = column["timeline_end"] - column["timeline_start"]
        # Examples lie request by request.
        request = np.repeat(np.arange(len(requests)), column["num_examples"])
        positives = {
            head: np.bincount(request, np.asarray(examples[label_column(head)]), len(requests))
            for head in snapshot.features.head_names
        }
        for split, window in ((SPLIT_TRAINING, training), (SPLIT_HOLDOUT, holdout)):
            rows = np.flatnonzero(column["split"] == split)
            window.users += len(np.unique(column["user_id"][rows]))  # all of a user's in one shard
            window.lengths += np.histogram(length[rows], [*LENGTH_EDGES, np.inf])[0]
            days, place = np.unique(column["impressed_at"][rows] // DAY_MS, return_inverse=True)
            num_requests = np.bincount(place)
            num_examples = np.bincount(place, column["num_examples"][rows])
            labels = {head: np.bincount(place, found[rows]) for head, found in positives.items()}
            for n, day in enumerate(days.tolist()):
                of_day = Counter({head: int(found[n]) for head, found in labels.items()})
                counts = Counts(int(num_requests[n]), int(num_examples[n]), of_day)
                on = datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date()
                window.by_day.setdefault(on, Counts()).add(counts)
                window.whole.add(counts)
    for window in (training, holdout):
        window.by_day = dict(sorted(window.by_day.items()))
    return SnapshotFacts(snapshot, training, holdout)


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


def figures_of(facts: SnapshotFacts) -> list[Figure]:
    """Return the snapshot's numbers, those of the windows first."""
    snapshot, num_bytes, fits = facts.snapshot, facts.num_bytes, facts.snapshot.event_counts
    whole = sum(num_bytes.values())
    unknown = _ratio(fits.num_naming_unknown, fits.num_naming)
    return [
        *(figure for window in facts.windows for figure in _of_window(window)),
        Figure("actions in the timelines", sum(each.num_actions for each in snapshot.shards)),
        Figure("pins", snapshot.num_pins),
        Figure("pins without an embedding", snapshot.num_cold_pins),
        Figure("repeated impressions dropped", snapshot.num_duplicate_impressions),
        Figure("impressions left out, too young", snapshot.num_immature_impressions),
        Figure("named requests that are not there", unknown, "share"),
        Figure("bytes", whole, "bytes"),
        *(Figure(f"bytes of {name}", size, "bytes") for name, size in num_bytes.items()),
        Figure("bytes for each example", _ratio(whole, snapshot.num_examples), "bytes"),
    ]


def _of_window(window: WindowFacts) -> Iterator[Figure]:
    name, whole = window.name, window.whole
    yield Figure(f"{name}: requests", whole.requests)
    yield Figure(f"{name}: users", window.users)
    yield Figure(f"{name}: examples", whole.examples)
    for head in sorted(whole.positives):
        yield Figure(f"{name}: label rate of {head}", whole.rate(head), "share")
    without = _ratio(int(window.lengths[0]), whole.requests)
    yield Figure(f"{name}: requests of users without an action", without, "share")


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
