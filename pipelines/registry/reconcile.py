"""MLflow's alias follows the log of moves; where it cannot, people are told and nothing moves.

The log says who serves, and the alias makes it so. Whoever acts next brings the alias to the newest
move, but only from the version of the move before: every other version was set by something else,
and stops everything until a person has looked (`homefeed history repair`). MLflow has no
conditional write, so an attempt to set the alias is recorded first, and alias and log are read
again after it. Not for whether something may be moved (`pipelines.registry.moves`).
"""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines import deletion, storage
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    RecordDisagreesError,
    TrackingUnavailableError,
)
from pipelines.registry import history, registry
from pipelines.registry.history import History, Move

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """What the registry and the workspace say of one registered model's champion."""

    history: History
    served: ModelRef | None
    """What is behind the alias."""
    keeper: str | None
    """URI of the workspace that keeps the history, by the registry; '' none, None no model yet."""

    @property
    def serves(self) -> str | None:
        """Version behind the alias."""
        return version_of(self.served)

    @property
    def recorded(self) -> str | None:
        """Version that serves as far as the history knows."""
        return self.history.last.model.version if self.history.last else None

    @property
    def is_kept_here(self) -> bool:
        """Whether the registered model names this workspace, or is not there yet."""
        place = self.history.workspace_uri
        return self.keeper is None or (self.keeper != "" and storage.same_place(self.keeper, place))

    def label(self, version: str | None) -> str:
        """Name a version."""
        return f"{self.history.name} v{version}" if version else "no model"

    def disagreement(self) -> str:
        """Return what does not agree, in a sentence, or ''."""
        known, served = self.history, self.served
        last, pending = known.last, known.pending
        if not self.is_kept_here:
            keeper = self.keeper or f"none, for the model has no tag {registry.KEEPER}"
            return f"the history of {known.name} is kept by workspace {keeper}"
        is_same = self.serves == self.recorded
        is_to_follow = pending is not None and self.serves == version_of(pending.previous)
        if known.is_newest_damaged or (is_to_follow and not is_same):
            return ""  # Whoever acts next sets it.
        if is_same and served and last:
            # What was no version of this project when it was recorded has no digests.
            for digest in ("bundle_digest", "model_digest"):
                found, kept = (getattr(each, digest) for each in (served, last.model))
                if kept and found != kept:
                    return (
                        f"{served.label} has {digest} {found[:12] or '(none)'} in the registry and "
                        f"{kept[:12]} in the history: its tags were altered since, and its files "
                        f"may have been; or they belong to two registries"
                    )
        if is_same:
            return ""
        late = [
            f"a request to set the alias for entry {move.number} (the {move.kind} of "
            f"{move.model.label}) was never seen to end, and may have arrived at MLflow only now; "
            f"or "
            for move in known.moves[:-1]
            if move.number in known.attempts and move.model.version == self.serves
        ]
        return (
            f"the registry says that {self.label(self.serves)} serves, and the history that "
            f"{self.label(self.recorded)} does: {late[-1] if late else ''}the alias was moved or "
            f"deleted by something else, or entries of the history are gone"
        )


def version_of(model: ModelRef | None) -> str | None:
    """Return a model's version, None for no model."""
    return model.version if model else None


def look(client: "MlflowClient", workspace_uri: str, name: str) -> State:
    """Read alias and history once.

    Raises:
        TrackingUnavailableError: the registry does not answer.
    """
    served = registry.read_champion(client, name, is_ours=False)
    keeper = registry.read_keeper(client, name)
    return State(history.load(workspace_uri, name), served, keeper)


def look_between_moves(client: "MlflowClient", workspace_uri: str, name: str) -> State:
    """Read alias and history as they are while nobody moves the champion.

    A move that is made between the reading of the alias and that of the history looks like a
    disagreement. What a second look finds unchanged is one: the history never becomes again what it
    was, so nothing was moved from the first look to the second, and the alias was read in between.

    Raises:
        TrackingUnavailableError: the registry does not answer.
    """
    before, state = None, look(client, workspace_uri, name)
    while state != before and state.disagreement():
        before, state = state, look(client, workspace_uri, name)
    return state


def require_agreement(state: State) -> None:
    """Refuse to go on where alias and history disagree.

    Raises:
        RecordDisagreesError: they do; the message names the command that shows and mends it.
    """
    if found := state.disagreement():
        raise RecordDisagreesError(
            f"{found} (workspace {state.history.workspace_uri}); expected both to name the same "
            f"model; see what would mend it with `homefeed history repair`, or set "
            f"HOMEFEED_WORKSPACE and HOMEFEED_TRACKING_URI to a workspace and a registry that "
            f"belong together"
        )


def require_newest(state: State) -> None:
    """Refuse to say what serves where the newest entry is damaged: only the registry knows.

    Raises:
        DataContractError: it is.
    """
    if state.history.is_newest_damaged:
        raise DataContractError(
            f"the newest entry of the history is damaged ({', '.join(state.history.damaged)}), and "
            f"the registry says that {state.label(state.serves)} serves; expected the entry as it "
            f"was written; put it back, or record what serves: `homefeed history repair --apply "
            f"--reason ...`"
        )


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


def follow(
    client: "MlflowClient", workspace_uri: str, name: str, *, is_checked: bool = False
) -> State:
    """Bring the alias to the newest move, if it does not follow it yet, and return what is so.

    The move's model is compared with its digests first, unless it `is_checked` just now.

    Raises:
        RecordDisagreesError: alias and history disagree, or another workspace keeps the history.
        PromotionRefusedError: the newest move's model was altered since, and the alias stays.
        DataContractError: so were its files, or they are marked as deleted.
        TrackingUnavailableError: MLflow does not answer; the message says what is so. Other errors
            of MLflow say it too: the decision stands, and the same command carries it out.
    """
    while True:
        state = look_between_moves(client, workspace_uri, name)
        require_agreement(state)
        known, move = state.history, state.history.pending
        if move is None or known.is_newest_damaged:
            return state
        if state.serves == move.model.version:
            history.mark_followed(known, move, was_set_again=False)
        else:
            if not is_checked:
                registry.require_unaltered(client, move.model)
            if not _set_alias(client, state, move):
                continue  # Others have acted meanwhile.
        known = replace(known, followed=known.followed | {move.number})
        return replace(state, history=known, served=move.model)


def _set_alias(client: "MlflowClient", state: State, move: Move) -> bool:
    """Set the alias from the version before, read all back and mark the move as followed.

    Between our last look and the request another program's write would be overwritten, for MLflow
    has no conditional write. So the attempt's file stays while its request may arrive late.

    Returns:
        Whether that was done; False where others have acted meanwhile.
    """
    known, model = state.history, move.model
    where, was_tried = (known.workspace_uri, known.name), move.number in known.attempts
    attempt = history.begin_attempt(known, move.number)
    before = look(client, *where)
    if before.serves != state.serves or before.history.newest != known.newest:
        deletion.remove(attempt)  # Nothing was sent.
        return False
    problem: HomefeedError | None = None
    now: State | None = None
    try:
        registry.point_champion_at(client, model)
    except HomefeedError as error:
        problem = error  # It may have arrived all the same: a proxy may refuse what has.
    try:
        now = look(client, *where)
    except HomefeedError as error:
        problem = error
    if now is not None:
        is_ours = now.history.newest == known.newest
        if not is_ours or now.serves not in (model.version, state.serves):
            return False
    if now is None or now.serves != model.version:
        found = (
            f"the champion is still {state.label(now.serves)}"
            if now
            else "it is not known whether it moved"
        )
        raise (type(problem) if problem else TrackingUnavailableError)(
            f"entry {move.number} of the history decides that {model.label} serves, and that "
            f"stands; MLflow at {client.tracking_uri} was asked to set the alias "
            f"({problem or 'it did'}), and by a look at it since, {found}; the request may still "
            f"arrive; give the same command again, or retry the task: it looks first, and decides "
            f"nothing twice",
            kind=problem.kind if problem else "",
        ) from problem
    if was_tried:
        log.warning(
            "the alias of %s was set to v%s for entry %s again: the write of an earlier attempt "
            "was lost, or a hand had moved the alias back",
            *(known.name, model.version, move.number),
        )
    history.mark_followed(known, move, was_tried)
    if problem is None:
        deletion.remove(attempt)
    return True
