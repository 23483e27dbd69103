"""A snapshot's facts as lines for a terminal. Not for the page (`page`)."""

from collections.abc import Iterable, Iterator

from pipelines.contracts.artifacts import Snapshot
from pipelines.snapshot_view.facts import LENGTH_EDGES, Counts, SnapshotFacts
from pipelines.snapshot_view.figures import figures_of, readable_bytes, settings_of, span


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
    names = length_names()
    for window in facts.windows:
        shares = [
            f"{name}: {count / max(window.whole.requests, 1):.0%}"
            for name, count in zip(names, window.lengths, strict=True)
        ]
        yield f"{window.name}: known actions of a request's user: {', '.join(shares)}"
    for window in facts.windows:
        for day, counts in window.by_day.items():
            yield f"{day} ({window.name}): {day_text(counts)}"


def day_text(counts: Counts) -> str:
    """Return one day's counts in words."""
    rates = ", ".join(f"{head} {counts.rate(head) or 0:.2%}" for head in sorted(counts.positives))
    return f"{counts.requests:,} requests, {counts.examples:,} examples; {rates}"


def length_names() -> list[str]:
    """Return the names of the classes of sequence lengths."""
    edges = [int(edge) for edge in LENGTH_EDGES]
    pairs = zip(edges, edges[1:], strict=False)
    closed = [str(low) if high == low + 1 else f"{low} to {high - 1}" for low, high in pairs]
    return [*closed, f"{edges[-1]} or more"]
