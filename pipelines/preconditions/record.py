"""Whether the registry's alias and the workspace's history agree on who serves.

A cycle that began where they do not would be compared with a model that does not serve. Not for
mending (`pipelines.registry.by_hand`). Tested in tests/pipelines/registry/test_reconcile.py.
"""

from typing import TYPE_CHECKING

from pipelines.registry import history
from pipelines.registry.reconcile import (
    State,
    follow,
    look_between_moves,
    require_agreement,
    require_newest,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


def require_record(
    client: "MlflowClient", workspace_uri: str, name: str, *, may_settle: bool = True
) -> State:
    """Let the alias follow a move that was interrupted, and refuse a record that is not true.

    A newest entry that is damaged is refused too: nothing vouches for the alias then, and one that
    was deleted would make this a first cycle, which promotes against the popularity baseline.

    Args:
        client: Client of the tracking server.
        workspace_uri: The workspace.
        name: The registered model.
        may_settle: The alias is brought to a move that was interrupted. False only looks.

    Returns:
        Alias and history, which agree.

    Raises:
        RecordDisagreesError: alias and history say different things.
        DataContractError: the newest entry of the history is damaged.
        TrackingUnavailableError: MLflow does not answer.
    """
    state = look_between_moves(client, workspace_uri, name)
    if may_settle and state.history.pending is not None:
        with history.promotion_lock(workspace_uri):
            state = follow(client, workspace_uri, name)
    require_agreement(state)
    require_newest(state)
    return state
