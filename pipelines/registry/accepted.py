"""The snapshots that the data gate has accepted, so that later ones are compared with them.

    <workspace>/accepted_snapshots/<recipe's key>/<as_of>--<digest>.json    an AcceptedSnapshot

The key is that of the recipe's reference (`pipelines.recipes.key_of`). So two recipes from outside
are two, though they call themselves the same, and a recipe whose options were changed still finds
its last snapshot.

Not for accepting: that is the stage `check_snapshot`. Tested with the stages that write and read
the markers, in tests/pipelines/stages/test_check_snapshot.py and test_resolve_run.py.
"""

import fnmatch
from datetime import datetime

from pydantic import AwareDatetime, Field

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.base import Frozen
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.recipes import key_of


class AcceptedSnapshot(Frozen):
    """Marker of one accepted snapshot."""

    as_of: AwareDatetime
    snapshot_uri: str
    recipe: str = Field(description="Its reference.")
    profile_uri: str = Field(default="", description="What was measured; '' in older markers.")


def mark_accepted(run: ResolvedRun, snapshot: Snapshot, profile_uri: str) -> None:
    """Leave the marker of a snapshot that the data gate accepted in this run."""
    marker = AcceptedSnapshot(
        as_of=run.as_of,
        snapshot_uri=snapshot.uri,
        recipe=run.config.reference,
        profile_uri=profile_uri,
    )
    storage.write_model(_marker_uri(run.workspace_uri, run, snapshot), marker)


def read_kept(run: ResolvedRun, reference: Snapshot, name: str) -> bytes | None:
    """Return a file that was kept when the gate accepted the reference, or None if it is gone.

    Args:
        run: The run that asks.
        reference: The accepted snapshot.
        name: Of the file; it lies beside the reference's profile.
    """
    # The marker lies in the reference's workspace, which is another one where a cycle is rebuilt.
    workspace_uri = reference.uri.rpartition("/snapshots/")[0]
    marker_uri = _marker_uri(workspace_uri, run, reference)
    if not storage.exists(marker_uri):
        return None
    repair = "delete it: the reference is then measured again"
    profile_uri = storage.read_model(marker_uri, AcceptedSnapshot, repair).profile_uri
    uri = storage.join(profile_uri.rpartition("/")[0], name) if profile_uri else ""
    return storage.read_bytes(uri) if uri and storage.exists(uri) else None


def _marker_uri(workspace_uri: str, run: ResolvedRun, snapshot: Snapshot) -> str:
    folder = accepted_folder(workspace_uri, run.config.reference)
    return storage.join(folder, f"{snapshot.as_of:%Y-%m-%d}--{snapshot.digest[:12]}.json")


def newest_accepted(workspace_uri: str, recipe: str, before: datetime) -> str | None:
    """Return the URI of the newest accepted snapshot of a recipe with an earlier as_of, or None.

    A snapshot that was deleted since is passed over, as is a mark that is still being written.
    """
    folder = accepted_folder(workspace_uri, recipe)
    for name in reversed(fnmatch.filter(storage.list_names(folder), "[!.]*.json")):
        repair = "delete it: an older accepted snapshot is then the reference"
        marker = storage.read_model(storage.join(folder, name), AcceptedSnapshot, repair)
        if marker.as_of < before and storage.exists(snapshot_manifest_uri(marker.snapshot_uri)):
            return marker.snapshot_uri
    return None


def accepted_folder(workspace_uri: str, recipe: str) -> str:
    """Return the URI of the folder with the markers of the recipe of a reference."""
    return storage.join(workspace_uri, "accepted_snapshots", key_of(recipe))
