"""A snapshot for people: which one is meant, what lies in it, what was done to it.

The files are mapped into memory, and a shard's numbers are dropped before the next one's are read.
Not for judging numbers, which is the data gate's (`validation.data_gate`).
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import filesize

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import digest_of_files
from pipelines.contracts.run_layout import MANIFEST, snapshot_manifest_uri
from pipelines.contracts.schemas import SPLIT_HOLDOUT, SPLIT_TRAINING, label_column
from pipelines.contracts.snapshot_files import altered_files, open_table
from pipelines.contracts.time import Window

_WINDOWS = {"training": SPLIT_TRAINING, "holdout": SPLIT_HOLDOUT}


def published(workspace_uri: str, start: str = "") -> list[Snapshot]:
    """Return the snapshots of a workspace whose names begin with a text, the newest as_of first.

    A folder without a manifest is none: it is being published, or a killed builder has left it.

    Raises:
        DataContractError: a manifest was altered.
        TransientStorageError: the storage failed.
    """
    folder = storage.join(workspace_uri, "snapshots")
    names = (name for name in storage.list_names(folder) if name.startswith(start))
    found = filter(None, (_read(storage.join(folder, name)) for name in names))
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
    meant = [] if "/" in text else published(workspace_uri, text)  # A place is asked itself.
    found = meant[0] if meant else _read(storage.to_uri(text))
    if found is None or len(meant) > 1 or not text:
        raise ConfigurationError(
            f"{text!r} names {len(meant)} snapshots of {workspace_uri}; expected one, or a folder "
            f"with its manifest.json; `homefeed snapshot show` lists the names"
        )
    return found


def _read(uri: str) -> Snapshot | None:
    with contextlib.suppress(FileNotFoundError):
        known = storage.read_model(snapshot_manifest_uri(uri), Snapshot)
        return known.model_copy(update={"uri": uri})
    return None


class SnapshotFacts(NamedTuple):
    """A snapshot's manifest, and what its files hold."""

    snapshot: Snapshot
    figures: dict[str, float | None]  # a share is a float, a number an int; None: of nothing


def read_facts(snapshot: Snapshot, snapshot_dir: Path) -> SnapshotFacts:
    """Count what a snapshot holds.

    Args:
        snapshot: the manifest.
        snapshot_dir: local folder with the files.

    Raises:
        SnapshotDamagedError: a file is missing or no Arrow file.
    """
    total = {name: Counter[str]() for name in _WINDOWS}
    for shard in snapshot.shards:
        requests, examples = (
            open_table(snapshot_dir, f"{shard.name}/{kind}.arrow")
            for kind in ("requests", "examples")
        )
        column = {key: np.asarray(requests[key]) for key in requests.column_names[1:]}
        sizes, is_empty = column["num_examples"], column["timeline_end"] == column["timeline_start"]
        for name, split in _WINDOWS.items():
            own = column["split"] == split
            counted = {
                "requests": own.sum(),
                "examples": sizes[own].sum(),
                "users": len(np.unique(column["user_id"][own])),  # all of a user's are in a shard
                "empty": is_empty[own].sum(),
            }
            of_own = np.repeat(own, sizes)  # Examples lie request by request.
            for head in snapshot.features.head_names:
                counted[f"of {head}"] = np.asarray(examples[label_column(head)])[of_own].sum()
            total[name].update({key: int(value) for key, value in counted.items()})

    figures: dict[str, float | None] = {}
    for name, of in total.items():
        figures |= {f"{name}: {kind}": of[kind] for kind in ("requests", "examples", "users")}
        for head in sorted(snapshot.features.head_names):
            figures[f"{name}: label rate of {head}"] = _ratio(of[f"of {head}"], of["examples"])
        without = _ratio(of["empty"], of["requests"])
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
    return SnapshotFacts(snapshot, figures)


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
    """Yield what a snapshot is, and its numbers."""
    yield f"snapshot {facts.snapshot.digest[:16]} at {facts.snapshot.uri}"
    yield from (f"{name}: {value}" for name, value in settings_of(facts.snapshot).items())
    yield from (f"{name}: {_said(value)}" for name, value in facts.figures.items())


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
