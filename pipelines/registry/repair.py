"""Makes alias and history agree again, by adding an entry that says what was found.

Nothing is deleted or rewritten. Tested in tests/pipelines/registry/test_reconcile.py.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.contracts.artifacts import ModelRef
from pipelines.contracts.errors import ConfigurationError, TrackingEntryMissingError
from pipelines.registry import history, registry
from pipelines.registry.by_hand import recipe_on_record, require_reason
from pipelines.registry.history import HistoryEntry
from pipelines.registry.reconcile import State, follow, require_not_deleted

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Plan:
    """What a repair does: sentences for people, and the model that is to serve; None as it is."""

    steps: tuple[str, ...]
    model: ModelRef | None


def plan(
    client: "MlflowClient", state: State, restores_alias: bool, to_version: str | None = None
) -> Plan:
    """Return what `repair` would do; nothing where all agrees.

    Args:
        client: Client of the tracking server.
        state: What was found.
        restores_alias: The history is right and the alias is moved; otherwise the other way round.
        to_version: A version that shall serve, whatever both say.

    Raises:
        ConfigurationError: nothing serves that could be recorded, or nothing is recorded that the
            alias could be pointed at, or the alias names it and the version itself was altered.
        TrackingEntryMissingError: the registry has no such version any more.
        BundleMissingError: the alias would be pointed at a version that is marked as deleted.
    """
    steps: list[str] = []
    pending = state.history.pending
    model = _model_to_serve(client, state, restores_alias, to_version)
    if pending is not None and model is None:
        steps.append(f"let the alias follow the {pending.kind} of {pending.model.label}")
    if model is not None:
        if model.version != state.serves:
            require_not_deleted(client, model)
        does = "point the alias at" if model.version != state.serves else "record that"
        tail = "" if model.version != state.serves else " serves"
        steps.append(f"{does} {model.label}{tail}")
    steps += [f"take note that {uri} is damaged or gone" for uri in state.history.damaged]
    if _is_unkept(state):
        was = state.keeper or "none"
        steps.append(f"name {state.workspace_uri} as the history's keeper (was {was})")
    return Plan(tuple(steps), model)


def _is_unkept(state: State) -> bool:
    """Return whether the registry has to be told that this workspace keeps the history."""
    return state.is_kept_elsewhere or (state.served is not None and not state.keeper)


def repair(
    client: "MlflowClient", state: State, wanted: Plan, now: datetime, reason: str
) -> HistoryEntry | None:
    """Carry a plan out; the state is of just now.

    Raises:
        ConfigurationError: there is no reason.
        LostTheNumberError: something was decided since the state was read; look again.
    """
    require_reason(reason)
    place, name, known = state.workspace_uri, state.name, state.history
    if _is_unkept(state):
        registry.name_keeper(client, name, place)
    entry, serving = None, known.last
    model = wanted.model or (state.served if known.damaged else None)
    if model is not None:
        entry = HistoryEntry(
            moved_at=now,
            kind="outside",
            model=model,
            # Where the alias is moved, it comes from where it was found.
            previous=serving.model if serving and model.version == state.serves else state.served,
            run_uri=None,
            reason=reason,
        )
        recipes = known.recipes
        if recipes.accepted is None:
            found = recipe_on_record(client, place, known, model)
            recipes = recipes.model_copy(update={"accepted": found})
        damaged = tuple(history.name_of(uri) for uri in known.damaged)
        history.create(place, name, known, entry, recipes, damaged)
    follow(client, place, name)
    return entry


def _model_to_serve(
    client: "MlflowClient",
    state: State,
    restores_alias: bool,
    to_version: str | None,
) -> ModelRef | None:
    """Return what shall serve and be recorded; None where the log's word stands."""
    recorded = state.history.last.model if state.history.last else None
    agree = not replace(state, keeper="").disagreement()
    is_damaged = state.history.is_newest_damaged
    if to_version is not None:
        stands = agree and not is_damaged and to_version == state.serves == state.recorded
        return None if stands else registry.read_version(client, state.name, to_version)
    if agree and (not is_damaged or state.serves == state.recorded):
        return None
    if not restores_alias:
        if state.served is None:
            raise ConfigurationError(
                f"{state.name} has no champion in the registry, so none can be recorded; expected "
                f"one; point the alias at what the history names with "
                f"`homefeed history repair --restore-alias`, or at another version with "
                f"`homefeed history repair --to-version N`; either shows first what it would do"
            )
        return registry.read_version(client, state.name, state.served.version)
    if recorded is not None and recorded.version == state.serves:
        raise ConfigurationError(
            f"--restore-alias is given, and the alias names what the history does: "
            f"{state.disagreement()}; put its tags and files back; or leave --restore-alias out, "
            f"which records it as it is; or name another version with --to-version N"
        )
    if recorded is None:
        raise ConfigurationError(
            f"the history of {state.name} knows no champion that the alias could be pointed at; "
            f"expected at least one entry; leave out --restore-alias"
        )
    try:
        return registry.read_version(client, state.name, recorded.version)
    except TrackingEntryMissingError as error:
        raise TrackingEntryMissingError(
            f"{error}; the history says that {recorded.label} serves; name another version with "
            f"--to-version N; where the registry is a new one, begin a new history: set "
            f"HOMEFEED_WORKSPACE or HOMEFEED_REGISTERED_MODEL"
        ) from error
