"""The snapshots that the data gate has accepted, so that later ones are compared with them.

    <workspace>/accepted_snapshots/<recipe>/<as_of>--<digest>.json    an AcceptedSnapshot

Not for accepting: that is the stage `check_snapshot`. Tested with the stages that write and read
the markers, in test_check_snapshot.py and test_resolve_run.py.
"""

from datetime import datetime

from pydantic import AwareDatetime

from pipelines import storage
from pipelines.contracts.artifacts import ResolvedRun, Snapshot
from pipelines.contracts.base import Frozen
from pipelines.contracts.run_layout import snapshot_manifest_uri


class AcceptedSnapshot(Frozen):
    """Marker of one accepted snapshot."""

    as_of: AwareDatetime
    snapshot_uri: str
    recipe: str


def mark_accepted(run: ResolvedRun, snapshot: Snapshot) -> None:
    """Leave the marker of a snapshot that the data gate accepted in this run."""
    recipe = run.config.recipe
    marker = AcceptedSnapshot(as_of=run.as_of, snapshot_uri=snapshot.uri, recipe=recipe)
    name = f"{run.as_of:%Y-%m-%d}--{snapshot.digest[:12]}.json"
    storage.write_model(storage.join(accepted_folder(run.workspace_uri, recipe), name), marker)


def newest_accepted(workspace_uri: str, recipe: str, before: datetime) -> str | None:
    """Return the URI of the newest accepted snapshot of a recipe with an earlier as_of, or None.

    A snapshot that was deleted since is passed over.
    """
    folder = accepted_folder(workspace_uri, recipe)
    for name in reversed(storage.list_names(folder)):
        marker = storage.read_model(storage.join(folder, name), AcceptedSnapshot)
        if marker.as_of < before and storage.exists(snapshot_manifest_uri(marker.snapshot_uri)):
            return marker.snapshot_uri
    return None


def accepted_folder(workspace_uri: str, recipe: str) -> str:
    """Return the URI of the folder with a recipe's markers."""
    return storage.join(workspace_uri, "accepted_snapshots", recipe)
