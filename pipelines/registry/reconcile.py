"""Holds the registry's alias against the history, at every use.

The alias says what serves now, the history what served when. They disagree where the alias was
moved or deleted by hand, where entries were lost, and where two workspaces move one registered
model. Then nothing is resolved, promoted or rolled back until a person has looked. Not for moves
(`pipelines.registry.moves`), nor for mending (`pipelines.registry.repair`).
"""

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    RecordDisagreesError,
    RunInProgressError,
)
from pipelines.registry import history, registry
from pipelines.registry.history import History, Move

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MAX_LOOKS = 5
_CLAIM = "homefeed_claim."
_CLAIM_WAIT_S = 10.0
"""So long another workspace may take to become the keeper, or to withdraw, in seconds."""
_CLAIM_LOOK_S = 0.1


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

    @property
    def unsettled(self) -> Move | None:
        """The move that the alias has made and whose outcome is not on record yet, or None.

        The next one who moves the champion records that it was made.
        """
        move = self.history.pending
        if move is None or self.serves == self.recorded:
            return None
        return move if self.serves == move.intent.entry.model.version else None

    def disagreement(self) -> str:
        """Return what does not agree, in a sentence, or ''."""
        last, unsettled = self.history.last, self.unsettled
        if self.is_kept_elsewhere:
            return f"the history of {self.name} is kept by workspace {self.keeper}"
        if self.history.is_newest_damaged:
            return ""
        if unsettled is not None:
            return _difference(self.served, unsettled.intent.entry.model)
        if self.serves == self.recorded:
            return _difference(self.served, last.model if last else None)
        return (
            f"the registry says that {_label(self.name, self.serves)} serves, and the history that "
            f"{_label(self.name, self.recorded)} does: {self._late_arrival()}the alias was moved "
            f"or deleted by something else, or entries of the history are gone"
        )

    def _late_arrival(self) -> str:
        """Name the move that was given up and that the alias has made all the same, or ''.

        Its request was under way for longer than anybody waited for the answer, perhaps.
        """
        for move in reversed(self.history.moves):
            is_given_up = move.outcome is not None and not move.outcome.is_made
            if is_given_up and move.entry.model.version == self.serves:
                return (
                    f"the {move.entry.kind} of {move.entry.model.label} was given up at "
                    f"{move.entry.moved_at:%Y-%m-%d %H:%M} UTC, and its request may have arrived "
                    f"at MLflow since; or "
                )
        return ""


def _difference(served: ModelRef | None, recorded: ModelRef | None) -> str:
    """Return how what serves is another model than the recorded one of the same number, or ''."""
    if served is None or recorded is None:
        return ""
    # What was no version of this project when it was recorded has no digests.
    if len({served.bundle_digest, recorded.bundle_digest} - {""}) > 1:
        return (
            f"{served.label} in the registry is another model than the one of that number in the "
            f"history: they belong to two registries"
        )
    if recorded.model_digest in ("", served.model_digest):
        return ""
    return (
        f"the registry says that all files of {served.label}, its serving code among them, have "
        f"digest {served.model_digest[:12] or '(none)'}, and the history that they have "
        f"{recorded.model_digest[:12]}: the version's tags were altered since it was recorded, and "
        f"its files may have been"
    )


def look_between_moves(client: "MlflowClient", workspace_uri: str, name: str) -> State:
    """Read alias and history without the lock, as they are while nobody moves the champion.

    A move that is made between the reading of the alias and that of the history looks like a
    disagreement. What a second look finds unchanged is one: the history never becomes again what it
    was, so nothing was moved from the first look to the second, and the alias was read in between.

    Raises:
        TrackingUnavailableError: the registry does not answer.
        RunInProgressError: something is moved at every look.
    """
    state = look(client, workspace_uri, name)
    for _ in range(_MAX_LOOKS):
        if not state.disagreement():
            return state
        before, state = state, look(client, workspace_uri, name)
        if state == before:
            return state
    if not state.disagreement():
        return state
    raise RunInProgressError(
        f"the champion of {name} was moved between {_MAX_LOOKS} looks at alias and history; "
        f"expected it to rest; try again"
    )


def look(client: "MlflowClient", workspace_uri: str, name: str) -> State:
    """Read alias and history; the caller holds the lock, or reads by `look_between_moves`.

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
            f"{found} (workspace {state.workspace_uri}); expected both to name the same model; "
            f"see what would mend it with `homefeed history repair`, or set HOMEFEED_WORKSPACE "
            f"and HOMEFEED_TRACKING_URI to a workspace and a registry that belong together"
        )


def require_own(client: "MlflowClient", workspace_uri: str, name: str) -> State:
    """Return what agrees, with this workspace named in the registry as the history's keeper.

    Raises:
        RecordDisagreesError: alias and history disagree, or another workspace keeps the history.
        RunInProgressError: another workspace is about to keep it.
    """
    state = look(client, workspace_uri, name)
    require_agreement(state)
    if state.keeper:
        return state
    _become_keeper(client, workspace_uri, name)
    state = look(client, workspace_uri, name)  # Others may have acted before it was ours alone.
    require_agreement(state)
    return state


def _become_keeper(client: "MlflowClient", workspace_uri: str, name: str) -> None:
    """Name a workspace as the keeper of a history that nobody keeps, unless another one is quicker.

    Two workspaces have no lease in common, and MLflow has no conditional write. So each writes a
    claim of its own first, and reads all claims after that: of two that claim at once, at least one
    sees the other. Whoever sees no claim but its own becomes the keeper, and takes the claim away
    only after that is written. Where both see both, the one that comes first by name waits, and the
    other one withdraws. A claim that was left by a kill is found again by its own workspace.

    Raises:
        RunInProgressError: another workspace has claimed the history, and is not its keeper yet.
    """
    own = _claim_of(workspace_uri)
    registry.tag_model(client, name, own, workspace_uri)
    deadline = time.monotonic() + _CLAIM_WAIT_S
    while True:
        tags = registry.read_model_tags(client, name)
        others = sorted(
            tag
            for tag, place in tags.items()
            if tag.startswith(_CLAIM) and not storage.same_place(place, workspace_uri)
        )
        if registry.KEEPER in tags or not others:
            break
        if own > others[0] or time.monotonic() > deadline:
            registry.untag_model(client, name, own)
            raise RunInProgressError(
                f"workspace {tags[others[0]]} is about to keep the history of {name}, as is "
                f"{workspace_uri}; expected one workspace for each registered model; try again, "
                f"which tells who keeps it; if nobody works there any more, delete the tag "
                f"{others[0]} of {name} in MLflow"
            )
        time.sleep(_CLAIM_LOOK_S)
    if registry.KEEPER not in tags:
        registry.name_keeper(client, name, workspace_uri)
    registry.untag_model(client, name, own)


def _claim_of(workspace_uri: str) -> str:
    """Return the tag by which a workspace claims a history; no two workspaces have the same one."""
    return _CLAIM + hashlib.sha256(workspace_uri.encode()).hexdigest()[:16]


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
