"""A snapshot's facts as named numbers and settings, for the texts, the page and a difference.

Not for counting them (`facts`).
"""

from collections.abc import Iterator
from typing import NamedTuple

from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.config import FeatureConfig
from pipelines.contracts.time import Window
from pipelines.snapshot_view.facts import SnapshotFacts, WindowFacts


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
        if self.kind == "bytes":
            return readable_bytes(self.value)
        return f"{self.value:,.0f}"


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
    return {
        "as of": f"{snapshot.as_of:%Y-%m-%d %H:%M} UTC",
        "training": span(snapshot.training),
        "holdout": span(snapshot.holdout),
        "embedding version": snapshot.embedding_version,
        "heads": ", ".join(features.head_names),
        "action types": ", ".join(features.action_types),
        "numeric features": ", ".join(each.name for each in features.numeric) or "none",
        "categorical features": _categorical(features) or "none",
        "shards": str(len(snapshot.shards)),
    }


def figures_of(facts: SnapshotFacts) -> list[Figure]:
    """Return the snapshot's numbers, those of the windows first."""
    snapshot, num_bytes = facts.snapshot, facts.num_bytes
    whole = sum(num_bytes.values())
    counts = snapshot.event_counts
    return [
        *_of_window(facts.training),
        *_of_window(facts.holdout),
        Figure("actions in the timelines", sum(each.num_actions for each in snapshot.shards)),
        Figure("pins", snapshot.num_pins),
        Figure("pins without an embedding", snapshot.num_cold_pins),
        Figure("repeated impressions dropped", snapshot.num_duplicate_impressions),
        Figure("impressions left out, too young", snapshot.num_immature_impressions),
        Figure(
            "named requests that are not there",
            _ratio(counts.num_naming_unknown, counts.num_naming),
            "share",
        ),
        Figure("bytes", whole, "bytes"),
        *(Figure(f"bytes of {name}", size, "bytes") for name, size in sorted(num_bytes.items())),
        Figure("bytes for each example", _ratio(whole, snapshot.num_examples), "bytes"),
    ]


def _of_window(window: WindowFacts) -> Iterator[Figure]:
    yield Figure(f"{window.name}: requests", window.whole.requests)
    yield Figure(f"{window.name}: users", window.users)
    yield Figure(f"{window.name}: examples", window.whole.examples)
    for head in sorted(window.whole.positives):
        yield Figure(f"{window.name}: label rate of {head}", window.whole.rate(head), "share")
    without = _ratio(int(window.lengths[0]), window.whole.requests)
    yield Figure(f"{window.name}: requests of users without an action", without, "share")


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def span(window: Window) -> str:
    """Return a window's days; the last one is outside."""
    return f"{window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}"


def _categorical(features: FeatureConfig) -> str:
    return ", ".join(f"{each.table}.{each.name}" for each in features.categorical)
