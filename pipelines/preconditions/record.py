"""Whether the registry's alias and the workspace's history agree on who serves.

A cycle that began where they do not would be compared with a model that does not serve. Not for
mending (`pipelines.registry.repair`). Tested in tests/pipelines/registry/test_reconcile.py.
"""

from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.registry import history, moves
from pipelines.registry.reconcile import look_between_moves, require_agreement, require_newest

if TYPE_CHECKING:
    from mlflow import MlflowClient


def require_record(
    client: "MlflowClient",
    workspace_uri: str,
    name: str,
    now: datetime,
    *,
    may_settle: bool = True,
) -> None:
    """Find out what became of a move that was interrupted, and refuse a record that is not true.

    A newest entry that is damaged is refused too: nothing vouches for the alias then, and one that
    was deleted would make this a first cycle, which promotes against the popularity baseline.

    Args:
        client: Client of the tracking server.
        workspace_uri: The workspace.
        name: The registered model.
        now: The time.
        may_settle: What became of an interrupted move is put on record. False only looks.

    Raises:
        RecordDisagreesError: alias and history say different things.
        DataContractError: the newest entry of the history is damaged.
        TrackingUnavailableError: MLflow does not answer.
    """
    if may_settle and history.load(workspace_uri, name).pending is not None:
        with history.promotion_lock(workspace_uri):
            moves.settle_others(client, workspace_uri, name, now, "a new cycle began")
    state = look_between_moves(client, workspace_uri, name)
    require_agreement(state)
    require_newest(state)
