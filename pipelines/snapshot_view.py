"""A snapshot for people: which one is meant, what lies in it, how two differ, what was done to it.

The files are mapped into memory, and a shard's numbers are dropped before the next one's are read.
Not for judging numbers or differences, which is the data gate's (`validation.data_gate`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich import filesize

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import digest_of_files
from pipelines.contracts.run_layout import MANIFEST, snapshot_manifest_uri
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING, label_column
from pipelines.contracts.snapshot_files import altered_files, open_table
from pipelines.contracts.time import DAY_MS, Window

_WINDOWS = {"training": SPLIT_TRAINING, "holdout": SPLIT_HOLDOUT}


def published(workspace_uri: str) -> list[Snapshot]:
    """Return the snapshots of a workspace, the newest as_of first.

    Raises:
        DataContractError: a manifest was altered.
        TransientStorageError: the storage failed.
    """
    found = map(_read, _places(workspace_uri).values())
    return sorted(found, key=lambda each: (each.as_of, each.digest), reverse=True)


def find(text: str, workspace_uri: str) -> Snapshot:
    """Return the snapshot that a text names, as it lies at its place, wherever it was built.

    Args:
        text: a snapshot's folder or URI, or the beginning of its name in the workspace.
        workspace_uri: where names are looked for.

    Raises:
        ConfigurationError: there is none, or the text begins the names of several.
        DataContractError: its manifest was altered.
        TransientStorageError: the storage failed.
    """
    places = _places(workspace_uri)
    meant = [name for name in places if text and name.startswith(text)]
    if len(meant) > 1:
        raise ConfigurationError(
            f"{text!r} begins the names of {len(meant)} snapshots in {workspace_uri}; expected "
            f"one; give more of the name: {', '.join(meant[:3])}"
        )
    return _read(places[meant[0]] if meant else storage.to_uri(text))


def _read(uri: str) -> Snapshot:
    if not storage.exists(manifest_uri := snapshot_manifest_uri(uri)):
        raise ConfigurationError(
            f"no manifest.json in {uri}; expected a built snapshot; `homefeed snapshot show` lists "
            f"those of the workspace"
        )
    return storage.read_model(manifest_uri, Snapshot).model_copy(update={"uri": uri})


def _places(workspace_uri: str) -> dict[str, str]:
    """Return the URIs of a workspace's snapshots by name.

    A folder without a manifest is none: it is being published, or a killed builder has left it.
    """
    folder = storage.join(workspace_uri, "snapshots")
    uris = {name: storage.join(folder, name) for name in storage.list_names(folder)}
    return {n: uri for n, uri in uris.items() if storage.exists(snapshot_manifest_uri(uri))}


@dataclass(frozen=True)
class SnapshotFacts:
    """A snapshot's manifest, and what its files hold."""

    snapshot: Snapshot
    figures: dict[str, float | None]  # a share is a float, a number an int; None: of nothing
    days: Mapping[str, Mapping[str, Mapping[str, int]]]  # by window and day, counts by name


def read_facts(snapshot: Snapshot, snapshot_dir: Path) -> SnapshotFacts:
    """Count what a snapshot holds.

    Args:
        snapshot: the manifest.
        snapshot_dir: local folder with the files.

    Raises:
        SnapshotDamagedError: a file is missing or no Arrow file.
    """
    labels = {head: label_column(head) for head in snapshot.features.head_names}
    days = {name: defaultdict[str, Counter[str]](Counter) for name in _WINDOWS}
    users = Counter[str]()
    for shard in snapshot.shards:
        requests, examples = (
            open_table(snapshot_dir, f"{shard.name}/{kind}.arrow")
            for kind in ("requests", "examples")
        )
        column = {key: np.asarray(requests[key]) for key in requests.column_names[1:]}
        # Examples lie request by request.
        request = np.repeat(np.arange(len(requests)), column["num_examples"])
        counted = {
            "requests": np.ones(len(requests)),
            "examples": column["num_examples"],
            "without an action": column["timeline_end"] == column["timeline_start"],
        } | {
            label: np.bincount(request, np.asarray(examples[label]), len(requests))
            for label in labels.values()
        }
        day = column["impressed_at"] // DAY_MS
        for name, split in _WINDOWS.items():
            own = column["split"] == split
            users[name] += len(np.unique(column["user_id"][own]))  # all of a user's are in a shard
            numbers, place = np.unique(day[own], return_inverse=True)
            sums = {key: np.bincount(place, values[own]) for key, values in counted.items()}
            for row, number in enumerate(numbers.astype("datetime64[D]")):
                days[name][str(number)].update({key: int(each[row]) for key, each in sums.items()})

    figures: dict[str, float | None] = {}
    for name, by_day in days.items():
        total = sum(by_day.values(), Counter[str]())
        figures |= {f"{name}: {kind}": total[kind] for kind in ("requests", "examples")}
        figures[f"{name}: users"] = users[name]
        for head, label in sorted(labels.items()):
            figures[f"{name}: label rate of {head}"] = _ratio(total[label], total["examples"])
        without = _ratio(total["without an action"], total["requests"])
        figures[f"{name}: requests of users without an action"] = without
    fits = snapshot.event_counts
    figures |= {
        "actions in the timelines": sum(each.num_actions for each in snapshot.shards),
        "pins": snapshot.num_pins,
        "pins without an embedding": snapshot.num_cold_pins,
        "repeated impressions dropped": snapshot.num_duplicate_impressions,
        "impressions left out, too young": snapshot.num_immature_impressions,
        "named requests that are not there": _ratio(fits.num_naming_unknown, fits.num_naming),
        "bytes": sum(file.num_bytes for file in snapshot.files),
    }
    return SnapshotFacts(
        snapshot, figures, {name: dict(sorted(by_day.items())) for name, by_day in days.items()}
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _said(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.2%}" if isinstance(value, float) else f"{value:,}"


def _span(window: Window) -> str:
    """Return a window's days; the last one is outside."""
    return f"{window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}"


def settings_of(snapshot: Snapshot) -> dict[str, str]:
    """Return what the snapshot was built for, by name."""
    features = snapshot.features
    categorical = ", ".join(f"{each.table}.{each.name}" for each in features.categorical)
    return {
        "as of": f"{snapshot.as_of:%Y-%m-%d %H:%M} UTC",
        "training": _span(snapshot.training),
        "holdout": _span(snapshot.holdout),
        "embedding version": snapshot.embedding_version,
        "heads": ", ".join(features.head_names),
        "action types": ", ".join(features.action_types),
        "numeric features": ", ".join(each.name for each in features.numeric) or "none",
        "categorical features": categorical or "none",
        "shards": str(len(snapshot.shards)),
    }


def list_lines(snapshots: Iterable[Snapshot]) -> Iterator[str]:
    """Yield one line for each snapshot."""
    for each in snapshots:
        size = filesize.decimal(sum(file.num_bytes for file in each.files))
        yield (
            f"{each.digest[:16]}  as of {each.as_of:%Y-%m-%d}, training {_span(each.training)}, "
            f"holdout {_span(each.holdout)}: {each.num_examples:,} examples of "
            f"{each.num_requests:,} requests, {size}"
        )


def lines_of(facts: SnapshotFacts) -> Iterator[str]:
    """Yield what a snapshot is, its numbers, and its days."""
    yield f"snapshot {facts.snapshot.digest[:16]} at {facts.snapshot.uri}"
    yield from (f"{name}: {value}" for name, value in settings_of(facts.snapshot).items())
    yield from (f"{name}: {_said(value)}" for name, value in facts.figures.items())
    for window, days in facts.days.items():
        for day, of in days.items():
            rates = ", ".join(
                f"{head} {of[label_column(head)] / max(of['examples'], 1):.2%}"
                for head in sorted(facts.snapshot.features.head_names)
            )
            sizes = f"{of['requests']:,} requests, {of['examples']:,} examples"
            yield f"{day} ({window}): {sizes}; {rates}"


@dataclass(frozen=True)
class Difference:
    """Two snapshots side by side."""

    one: SnapshotFacts
    other: SnapshotFacts
    num_shared: int  # requests in both


def compare(one: Snapshot, one_dir: Path, other: Snapshot, other_dir: Path) -> Difference:
    """Count two snapshots, whose files lie in two local folders, and what they share.

    Raises:
        SnapshotDamagedError: a file is missing or no Arrow file.
    """
    ids = []
    for snapshot, folder in ((one, one_dir), (other, other_dir)):
        found = [open_table(folder, f"{each.name}/requests.arrow") for each in snapshot.shards]
        ids.append(pa.concat_tables(found)["request_id"].cast(pa.large_string()))
    shared = pc.sum(pc.is_in(ids[0], value_set=ids[1])).as_py() or 0
    return Difference(read_facts(one, one_dir), read_facts(other, other_dir), shared)


def difference_lines(found: Difference) -> Iterator[str]:
    """Yield what differs, settings first; numbers of both with their relative change."""
    one, other, shared = found.one.snapshot, found.other.snapshot, found.num_shared
    yield f"{one.digest[:16]} and {other.digest[:16]}"
    if one.digest == other.digest:
        yield "both hold the same bytes"
        return
    settings, figures = settings_of(other), found.other.figures
    for name, value in settings_of(one).items():
        if value != settings[name]:
            yield f"{name}: {value} -> {settings[name]}"
    for name in found.one.figures | figures:
        old, new = found.one.figures.get(name), figures.get(name)
        if old != new:
            change = f" ({new / old - 1:+.1%})" if old and new else ""
            yield f"{name}: {_said(old)} -> {_said(new)}{change}"
    yield (
        f"requests in both: {shared:,}; {one.num_requests - shared:,} only in the first, "
        f"{other.num_requests - shared:,} only in the second"
    )
    files = {each.path: each.sha256 for each in one.files}
    same = sum(files.get(each.path) == each.sha256 for each in other.files)
    yield f"files with the same bytes: {same} of {len(one.files)} and {len(other.files)}"


def problems(snapshot: Snapshot, snapshot_dir: Path) -> Iterator[str]:
    """Yield what is wrong with a snapshot's files, each in a sentence for people.

    Args:
        snapshot: the manifest; its digest is that of its files.
        snapshot_dir: local folder with the files.
    """
    if (digest := digest_of_files(snapshot.files)) != snapshot.digest:
        yield (
            f"{MANIFEST} has digest {snapshot.digest[:16]}, and the files that it names come to "
            f"{digest[:16]}"
        )
    yield from altered_files(snapshot_dir, snapshot.files).values()
    named = {MANIFEST, *(file.path for file in snapshot.files)}
    for path in sorted(snapshot_dir.rglob("*")):
        relative = path.relative_to(snapshot_dir).as_posix()
        if path.is_file() and relative not in named:
            yield f"{relative} is no file of this snapshot"
