"""What a snapshot holds, counted in one pass over its shards: requests, labels, days, lengths.

The files are mapped into memory, and a shard's numbers are dropped before the next one's are read.
Not for judging them, which is the data gate's (`validation.data_gate`).
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING, label_column
from pipelines.contracts.snapshot_files import open_table
from pipelines.contracts.time import DAY_MS, Window

LENGTH_EDGES = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
"""Sequence lengths are counted from each of these to the next."""
EPOCH = np.datetime64("1970-01-01", "D")


@dataclass
class Counts:
    """Requests, their examples, and how many of these have each head's label."""

    requests: int = 0
    examples: int = 0
    positives: Counter[str] = field(default_factory=Counter)

    def rate(self, head: str) -> float | None:
        """Return the share of the examples with a head's label, or None where there is none."""
        return self.positives[head] / self.examples if self.examples else None


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
        return dict(found)


def read_facts(snapshot: Snapshot, snapshot_dir: Path) -> SnapshotFacts:
    """Count what a snapshot holds.

    Args:
        snapshot: the manifest.
        snapshot_dir: local folder with the files.

    Raises:
        SnapshotDamagedError: a file is missing or no Arrow file.
    """
    facts = SnapshotFacts(
        snapshot,
        WindowFacts("training", snapshot.training),
        WindowFacts("holdout", snapshot.holdout),
    )
    for shard in snapshot.shards:
        _add_shard(facts, snapshot_dir, shard.name)
    for window in facts.windows:
        window.by_day = dict(sorted(window.by_day.items()))
        for counts in window.by_day.values():
            window.whole.requests += counts.requests
            window.whole.examples += counts.examples
            window.whole.positives.update(counts.positives)
    return facts


def _add_shard(facts: SnapshotFacts, snapshot_dir: Path, shard: str) -> None:
    requests = open_table(snapshot_dir, f"{shard}/requests.arrow")
    examples = open_table(snapshot_dir, f"{shard}/examples.arrow")
    num_examples = np.asarray(requests["num_examples"], dtype=np.int64)
    owner = _request_of_example(np.asarray(requests["first_example"]), num_examples, len(examples))
    positives = {
        head: np.bincount(
            owner, np.asarray(examples[label_column(head)]), minlength=len(num_examples)
        )
        for head in facts.snapshot.features.head_names
    }
    columns = {"examples": num_examples, **positives}
    for split, window in ((SPLIT_TRAINING, facts.training), (SPLIT_HOLDOUT, facts.holdout)):
        rows = np.flatnonzero(np.asarray(requests["split"]) == split)
        users, at, start, end = (
            np.asarray(requests[name])[rows]
            for name in ("user_id", "impressed_at", "timeline_start", "timeline_end")
        )
        window.users += len(np.unique(users))  # all rows of a user are in one shard
        bins = np.searchsorted(LENGTH_EDGES, end - start, side="right") - 1
        window.lengths += np.bincount(bins, minlength=len(LENGTH_EDGES))
        _add_days(window, at // DAY_MS, {name: values[rows] for name, values in columns.items()})


def _request_of_example(first: np.ndarray, size: np.ndarray, num_examples: int) -> np.ndarray:
    """Return the request of each example [num_examples], which lie together."""
    owner = np.zeros(num_examples, dtype=np.int64)
    within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    owner[np.repeat(first, size) + within] = np.repeat(np.arange(len(size)), size)
    return owner


def _add_days(window: WindowFacts, day: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """Add a shard's requests to the days on which they were made."""
    days, place, num_requests = np.unique(day, return_inverse=True, return_counts=True)
    sums = {name: np.bincount(place, values) for name, values in columns.items()}
    num_examples = sums.pop("examples")
    for number, one in enumerate(days):
        counts = window.by_day.setdefault((EPOCH + one).item(), Counts())
        counts.requests += int(num_requests[number])
        counts.examples += int(num_examples[number])
        for head, values in sums.items():
            counts.positives[head] += int(values[number])
