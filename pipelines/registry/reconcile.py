"""Holds the registry's alias against the history, at every use, and mends what disagrees.

The alias says what serves now, the history what served when. They disagree where the alias was
moved or deleted by hand, where entries were lost, and where two workspaces move one registered
model. Then nothing is resolved, promoted or rolled back until a person has looked. Not for moves
(`pipelines.registry.moves`).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import ConfigurationError, RecordDisagreesError
from pipelines.registry import history, moves, registry
from pipelines.registry.history import History, HistoryEntry

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class State:
    """What the registry and the workspace say of one registered model's champion."""

    name: str
    workspace_uri: str
    history: History
    serves: str | None
    """Version behind the alias."""
    keeper: str
    """URI of the workspace that keeps the history, as the registry has it; '' where none does."""

    @property
    def recorded(self) -> str | None:
        """Version that serves as far as the history knows."""
        last = self.history.last
        return last.model.version if last else None

    @property
    def is_kept_elsewhere(self) -> bool:
        """Whether another workspace keeps this model's history."""
        return self.keeper not in ("", self.workspace_uri)

    def disagreement(self) -> str:
        """Return what does not agree, in a sentence, or ''."""
        pending = self.history.pending
        if self.is_kept_elsewhere:
            return f"the history of {self.name} is kept by workspace {self.keeper}"
        if self.serves == self.recorded or self.history.is_newest_damaged:
            return ""
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
    serves = registry.read_champion_version(client, name)
    keeper = registry.read_keeper(client, name)
    return State(name, workspace_uri, history.load(workspace_uri, name), serves, keeper)


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


def propose(state: State, restores_alias: bool) -> list[str]:
    """Return what `repair` would do, a sentence each; nothing where all agrees."""
    found = [f"name {state.workspace_uri} as the keeper of the history (was {state.keeper})"]
    found = found if state.is_kept_elsewhere else []
    if state.history.pending is not None:
        found.append(f"find out what became of {state.history.pending.uri}")
    if state.serves != state.recorded and state.history.pending is None:
        if restores_alias:
            found.append(f"point the alias at {_label(state.name, state.recorded)} again")
        else:
            found.append(f"record that {_label(state.name, state.serves)} serves")
    found += [f"take note that {uri} is damaged or gone" for uri in state.history.damaged]
    return found


def repair(
    client: "MlflowClient", state: State, now: datetime, reason: str, restores_alias: bool
) -> HistoryEntry | None:
    """Make alias and history agree; the caller holds the lock.

    Nothing is deleted or rewritten: an entry is added that says what was found.

    Args:
        client: Client of the tracking server.
        state: What was found.
        now: The time.
        reason: Why, in a sentence.
        restores_alias: The history is right and the alias is moved; otherwise the other way round.

    Raises:
        ConfigurationError: there is no reason, or nothing serves that could be recorded.
    """
    if not reason.strip():
        raise ConfigurationError("--reason is empty; expected a sentence for the record")
    if state.is_kept_elsewhere:
        registry.name_keeper(client, state.name, state.workspace_uri)
    known = moves.settle_others(client, state.workspace_uri, state.name, now)
    last = known.last
    damaged = tuple(history.name_of(uri) for uri in known.damaged)
    if state.serves == (last and last.model.version) and not known.damaged:
        return None
    model = _model_to_serve(client, state, last, restores_alias)
    entry = HistoryEntry(
        moved_at=now,
        kind="outside",
        model=model,
        # The alias is where it was found: a restored one comes from there.
        previous=_found(client, state) if restores_alias else last and last.model,
        run_uri=None,
        reason=reason,
    )
    move = history.begin(state.workspace_uri, known, entry, damaged)
    return moves.carry_out(client, move, now)


def _model_to_serve(
    client: "MlflowClient", state: State, last: HistoryEntry | None, restores_alias: bool
) -> ModelRef:
    if restores_alias:
        if last is None:
            raise ConfigurationError(
                f"the history of {state.name} knows no champion that the alias could be pointed "
                f"at; expected at least one entry; leave out --restore-alias"
            )
        return last.model
    if state.serves is None:
        raise ConfigurationError(
            f"{state.name} has no champion in the registry, so none can be recorded; expected one; "
            f"point the alias at what the history names: `homefeed history repair --restore-alias`"
        )
    return registry.read_version(client, state.name, state.serves)


def _found(client: "MlflowClient", state: State) -> ModelRef | None:
    return registry.read_version(client, state.name, state.serves) if state.serves else None


def _label(name: str, version: str | None) -> str:
    return f"{name} v{version}" if version else "no model"
