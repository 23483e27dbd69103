"""The snapshots that the data gate has accepted or refused: later ones are compared with them.

    <workspace>/accepted_snapshots/<recipe's key>/<as_of>--<digest>.json    an AcceptedSnapshot
    <workspace>/refused_snapshots/<recipe's key>/<as_of>.json               a RefusedSnapshot

Of a day, the marker of the snapshot that was refused last stays until one is accepted.

The key is that of the recipe's reference (`pipelines.recipes.key_of`). So two recipes from outside
are two, though they call themselves the same, and a recipe whose options were changed still finds
its last snapshot.

Not for judging: that is the stage `check_snapshot`. Tested with the stages that write and read
the markers, in tests/pipelines/stages/test_check_snapshot.py and test_resolve_run.py.
"""

import fnmatch
import logging
from datetime import datetime
from typing import TypeVar

from pydantic import AwareDatetime, Field

from pipelines import deletion, storage
from pipelines.contracts.artifacts import Judged, ResolvedRun, Snapshot
from pipelines.contracts.base import Frozen
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.recipes import key_of

log = logging.getLogger(__name__)
Report = TypeVar("Report", bound=Judged)


class AcceptedSnapshot(Frozen):
    """Marker of one accepted snapshot."""

    as_of: AwareDatetime
    snapshot_uri: str
    recipe: str = Field(description="Its reference.")
    profile_uri: str = Field(default="", description="What was measured; '' in older markers.")


class RefusedSnapshot(Frozen):
    """Marker of the snapshot of a day that was refused last."""

    as_of: AwareDatetime
    snapshot_uri: str
    recipe: str = Field(description="Its reference.")
    report_uri: str = Field(description="What was found; the file may be swept away before this.")


def mark_accepted(run: ResolvedRun, snapshot: Snapshot, profile_uri: str) -> None:
    """Leave the marker of a snapshot that the data gate accepted in this run.

    What was refused of the same day is mended thereby, and its marker goes.
    """
    marker = AcceptedSnapshot(
        as_of=run.as_of,
        snapshot_uri=snapshot.uri,
        recipe=run.config.reference,
        profile_uri=profile_uri,
    )
    storage.write_model(_marker_uri(run.workspace_uri, run, snapshot), marker)
    deletion.remove(_refused_uri(run.workspace_uri, run.config.reference, run.as_of))


def mark_refused(run: ResolvedRun, snapshot: Snapshot, report_uri: str) -> None:
    """Leave the marker of a snapshot that the data gate refused in this run."""
    marker = RefusedSnapshot(
        as_of=run.as_of,
        snapshot_uri=snapshot.uri,
        recipe=run.config.reference,
        report_uri=report_uri,
    )
    storage.write_model(_refused_uri(run.workspace_uri, marker.recipe, run.as_of), marker)


def last_refused(workspace_uri: str, recipe: str, day: datetime) -> str:
    """Return the URI of the report on the snapshot of a recipe and day that was refused last.

    Returns:
        '' where none was, where one was accepted since, and where the marker cannot be read.
    """
    uri = _refused_uri(workspace_uri, recipe, day)
    try:
        return storage.read_model(uri, RefusedSnapshot).report_uri if storage.exists(uri) else ""
    except DataContractError as error:
        log.warning("which snapshot of %s was refused is not known: %s", f"{day:%Y-%m-%d}", error)
        return ""


def read_refusal(uri: str, kind: type[Report]) -> Report | None:
    """Return a report by which the data gate refused something.

    Nothing depends on it but what people are told. So a report that is gone or cannot be read is
    no error.

    Args:
        uri: Of the report.
        kind: Its class.

    Returns:
        None where the gate accepted, and where the report is gone or damaged, which is logged.
    """
    if not storage.exists(uri):
        log.warning("the report %s on what was refused is gone; judged without it", uri)
        return None
    try:
        report = storage.read_model(uri, kind)
    except DataContractError as error:
        log.warning("what was refused cannot be read; judged without it: %s", error)
        return None
    return None if report.is_accepted else report


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


def _refused_uri(workspace_uri: str, recipe: str, day: datetime) -> str:
    name = f"{day:%Y-%m-%d}.json"
    return storage.join(workspace_uri, "refused_snapshots", key_of(recipe), name)
