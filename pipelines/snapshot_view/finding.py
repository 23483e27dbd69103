"""Which snapshot somebody means: a name below the workspace, the beginning of one, or a place.

Not for what lies in it (`facts`).
"""

from collections.abc import Iterator

from pipelines import storage
from pipelines.contracts.artifacts import Snapshot
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.run_layout import snapshot_manifest_uri

FOLDER = "snapshots"
"""Below the workspace."""


def published(workspace_uri: str) -> list[Snapshot]:
    """Return the snapshots of a workspace, the newest as_of first.

    A folder without a manifest is none: it is being published, or a killed builder has left it.

    Raises:
        DataContractError: a manifest was altered.
        TransientStorageError: the storage failed.
    """
    found = [_read(uri) for _, uri in _folders(workspace_uri)]
    return sorted(found, key=lambda each: (each.as_of, each.digest), reverse=True)


def find(text: str, workspace_uri: str) -> Snapshot:
    """Return the snapshot that a text names.

    Args:
        text: a snapshot's folder or URI, or the beginning of its name in the workspace.
        workspace_uri: where names are looked for.

    Raises:
        ConfigurationError: there is none, or the text begins the names of several.
        DataContractError: its manifest was altered.
        TransientStorageError: the storage failed.
    """
    meant = {name: uri for name, uri in _folders(workspace_uri) if text and name.startswith(text)}
    if len(meant) > 1:
        raise ConfigurationError(
            f"{text!r} begins the names of {len(meant)} snapshots in {workspace_uri}; expected "
            f"one; give more of the name: {', '.join(list(meant)[:3])}"
        )
    return _read(next(iter(meant.values()), storage.to_uri(text)))


def _folders(workspace_uri: str) -> Iterator[tuple[str, str]]:
    """Yield name and place of each snapshot of a workspace."""
    folder = storage.join(workspace_uri, FOLDER)
    for name in storage.list_names(folder):
        uri = storage.join(folder, name)
        if storage.exists(snapshot_manifest_uri(uri)):
            yield name, uri


def _read(uri: str) -> Snapshot:
    """Return a snapshot as it lies at a place, wherever it was built."""
    manifest_uri = snapshot_manifest_uri(uri)
    if not storage.exists(manifest_uri):
        raise ConfigurationError(
            f"no manifest.json in {uri}; expected a built snapshot; `homefeed snapshot show` lists "
            f"those of the workspace"
        )
    return storage.read_model(manifest_uri, Snapshot).model_copy(update={"uri": uri})
