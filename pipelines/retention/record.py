"""Reads what is on record of the champion, and refuses a record that is not sound.

Whatever is deleted is deleted because the record does not need it. So a registry that does not
answer, a history that is damaged or disagrees with the alias, or a record of accepted recipes that
cannot be read means that nothing is deleted at all. Not for what the record needs (`needs`).
"""

import fnmatch
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.run_layout import snapshot_manifest_uri
from pipelines.registry import evidence, reconcile
from pipelines.registry.accepted import AcceptedSnapshot
from pipelines.retention.plan import Record, name_in

if TYPE_CHECKING:
    from mlflow import MlflowClient


def read_state(client: "MlflowClient", workspace_uri: str, name: str) -> reconcile.State:
    """Return alias and history, which agree and are whole.

    Raises:
        TrackingUnavailableError: the registry does not answer.
        RecordDisagreesError: alias and history disagree, or another workspace keeps the history.
        DataContractError: some of the record is damaged.
        ConfigurationError: there is no workspace.
    """
    reconcile.require_workspace(workspace_uri)
    state = reconcile.look_between_moves(client, workspace_uri, name)
    reconcile.require_agreement(state)
    reconcile.require_newest(state)
    if state.history.damaged:
        raise DataContractError(
            f"the history of {name} is damaged ({', '.join(state.history.damaged)}), so what "
            f"served is not known; expected every entry as it was written; nothing is deleted; "
            f"put them back, or see what would mend it with `homefeed history repair`"
        )
    return state


def read_record(client: "MlflowClient", workspace_uri: str, name: str) -> Record:
    """Return what is on record of a registered model; raises as `read_state` does."""
    state = read_state(client, workspace_uri, name)
    marks = _newest_marks(workspace_uri)
    return Record(
        state=state,
        judged_runs=_judged_runs(workspace_uri, name, state),
        references={name_in(mark.snapshot_uri): mark.recipe for mark in marks},
        profile_uris=tuple(mark.profile_uri for mark in marks if mark.profile_uri),
    )


def _judged_runs(workspace_uri: str, name: str, state: reconcile.State) -> frozenset[str]:
    """Return the names of the runs that were judged since the champion moved last."""
    last = state.history.last
    cycles = evidence.read(evidence.pin(workspace_uri, name, but=""))
    return frozenset(
        cycle.run_id for cycle in cycles if last is None or cycle.first_judged_at > last.moved_at
    )


def _newest_marks(workspace_uri: str) -> list[AcceptedSnapshot]:
    """Return of each recipe the mark that the next cycle is compared with."""
    folder, found = storage.join(workspace_uri, "accepted_snapshots"), []
    for recipe in storage.list_names(folder):
        place = storage.join(folder, recipe)
        names = fnmatch.filter(storage.list_names(place), "[!.]*.json")
        for name in reversed(names):
            repair = "delete it: an older accepted snapshot is then the reference"
            mark = storage.read_model(storage.join(place, name), AcceptedSnapshot, repair)
            if storage.exists(snapshot_manifest_uri(mark.snapshot_uri)):
                found.append(mark)
                break
    return found
