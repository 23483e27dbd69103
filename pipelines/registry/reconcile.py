"""Holds the registry's alias against the history, at every use.

The alias says what serves now, the history what served when. They disagree where the alias was
moved or deleted by hand, where entries were lost, and where two workspaces move one registered
model. Then nothing is resolved, promoted or rolled back until a person has looked. Not for moves
(`pipelines.registry.moves`), nor for mending (`pipelines.registry.repair`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RecordDisagreesError,
)
from pipelines.registry import history, registry
from pipelines.registry.history import History

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class State:
    """What the registry and the workspace say of one registered model's champion."""

    name: str
    workspace_uri: str
    history: History
    served: ModelRef | None
    """What is behind the alias."""
    keeper: str
    """URI of the workspace that keeps the history, as the registry has it; '' where none does."""

    @property
    def serves(self) -> str | None:
        """Version behind the alias."""
        return self.served.version if self.served else None

    @property
    def recorded(self) -> str | None:
        """Version that serves as far as the history knows."""
        last = self.history.last
        return last.model.version if last else None

    @property
    def is_kept_elsewhere(self) -> bool:
        """Whether another workspace keeps this model's history."""
        return self.keeper != "" and not storage.same_place(self.keeper, self.workspace_uri)

    def disagreement(self) -> str:
        """Return what does not agree, in a sentence, or ''."""
        pending, last = self.history.pending, self.history.last
        if self.is_kept_elsewhere:
            return f"the history of {self.name} is kept by workspace {self.keeper}"
        if self.history.is_newest_damaged:
            return ""
        if self.serves == self.recorded:
            digests = {model.bundle_digest for model in (self.served, last and last.model) if model}
            if len(digests - {""}) < 2:
                return ""
            return (
                f"{_label(self.name, self.serves)} in the registry is another model than the one "
                f"of that number in the history: they belong to two registries"
            )
        if pending is not None and self.serves == pending.intent.entry.model.version:
            return ""  # The next one who moves the champion records that this was made.
        return (
            f"the registry says that {_label(self.name, self.serves)} serves, and the history that "
            f"{_label(self.name, self.recorded)} does: the alias was moved or deleted by something "
            f"else, or entries of the history are gone"
        )


def look(client: "MlflowClient", workspace_uri: str, name: str) -> State:
    """Read alias and history.

    Raises:
        TrackingUnavailableError: the registry does not answer.
    """
    served = registry.read_served(client, name)
    keeper = registry.read_keeper(client, name)
    return State(name, workspace_uri, history.load(workspace_uri, name), served, keeper)


def require_agreement(state: State) -> None:
    """Refuse to go on where alias and history disagree.

    Raises:
        RecordDisagreesError: they do; the message names the command that shows and mends it.
    """
    if found := state.disagreement():
        raise RecordDisagreesError(
            f"{found} (workspace {state.workspace_uri}); expected both to name the same version; "
            f"see what would mend it with `homefeed history repair`, or set HOMEFEED_WORKSPACE "
            f"and HOMEFEED_TRACKING_URI to a workspace and a registry that belong together"
        )


def require_own(client: "MlflowClient", workspace_uri: str, name: str) -> State:
    """Return what agrees, with this workspace named in the registry as the history's keeper.

    Raises:
        RecordDisagreesError: alias and history disagree, or another workspace keeps the history.
    """
    state = look(client, workspace_uri, name)
    require_agreement(state)
    if not state.keeper:
        registry.name_keeper(client, name, workspace_uri)
    return state


def require_workspace(workspace_uri: str) -> None:
    """Refuse a workspace that is not there, which is a wrong folder far more often than a new one.

    Raises:
        ConfigurationError: nothing is there.
    """
    if not storage.exists(workspace_uri):
        raise ConfigurationError(
            f"there is no workspace at {workspace_uri}; expected the folder that cycles have "
            f"written; change to the folder that holds it, or set HOMEFEED_WORKSPACE"
        )


def require_newest(state: State) -> None:
    """Refuse to say what serves where the newest entry is damaged: only the registry knows.

    Raises:
        DataContractError: it is.
    """
    if state.history.is_newest_damaged:
        raise DataContractError(
            f"the newest entry of the history is damaged ({', '.join(state.history.damaged)}), and "
            f"the registry says that {_label(state.name, state.serves)} serves; expected the entry "
            f"as it was written; put it back, or record what serves: `homefeed history repair "
            f"--apply --reason ...`"
        )


def _label(name: str, version: str | None) -> str:
    return f"{name} v{version}" if version else "no model"
