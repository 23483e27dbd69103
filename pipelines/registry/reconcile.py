"""MLflow's alias follows the log of moves; where it cannot, people are told and nothing moves.

The log says who serves, and the alias makes it so. Whoever acts next brings the alias to the newest
move, but only from the version of the move before: every other version was set by something else,
and stops everything until a person has looked (`pipelines.registry.by_hand`). MLflow has no
conditional write, so an attempt to set the alias is recorded first, and alias and log are read
again after it. Not for whether something may be moved (`promotion`, `by_hand`).
"""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    RecordDisagreesError,
    RunInProgressError,
    TrackingUnavailableError,
)
from pipelines.registry import history, registry
from pipelines.registry.history import History, Placed

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
_MAX_LOOKS = 5


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
        last, pending = self.history.last, self.history.pending
        if self.is_kept_elsewhere:
            return f"the history of {self.name} is kept by workspace {self.keeper}"
        if self.history.is_newest_damaged:
            return ""
        if self.serves == self.recorded:
            return _difference(self.served, last.model) if self.served and last else ""
        if pending is not None and self.serves == version_of(pending.previous):
            return ""  # Whoever acts next sets it.
        late, unended = "", {number for number, _ in self.history.attempts}
        pairs = zip(self.history.moves, self.history.entries, strict=True)
        for move, (_, event) in list(pairs)[:-1]:
            if move.entry.number in unended and event.model.version == self.serves:
                late = (
                    f"a request to set the alias for entry {move.entry.number} (the {event.kind} "
                    f"of {event.model.label}) was never seen to end, and may have arrived at "
                    f"MLflow only now; or "
                )
        return (
            f"the registry says that {_label(self.name, self.serves)} serves, and the history that "
            f"{_label(self.name, self.recorded)} does: {late}the alias was moved or deleted by "
            f"something else, or entries of the history are gone"
        )


def version_of(model: ModelRef | None) -> str | None:
    """Return a model's version, None for no model."""
    return model.version if model else None


def _difference(served: ModelRef, recorded: ModelRef) -> str:
    """Return how what serves is another model than the recorded one of the same number, or ''."""
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


def look(client: "MlflowClient", workspace_uri: str, name: str) -> State:
    """Read alias and history once.

    Raises:
        TrackingUnavailableError: the registry does not answer.
    """
    served = registry.read_served(client, name)
    keeper = registry.read_keeper(client, name)
    return State(name, workspace_uri, history.load(workspace_uri, name), served, keeper)


def look_between_moves(client: "MlflowClient", workspace_uri: str, name: str) -> State:
    """Read alias and history as they are while nobody moves the champion.

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


def require_own(state: State) -> None:
    """Refuse to move the champion of a model that does not name this workspace.

    Raises:
        RecordDisagreesError: it names another one, or none.
    """
    require_agreement(state)
    if not state.keeper:
        raise RecordDisagreesError(
            f"registered model {state.name} names no workspace that keeps its history; expected "
            f"its tag {registry.KEEPER} to be {state.workspace_uri}: the model was not made by "
            f"this project, or the tag was deleted; see `homefeed history repair`"
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

    Args:
        client: Client of the tracking server.
        workspace_uri: The workspace.
        name: The registered model.
        is_checked: The newest move's model was compared with its digests just now.

    Raises:
        RecordDisagreesError: alias and history disagree, or another workspace keeps the history.
        PromotionRefusedError: the newest move's model was altered since, and the alias stays.
        DataContractError: so were its files, or they are marked as deleted.
        TrackingUnavailableError: MLflow does not answer; the message says what is so. Other errors
            of MLflow say it too: the decision stands, and the same command carries it out.
    """
    for _ in range(_MAX_LOOKS):
        state = look_between_moves(client, workspace_uri, name)
        require_agreement(state)
        if state.history.pending is None or state.history.is_newest_damaged:
            return state
        require_own(state)
        move, model = state.history.moves[-1], state.history.pending.model
        if state.serves != model.version:
            if not is_checked:
                registry.require_unaltered(client, model)
            if not _set_alias(client, state, move, model):
                continue  # Others have acted meanwhile.
        else:
            history.mark_followed(workspace_uri, name, move, was_set_again=False)
        followed = state.history.followed | {move.entry.number}
        return replace(state, history=replace(state.history, followed=followed), served=model)
    raise RunInProgressError(
        f"others moved the champion of {name} at each of {_MAX_LOOKS} attempts to bring the alias "
        f"to its newest move; expected it to rest; try again"
    )


def _set_alias(client: "MlflowClient", state: State, move: Placed, model: ModelRef) -> bool:
    """Set the alias from the version before, read all back and mark the move as followed.

    Between our last look and the request another program's write would be overwritten, for MLflow
    has no conditional write. So the attempt's file stays while its request may arrive late.

    Returns:
        Whether that was done; False where others have acted meanwhile.
    """
    where, number = (state.workspace_uri, state.name), move.entry.number
    was_tried = any(each == number for each, _ in state.history.attempts)
    mark = history.begin_attempt(*where, number)
    now = look(client, *where)
    if now.serves != state.serves or now.history.newest != state.history.newest:
        history.end_attempt(*where, number, mark)  # Nothing was sent.
        return False
    problem: HomefeedError | None = None
    try:
        registry.point_champion_at(client, model)
    except HomefeedError as error:
        problem = error  # It may have arrived all the same: a proxy may refuse what has.
    decided = f"entry {number} of the history decides that {model.label} serves, and that stands"
    asked = f"MLflow at {client.tracking_uri} was asked to set the alias ({problem or 'it did'})"
    again = "give the same command again, or retry the task: it looks first, and decides nothing"
    try:
        now = look(client, *where)
    except HomefeedError as error:
        raise type(error)(
            f"{decided}; {asked} and does not say any more what the champion is, so it is not "
            f"known whether it moved; {again} twice ({error})",
            kind=error.kind,
        ) from error
    if now.history.newest != state.history.newest or now.serves not in (
        model.version,
        state.serves,
    ):
        return False
    if now.serves != model.version:
        raise (TrackingUnavailableError if problem is None else type(problem))(
            f"{decided}; {asked}, and the champion is still {_label(state.name, now.serves)}; the "
            f"request may still arrive; {again} twice",
            kind=problem.kind if problem else "",
        ) from problem
    if was_tried:
        log.warning(
            "the alias of %s was set to v%s for entry %s again: the write of an earlier attempt "
            "was lost, or a hand had moved the alias back",
            *(state.name, model.version, number),
        )
    history.mark_followed(*where, move, was_tried)
    if problem is None:
        history.end_attempt(*where, number, mark)
    return True


def _label(name: str, version: str | None) -> str:
    return f"{name} v{version}" if version else "no model"
