"""A snapshot for people: which one is meant, what lies in it, what was done to it.

Label rates and features are drawn by the data gate's pages (`validation.data_gate`).
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich import filesize

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import digest_of_files
from pipelines.contracts.run_layout import MANIFEST, snapshot_manifest_uri
from pipelines.contracts.snapshot_files import altered_files
from pipelines.contracts.time import Window


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


def _span(window: Window) -> str:
    """Return a window's days; the last one is outside."""
    return f"{window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}"


def facts_of(snapshot: Snapshot) -> dict[str, str]:
    """Return what a snapshot was built for, and what its manifest counts, by name."""
    features, fits = snapshot.features, snapshot.event_counts
    size = filesize.decimal(sum(file.num_bytes for file in snapshot.files))
    return {
        "as of": f"{snapshot.as_of:%Y-%m-%d %H:%M} UTC",
        "training": _span(snapshot.training),
        "holdout": _span(snapshot.holdout),
        "embedding version": snapshot.embedding_version,
        "heads": ", ".join(features.head_names),
        "action types": ", ".join(features.action_types),
        "numeric features": ", ".join(each.name for each in features.numeric) or "none",
        "categorical features": ", ".join(each.name for each in features.categorical) or "none",
        "rows": f"{snapshot.num_examples:,} examples of {snapshot.num_requests:,} requests, {size}",
        "actions in the timelines": f"{sum(each.num_actions for each in snapshot.shards):,}",
        "pins": f"{snapshot.num_pins:,}, {snapshot.num_cold_pins:,} without an embedding",
        "impressions left out": f"{snapshot.num_duplicate_impressions:,} repeated, "
        f"{snapshot.num_immature_impressions:,} too young",
        "requests that are not there": f"{fits.num_naming_unknown:,} of {fits.num_naming:,} named",
    }


def list_lines(snapshots: Iterable[Snapshot]) -> Iterator[str]:
    """Yield one line for each snapshot."""
    for each in snapshots:
        facts, named = facts_of(each), f"{each.digest[:16]}  as of {each.as_of:%Y-%m-%d}"
        windows = f"training {facts['training']}, holdout {facts['holdout']}"
        yield f"{named}, {windows}: {facts['rows']}"


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
