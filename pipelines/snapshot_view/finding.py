"""The snapshot that somebody means, and what is wrong with its files, if anything is.

Not for what lies in it (`facts`), nor for whether it was good data (`validation.data_gate`).
"""

from collections.abc import Iterator
from pathlib import Path

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.files import digest_of_files
from pipelines.contracts.run_layout import MANIFEST, snapshot_manifest_uri
from pipelines.contracts.snapshot_files import altered_files


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
